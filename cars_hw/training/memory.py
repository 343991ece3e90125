"""Memory that a CPU's training would otherwise hand back and fetch again at every operation."""

from __future__ import annotations

import ctypes
import platform
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_LARGEST: Final = 1 << 30


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory for this process; return whether it understood.

    By default glibc gets every large block from the system and returns it when it is freed, so that each
    activation is paged in anew: a sixth of the time of training small networks. A setting of the whole
    process, for programs to make and not for libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(name, _LARGEST) == 1 for name in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
