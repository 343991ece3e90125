"""Training a chosen network: it learns, repeats itself, and measures with running averages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cars_hw.data import DataBundle, Dataset
from cars_hw.network import Network
from cars_hw.space import SearchSpace
from cars_hw.spec import NetworkSpec
from cars_hw.training.network import accuracy_on, train_network
from cars_hw.training.settings import Recipe

SPEC = NetworkSpec(4, 3, (12, 12), 1, classes=3)
GENOTYPE = SearchSpace().sample(np.random.default_rng(4))


def stripes(count: int, seed: int) -> Dataset:
    """Three classes: rows, columns, or a plain image; with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 80, (count, 1, 12, 12), dtype=torch.uint8, generator=generator)
    images[labels == 0, :, ::2, :] += 150
    images[labels == 1, :, :, ::2] += 150
    return Dataset(images, labels)


DATA = DataBundle("stripes", stripes(240, 0), stripes(60, 1), ("rows", "columns", "plain"), (0.4,), (0.3,))


def train(recipe: Recipe, seed: int = 0, auxiliary: bool = False) -> tuple[Network, float]:
    torch.manual_seed(seed)
    network = Network(SPEC, GENOTYPE, auxiliary=auxiliary)
    return network, train_network(network, DATA, recipe, seed=seed).accuracy


def test_a_network_learns_what_can_be_told_apart() -> None:
    heard: list[tuple[int, int]] = []
    torch.manual_seed(0)
    network = Network(SPEC, GENOTYPE)
    recipe = Recipe(epochs=5, batch_size=24, learning_rate=0.1, crop_padding=0)
    result = train_network(network, DATA, recipe, seed=0, progress=lambda *step: heard.append(step))
    assert result.accuracy > 0.9
    # 240 images are 10 steps an epoch.
    assert heard == sorted(heard)
    assert set(heard) == {(step, 50) for step in range(51)}
    assert accuracy_on(network, DATA.test, DATA) == result.accuracy
    assert (result.best_epoch, result.held_out_accuracy, result.last) == (5, None, None)
    assert not network.training


def test_the_same_seed_gives_the_same_weights_with_drop_path_and_cutout() -> None:
    recipe = Recipe(epochs=2, batch_size=24, learning_rate=0.05, drop_path=0.3, cutout=4, crop_padding=1)
    first, second, other = train(recipe)[0], train(recipe)[0], train(recipe, seed=1)[0]
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_the_auxiliary_head_takes_part_when_it_is_weighed() -> None:
    network, _ = train(Recipe(epochs=1, batch_size=24, auxiliary=0.4), auxiliary=True)
    assert network.auxiliary is not None
    assert all(parameter.grad is not None for parameter in network.auxiliary.parameters())


def test_the_rate_warms_up_and_then_falls_to_nothing() -> None:
    recipe = Recipe(epochs=10, learning_rate=0.4, warmup_epochs=2)
    assert 0 < recipe.rate(0) < 0.001
    assert recipe.rate(1) == pytest.approx(0.2, rel=1e-2)
    assert recipe.rate(2.5) == pytest.approx(0.2 * (1 + 2**-0.5))
    assert recipe.rate(5) == pytest.approx(0.2)
    assert recipe.rate(10) == pytest.approx(0.0)
