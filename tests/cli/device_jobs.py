"""What the jobs on phones and boards share: a small network, short settings, and images of two classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SMALL = ("--channels", "8", "--layers", "3", "--resolution", "16", "--classes", "2")
QUICK = ("--population", "4", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8", "--on", "cpu")
ONCE: dict[str, Any] = {
    "sessions": 1,
    "min_runs": 5,
    "min_seconds": 0.0,
    "warmup_seconds": 0.0,
    "patience_seconds": 0,
}
"""Settings of one session a model."""


def write_once(path: Path) -> Path:
    """Write :data:`ONCE` as a file for ``--config``; return ``path``."""
    path.write_text("[measurement]\n" + "".join(f"{name} = {value}\n" for name, value in ONCE.items()))
    return path


def write_images(folder: Path) -> Path:
    """Write 30 dark and 30 light images of the resolution of :data:`SMALL`; return ``folder``."""
    rng = np.random.default_rng(0)
    for name, shade in (("dark", 20), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(shade, shade + 50, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder
