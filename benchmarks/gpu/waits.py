"""The part of the check that counts the lines that wait for the GPU."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_setting import Found, Gpu

from cars_hw.space.architecture import Architecture


def waits(gpu: Gpu) -> Found:
    """Count the lines that wait for the GPU, by PyTorch's own detector."""
    made, people = gpu.weights(gpu.settings(), 4 * max(gpu.batch, gpu.judged)), gpu.architectures(2)

    def draw(count: int) -> list[Architecture]:
        return people[:count]

    for _ in range(3):
        made.train(draw)
    made.counts(people)
    ways: dict[str, Callable[[], object]] = {
        "an epoch of replayed steps": lambda: made.train(draw),
        "judging two architectures": lambda: made.counts(people),
    }
    found: Found = {}
    for name, run in ways.items():
        if not gpu.cpu:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                run()
        finally:
            if not gpu.cpu:
                torch.cuda.set_sync_debug_mode("default")
        found[name] = dict(
            Counter(f"{Path(one.filename).name}:{one.lineno}" for one in heard if "synchron" in str(one.message))
        )
    return found
