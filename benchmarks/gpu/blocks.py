"""What graphs by block would save: the launches of a pass, and of those the ones of its edges.

::

    PYTHONPATH=.:benchmarks python benchmarks/gpu/blocks.py [--architectures 8]

A block is a candidate operation on an edge, forward or back. Its recording could be replayed in any architecture
that has it. Random architectures of the paper's setting are passed as on a GPU, and counted as dispatch sees them.
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

from cars_hw.nn.device_kind import as_on
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.nn.tape import Tape
from cars_hw.space.architecture import Architecture
from cars_hw.space.operations.none import NONE
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.precision import shared_autocast
from cars_hw.training.recorded_passes import GraphedPasses


@dataclass
class Edges:
    """Counts the launches of the edges of a tape."""

    counting: Counting
    forward: int = 0
    back: int = 0
    blocks: int = 0
    _edge: Callable[..., object] = field(default=Tape.edge)

    def __enter__(self) -> Edges:
        edge, launches = Tape.edge, lambda: self.counting.found.launches

        def counted(tape: Tape, module: torch.nn.Module, source: object) -> object:
            before = launches()
            made = edge(tape, module, source)  # type: ignore[arg-type]
            used = launches() - before
            self.forward += used
            self.blocks += 2 * bool(used)
            own = made.back
            if own is not None:

                def back(gradient: Tensor, sums: Tensor | None) -> None:
                    begun = launches()
                    own(gradient, sums)
                    self.back += launches() - begun

                made.back = back
            return made

        self._edge = edge
        Tape.edge = counted  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, *_: object) -> None:
        Tape.edge = self._edge  # type: ignore[method-assign,assignment]


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, default=8)
    given = parser.parse_args()
    torch.manual_seed(0)
    supernet = SuperNet(SPEC).to(memory_format=torch.channels_last)
    passes = GraphedPasses(
        Slices(supernet),
        list(supernet.parameters()),
        shared_autocast("bf16", torch.device("cpu")),
        # The second pass is counted, as it runs: the first makes gradients of zeros.
        lambda work: (work(), work)[1],  # type: ignore[func-returns-value]
    )
    images = torch.randn(8, *SPEC.input_shape).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(8) % SPEC.classes
    rng, space = np.random.default_rng(0), SearchSpace()
    rows = []
    with as_on("cuda"):
        for _ in range(given.architectures):
            one = Architecture(space.sample(rng), SPEC)
            passes.run(images, labels, one, 1.0)
            counting = Counting()
            with Edges(counting) as edges, counting:
                passes.run(images, labels, one, 1.0)
            rows.append((counting.found.launches, edges.forward + edges.back, edges.blocks))
    whole, of_edges, blocks = (fmean(column) for column in zip(*rows, strict=True))
    inputs = sum(node + 2 for node in range(space.nodes))
    names = sum(name != NONE for name in space.operations)
    print(f"launches of a pass {whole:.0f}, of its edges {of_edges:.0f} in {blocks:.0f} blocks")
    left = whole - of_edges + blocks
    print(f"launches with graphs by edge {left:.0f} ({left / whole:.2f})")
    print(f"blocks of the SuperNet, forward and back: {2 * len(SPEC.cells()) * inputs * names}")


if __name__ == "__main__":
    main()
