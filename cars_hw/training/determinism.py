"""Algorithms whose sums have a fixed order, so that two trainings on a GPU are equal bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

_WORKSPACE: Final = "CUBLAS_WORKSPACE_CONFIG"


def prepare_deterministic(wanted: bool) -> None:
    """Choose workspaces of a fixed size for cuBLAS, if ``wanted``.

    cuBLAS and PyTorch read the choice at the first call of the process, so it is made before any work on a GPU.
    """
    if wanted:
        os.environ.setdefault(_WORKSPACE, ":4096:8")


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Let PyTorch use deterministic algorithms for the duration of the block, if ``wanted``.

    Raises:
        RuntimeError: in the block, by an operation without a deterministic algorithm.
    """
    if not wanted:
        yield
        return
    prepare_deterministic(wanted)
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Filled memory would only show operations that read what nothing has written.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filling
