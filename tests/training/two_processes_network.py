"""What each process of test_network_ranks.py does, with what torchrun tells its processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cars_hw.config.training import Recipe
from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup, joined
from cars_hw.training.standalone import train_network

SPEC = NetworkSpec(4, 3, (12, 12), 1, classes=3)
# 13 images for one process and 12 for the other, and 6 in the last batch.
RECIPE = Recipe(epochs=2, batch_size=25, learning_rate=0.02, ema=0.5)


def images(count: int, seed: int) -> Dataset:
    """Noise in three classes, one brighter than the other."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 100, (count, 1, 12, 12), dtype=torch.uint8, generator=generator)
    return Dataset(noise + (70 * labels).to(torch.uint8).view(-1, 1, 1, 1), labels)


DATA = DataBundle("noise", images(81, 0), images(12, 1), ("a", "b", "c"), (0.4,), (0.3,))


def without_normalisation(module: nn.Module) -> None:
    """Replace what looks at other images of the batch, and so differs between one process and two."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.Identity())
        without_normalisation(child)


def trained(process_group: ProcessGroup, *, normalised: bool, recipe: Recipe = RECIPE) -> dict[str, Tensor]:
    """Return the weights after training; every process begins with others, and the leading one's count."""
    torch.manual_seed(process_group.rank)
    network = Network(SPEC, SearchSpace().sample(np.random.default_rng(4)), auxiliary=recipe.auxiliary > 0)
    if not normalised:
        without_normalisation(network)
    train_network(network, DATA, recipe, seed=0, process_group=process_group)
    return network.state_dict()


def main(folder: Path) -> None:
    """Train, and write down this process's weights."""
    torch.set_num_threads(1)
    varied = Recipe(epochs=2, batch_size=24, drop_path=0.5, auxiliary=0.4, ema=0.5, hold_out=0.2, cutout=3)
    with joined("cpu") as process_group:
        found = {
            "world": process_group.world,
            "plain": trained(process_group, normalised=False),
            "normalised": trained(process_group, normalised=True),
            "varied": trained(process_group, normalised=True, recipe=varied),
        }
        torch.save(found, folder / f"{process_group.rank}.pt")
    assert process_group != SINGLE_PROCESS
