"""A script that two processes run together, as torchrun starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def run_by_two(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the script ``name`` beside this one, and return what the two have saved in ``folder``."""
    script = Path(__file__).with_name(name)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(folder)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2))
    return first, second
