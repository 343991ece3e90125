"""How much memory images may take before they are read from a file instead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SHARE: Final = 0.5
"""The default limit, a share of the memory of the machine or of its container."""


def memory_limit(chosen: int | None, root: Path = Path("/")) -> int:
    """Return the bytes that the images of a data set may take: ``chosen``, or a half of what the machine has.

    Of a container, what it may use counts. ``root`` is the root of the file system.
    """
    if chosen is not None:
        return chosen
    return round(SHARE * min(_physical(), *_container(root)))


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        # Other systems do not tell; this is little on any of today's machines.
        return 8 << 30


def _container(root: Path) -> list[int]:
    """Return the limits of the control group that a container has as its root: both versions."""
    found = [1 << 62]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / "sys/fs/cgroup" / name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdecimal():
            found.append(int(text))
    return found
