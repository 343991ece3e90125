"""For which kind of device a layer chooses its operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_pretended: list[str] = []


def device_kind(x: Tensor) -> str:
    """Return ``cpu``, ``cuda`` or another type of device: that of ``x``, or inside :func:`as_on` the given one."""
    return _pretended[-1] if _pretended else x.device.type


@contextmanager
def as_on(kind: str) -> Iterator[None]:
    """Let all threads choose operations as for tensors on a device of ``kind``, for the duration of the block.

    It counts and tests the operations of a GPU on a machine without one. It moves no tensor.
    """
    _pretended.append(kind)
    try:
        yield
    finally:
        _pretended.pop()
