"""Models that are measured, written once in a process: the same arguments always give the same file.

A profile writes some hundred models, and tests make hundreds of profiles of the same few networks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

from cars_hw.config.files import replacing

MOST_BYTES: Final = 64 << 20
"""So much is kept; what does not fit is written anew each time."""

WRITERS: Final = {
    "cars_hw.latency.profiled_models": ("build_model", "build_network", "build_overhead"),
    "cars_hw.latency.measure": ("build_network",),
    "cars_hw.pipeline.verify": ("build_network",),
}
"""The functions that write models to be measured, by the modules that call them."""

_kept: dict[tuple[object, ...], bytes] = {}


def keep_models() -> None:
    """Let :data:`WRITERS` write a file that they have written before from memory, until the process ends."""
    for module_name, names in WRITERS.items():
        module = import_module(module_name)
        for name in names:
            setattr(module, name, _keeping(getattr(module, name)))


def _keeping(write: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(write)

    def kept(*given: object, **named: object) -> None:
        bound = signature.bind(*given, **named)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        path = arguments.pop("path")
        assert isinstance(path, Path)
        key = (write.__name__, *arguments.values())
        if key in _kept:
            with replacing(path, durable=False) as temporary:
                temporary.write_bytes(_kept[key])
            return
        write(*given, **named)
        content = path.read_bytes()
        if len(content) + sum(map(len, _kept.values())) <= MOST_BYTES:
            _kept[key] = content

    return kept
