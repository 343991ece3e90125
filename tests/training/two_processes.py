"""What each process of test_ranks.py does, with what torchrun tells its processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.training import SharedTraining
from cars_hw.data import load_data
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup, joined
from cars_hw.training.shared_weights import SuperNetWeights

STEPS = 12
# Small, as in double precision a CPU has slow convolutions only.
SPEC = NetworkSpec(4, 3, (12, 12), 1)


SIZES = [NetworkSpec(channels, 3, (12, 12), 1) for channels in (2, 4, 4)]


def trained(
    process_group: ProcessGroup, steps: int = STEPS, *, over_sizes: bool = False, sandwiched: bool = False
) -> tuple[SuperNetWeights, list[ClassCounts]]:
    """Return weights after some steps of three architectures each, and what they make of seven.

    Those that are ``sandwiched`` also share weights among kernels, and are averaged.
    """
    torch.manual_seed(0)
    settings = SharedTraining(batch_size=16, architectures=3, evaluation_images=100, evaluation_batch=50)
    if sandwiched:
        settings = replace(settings, size_sampling="sandwich", share="kernels", average=0.8)
    data = load_data("fashion-mini", resolution=SPEC.resolution)
    # In single precision a rounding that turns a ReLU or a maximum the other way grows a hundredfold in ten steps.
    weights = SuperNetWeights(
        SuperNet(SPEC, settings.share).double(),
        data,
        settings,
        epochs=4,
        seed=0,
        process_group=process_group,
        over_sizes=over_sizes,
        smallest=SIZES[0],
    )
    rng, space = np.random.default_rng(0), SearchSpace()

    def drawn(count: int) -> list[Architecture]:
        # Some steps have a size in one process only, and some have the smaller one only.
        return [
            Architecture(space.sample(rng), SIZES[int(rng.integers(3)) if over_sizes else 1]) for _ in range(count)
        ]

    batches = weights.batches.epoch(weights.generator)
    for _ in range(steps):
        images, labels = next(batches)
        weights.step(images.double(), labels, drawn(3))
    weights.supernet.float()
    return weights, weights.counts(drawn(7))


def figures(counts: Sequence[ClassCounts]) -> dict[str, list[float | None]]:
    """Return the accuracies and the losses of ``counts``."""
    return {"accuracies": [one.accuracy for one in counts], "losses": [one.loss for one in counts]}


def main(folder: Path) -> None:
    """Train, and write down this process's weights and what it was told by the others."""
    torch.set_num_threads(1)
    with joined("cpu") as process_group:
        weights, counts = trained(process_group)
        sliced, sliced_counts = trained(process_group, STEPS // 2, over_sizes=True)
        sandwiched, sandwiched_counts = trained(process_group, STEPS // 4, over_sizes=True, sandwiched=True)
        said = process_group.broadcast(b"hello" if process_group.leads else None)
        added = process_group.add(torch.tensor([1.0, float(process_group.rank)]))
        found = {
            "state": weights.supernet.state_dict(),
            "figures": figures(counts),
            "sliced": sliced.supernet.state_dict(),
            "sandwiched": sandwiched.state()["evaluated"],
            "sliced_figures": figures(sliced_counts),
            "sandwiched_figures": figures(sandwiched_counts),
            "added": added,
        }
        torch.save(found | {"said": list(said), "world": process_group.world}, folder / f"{process_group.rank}.pt")
    assert process_group != SINGLE_PROCESS
