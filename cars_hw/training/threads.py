"""How many threads of a CPU a training has.

A step is hundreds of short parallel parts, after each of which the threads wait for each other. Small activations
gain nothing from a second thread, and lose much if another process uses its core. The number of threads also
changes how sums are rounded. So it follows from the network, and not from the load of the machine at the moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn

from cars_hw.nn.network import Network
from cars_hw.progress import Log
from cars_hw.space.network_spec import NetworkSpec

LEAST_VALUES: Final = 1 << 19
"""A step with fewer values in the activations of the first cell has one thread.

On two threads of a core, with nothing beside, two threads were as fast as one at 50 thousand values, and 1.6 times
as fast at 1.6 million; beside two busy processes they were 6.7 times and 1.9 times as slow (docs/results/speed.md).
"""

STEM_HALVINGS: Final = 3
"""How often a stem for large images halves them."""


def step_threads(network: nn.Module, batch_size: int) -> int:
    """Return the number of threads for training steps of ``batch_size`` images: one, or all that torch has.

    A network that is none of the search space has all.
    """
    return threads_for(network.spec, batch_size) if isinstance(network, Network) else torch.get_num_threads()


def threads_for(spec: NetworkSpec, batch_size: int) -> int:
    """Return the number of threads for training steps of ``batch_size`` images of the network ``spec``.

    In a SuperNet of that network, a step has activations of the same size, one architecture after the other.
    """
    available = torch.get_num_threads()
    pixels = math.prod(spec.resolution) >> (0 if spec.stem == "cifar" else 2 * STEM_HALVINGS)
    return 1 if batch_size * spec.channels * pixels < LEAST_VALUES else available


def training_threads(network: nn.Module, batch_size: int, given: int, kept: dict[str, Any] | None, log: Log) -> int:
    """Return the number of threads of a training: ``given``, or if that is 0 what a rule says.

    ``kept`` is the state of a checkpoint, whose training goes on with the number that it began with. ``log`` tells
    where it is not torch's own, and why.
    """
    available = torch.get_num_threads()
    # Before the number was kept, it was torch's own. A training that began on a GPU has none, which is kept as 0.
    before = None if kept is None else int(kept.get("threads", available)) or None
    if given:
        if before not in (None, given):
            log(f"goes on with {given} of {before} threads: it is rounded otherwise from here on")
        return given
    if before is not None:
        return before
    number = step_threads(network, batch_size)
    if number < available:
        log(f"has 1 of {available} threads: its activations are small, and more threads would wait for each other")
    return number


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch use ``number`` threads for the duration of the block; 0 changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
