"""What passes of blocks save: the calls of the host for a pass, counted without a GPU.

::

    PYTHONPATH=.:benchmarks python benchmarks/gpu/blocks.py [--architectures 8]

A block of a pass, see :mod:`cars_hw.nn.composed`, is one call when it is replayed, whatever it launches. Everything
else of the pass is a call for each launch. Random architectures of the paper's setting are passed as on a GPU, and
counted as dispatch sees them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import torch
from dispatch import SPEC, Counting
from torch import Tensor

from cars_hw.nn.composed import most_blocks, most_bytes
from cars_hw.nn.device_kind import as_on
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.block_recordings import BLOCK_BYTES, BlockRecordings
from cars_hw.training.precision import shared_autocast
from cars_hw.training.recorded_passes import GraphedPasses


@dataclass
class Calls(BlockRecordings):
    """Runs each block, and counts it as a replay, with what it launches apart from the rest."""

    counting: Counting = field(default_factory=Counting)
    blocks: int = 0
    inside: int = 0

    def __call__(self, _key: object, work: Callable[[], None], *, read: bool = False) -> None:
        """Do the work."""
        del read
        before = self.counting.found.launches
        work()
        # On the edge of a state that is passed on, nothing is launched and nothing replayed.
        launched = self.counting.found.launches - before
        self.blocks += launched > 0
        self.inside += launched


@dataclass(frozen=True)
class Counted:
    """The mean numbers of a pass: launches, or with blocks replays, launches in them and launches beside them."""

    launches: float
    blocks: float
    inside: float
    beside: float

    @property
    def calls(self) -> float:
        """The calls of the host for a pass of blocks."""
        return self.blocks + self.beside


def count(architectures: int, spec: NetworkSpec = SPEC, batch: int = 8) -> Counted:
    """Return the counts of random architectures of the size of ``spec``."""
    torch.manual_seed(0)
    supernet = SuperNet(spec).to(memory_format=torch.channels_last)
    images = torch.randn(batch, *spec.input_shape).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % spec.classes
    low = shared_autocast("bf16", torch.device("cpu"))
    slices, parameters = Slices(supernet), list(supernet.parameters())
    rng, space = np.random.default_rng(0), SearchSpace()
    rows = []
    with as_on("cuda"):
        for _ in range(architectures):
            one = Architecture(space.sample(rng), spec)
            calls = Calls(None)
            plain, composed = (
                GraphedPasses(slices, parameters, low, None, blocks=blocks) for blocks in (None, calls)
            )
            # The first pass makes what stays, such as gradients.
            for passes in (plain, composed):
                passes.run(images, labels, one, 1.0)
            launches = _launches(plain, images, labels, one, Counting())
            calls.blocks = calls.inside = 0
            calls.counting = Counting()
            whole = _launches(composed, images, labels, one, calls.counting)
            rows.append((launches, calls.blocks, calls.inside, whole - calls.inside))
    return Counted(*(fmean(column) for column in zip(*rows, strict=True)))


def _launches(passes: GraphedPasses, images: Tensor, labels: Tensor, one: Architecture, counting: Counting) -> int:
    with counting:
        passes.run(images, labels, one, 1.0)
    return counting.found.launches


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, default=8)
    found = count(parser.parse_args().architectures)
    print(f"launches of a pass {found.launches:.0f}")
    print(
        f"of blocks: {found.blocks:.0f} replays, in which are {found.inside:.0f} launches, and {found.beside:.0f} "
        f"launches beside them: {found.calls:.0f} calls ({found.calls / found.launches:.2f})"
    )
    blocks, states = most_blocks(SPEC), most_bytes(SPEC, 128, 2)
    print(
        f"blocks of the SuperNet {blocks:,}: {blocks * BLOCK_BYTES / 1e6:.0f} MB of the driver, if each takes "
        f"{BLOCK_BYTES:,} bytes; states that stay with batches of 128 {states / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
