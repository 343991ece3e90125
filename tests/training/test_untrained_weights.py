"""Evaluation on untrained weights: against probes on networks that have them, and each architecture once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.presets import PRESETS, Preset
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import SharedTraining
from cars_hw.data import DataBundle, Dataset
from cars_hw.errors import InputError
from cars_hw.nn.network import Network
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid
from cars_hw.training.linear_probe import left_out_scores
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.untrained_weights import UntrainedWeights

LARGEST = replace(NETWORKS["tiny"], channels=6, layers=4, resolution=(8, 8), in_channels=1, classes=3, stem="cifar")
SPACE = ArchitectureSpace(SearchSpace(), LARGEST, SizeGrid((2, 4, 6), (3, 4)))
SETTINGS = SharedTraining(
    batch_size=16, evaluation_batch=14, evaluation_images=30, threads=1, classifier="untrained-probe"
)


def bundle(count: int = 60) -> DataBundle:
    """Images whose brightness is their class, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 160, (count, 1, 8, 8), generator=generator)
    part = Dataset((noise + 30 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)
    return DataBundle("toy", part, part, ("a", "b", "c"), (0.5,), (0.25,), validation=part)


def fresh(settings: SharedTraining = SETTINGS) -> SuperNetWeights:
    torch.manual_seed(0)
    return SuperNetWeights(SuperNet(LARGEST), bundle(), settings, epochs=1, seed=0, over_sizes=True)


def people(count: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [SPACE.sample(rng) for _ in range(count)]


class Counting(UntrainedWeights):
    """Tells how many architectures are evaluated."""

    def __init__(self, settings: SharedTraining = SETTINGS) -> None:
        super().__init__(fresh(settings))
        self.evaluated: list[tuple[int, bool]] = []
        counts = self.weights.counts

        def counted(architectures: Sequence[Architecture], *, full: bool = False) -> list[ClassCounts]:
            self.evaluated.append((len(architectures), full))
            return counts(architectures, full=full)

        self.weights.counts = counted  # type: ignore[method-assign, assignment]


def test_the_counts_are_those_of_probes_on_networks_with_the_fresh_weights() -> None:
    weights, several = UntrainedWeights(fresh()), people(5)
    expected = []
    for genotype, spec in several:
        network = Network(spec, genotype)
        weights.weights.supernet.hand_over(network)
        network.classifier = nn.Identity()  # type: ignore[assignment]
        with torch.no_grad():
            rows = [(network.train()(images), labels) for images, labels in weights.weights._full]
        features, labels = (torch.cat(column) for column in zip(*rows, strict=True))
        answers = left_out_scores(features, labels, 3).argmax(1)
        expected.append(tuple(torch.bincount(labels[answers == labels], minlength=3).tolist()))
    found = weights.counts(several, full=True)
    assert [one.right for one in found] == expected
    assert len(set(expected)) > 1
    assert {one.images for one in found} == {(20, 20, 20)}
    assert {one.loss for one in found} == {None}


def test_an_architecture_is_evaluated_once_on_the_same_images() -> None:
    weights, several = Counting(), people(5)
    first = weights.counts(several[:3])
    assert weights.counts([several[2], *several]) == [first[2], *first, *weights.counts(several[3:])]
    weights.counts([several[0]] * 2, before=True)
    assert weights.evaluated == [(3, False), (2, False)]
    weights.counts(several[:2], full=True)
    assert weights.evaluated[2:] == [(2, True)]


def test_where_the_subset_has_all_images_it_is_known_at_the_end() -> None:
    weights, several = Counting(replace(SETTINGS, evaluation_images=0)), people(2)
    assert weights.counts(several, full=True) == weights.counts(several)
    assert weights.evaluated == [(2, True)]


def test_a_restored_state_has_all_results() -> None:
    weights, several = Counting(), people(3)
    found = weights.counts(several), weights.counts(several[:1], full=True)
    again = Counting()
    again.restore(weights.state())
    assert (again.counts(several), again.counts(several[:1], full=True)) == found
    assert again.evaluated == []
    again.counts(several[1:2], full=True)
    assert again.evaluated == [(1, True)]


def test_nothing_is_trained() -> None:
    assert not UntrainedWeights(fresh()).trains
    with pytest.raises(RuntimeError, match="not trained"):
        UntrainedWeights(fresh()).train(lambda _: [])


def untrained(training: dict[str, Any], evolution: dict[str, Any]) -> Preset:
    quick = PRESETS["quick"]
    return replace(
        quick,
        training=replace(quick.training, **{"classifier": "untrained-probe", **training}),
        evolution=replace(quick.evolution, **evolution),
    )


@pytest.mark.parametrize(
    ("training", "evolution", "said"),
    [
        ({}, {"protection": "speed"}, r"evolution\.protection = 'speed' needs .* it can be 'size' or 'none'"),
        ({}, {"protection": "both"}, r"evolution\.protection = 'both'"),
        ({}, {"draws": "fair"}, r"evolution\.draws = 'fair'"),
        ({}, {"widening": "sizes"}, r"evolution\.widening = 'sizes'"),
        ({"share": "nodes"}, {}, r"training\.share = 'nodes'"),
        ({"average": 0.9}, {}, r"training\.average = 0\.9"),
        ({"size_sampling": "sandwich"}, {}, r"training\.size_sampling = 'sandwich'"),
        ({}, {"objective": "loss"}, r"evolution\.objective = 'loss' needs training\.classifier = 'shared'"),
    ],
)
def test_settings_of_a_training_that_does_not_take_place_are_refused(
    training: dict[str, Any], evolution: dict[str, Any], said: str
) -> None:
    assert untrained({}, {}).evolution == EvolutionSettings(16, 16, 5, 1, "size", PRESETS["quick"].evolution.rates)
    with pytest.raises(InputError, match=said):
        untrained(training, evolution)
