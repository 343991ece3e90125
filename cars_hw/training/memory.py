"""The setting that keeps freed memory in the process, which makes training on a CPU faster."""

from __future__ import annotations

import ctypes
import platform
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_LARGEST: Final = 1 << 30


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for this process; return whether it accepted the setting.

    By default glibc requests every large block from the system and returns it when it is freed, so each activation
    is paged in again. This takes a sixth of the training time of small networks. The setting is for the whole
    process: programs should make it, libraries should not.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(name, _LARGEST) == 1 for name in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
