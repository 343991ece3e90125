"""Memory of a training: a setting that makes it faster on a CPU, and the errors that say there is too little."""

from __future__ import annotations

import ctypes
import platform
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_LARGEST: Final = 1 << 30
_FULL: Final = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "cudaErrorMemoryAllocation",
    "can't allocate memory",
)
"""What messages say about too little memory: those of CUDA, cuBLAS, cuDNN, and PyTorch's allocator on a CPU."""


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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that there is too little memory.

    PyTorch's allocator has an error of its own. The libraries allocate for themselves, and what they report is a
    RuntimeError.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)
