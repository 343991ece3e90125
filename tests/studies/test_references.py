"""Torchvision's networks at other widths and for small images, and the choice at several budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.training import Recipe
from cars_hw.data import load_source
from cars_hw.devices import FakeDevice
from cars_hw.errors import InputError
from cars_hw.progress import silent
from cars_hw.report.plot import logarithmic_ticks
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import resolve_genotype
from cars_hw.studies import comparison_range, training_time
from cars_hw.studies.budget_choice import choices, rows_of, spread_budgets, verdict
from cars_hw.studies.front_membership import EqualCost
from cars_hw.studies.reference_names import FAMILIES, WIDTHS, names_of
from cars_hw.studies.references import count, make

SHAPE = Shape(3, 32, 32)


def last_side(name: str) -> int:
    """The side of the images that the last convolution of a network gives."""
    sides = []
    with torch.device("meta"):
        network = make(name, SHAPE, 10).eval()
        last = [part for part in network.modules() if isinstance(part, nn.Conv2d)][-1]
        last.register_forward_hook(lambda _module, _inputs, output: sides.append(output.shape[-1]))
        network(torch.empty(1, *SHAPE))
    return int(sides[0])


@pytest.mark.parametrize("model", WIDTHS)
def test_small_images_keep_a_resolution_of_four(model: str) -> None:
    assert last_side(f"{model}:1") == 1
    assert last_side(f"{model}:1@small") == 4


def test_a_width_multiplies_the_channels() -> None:
    # The weights of ResNet-18 without classifier, normalisation and first convolution are products of two widths.
    whole, half = (make(f"resnet18:{width}", SHAPE, 10).state_dict() for width in (1, 0.5))
    assert whole.keys() == half.keys() == make("resnet18", SHAPE, 10).state_dict().keys()
    for name, value in whole.items():
        first, classifier = name == "conv1.weight", name == "fc.weight"
        factor = {4: 2 if first else 4, 2: 2, 1: 1 if name == "fc.bias" else 2, 0: 1}[value.ndim]
        assert classifier or half[name].numel() * factor == value.numel(), name
    for model in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"):
        assert count(f"{model}:1", SHAPE, 10) == count(model, SHAPE, 10)
    assert count("mnasnet:0.5", SHAPE, 10) == count("mnasnet0_5", SHAPE, 10)
    assert count("shufflenet_v2:1.5", SHAPE, 10) == count("shufflenet_v2_x1_5", SHAPE, 10)
    adds = [count(f"mobilenet_v2:{width}", SHAPE, 10).multiply_adds for width in (0.35, 0.5, 1)]
    assert adds == sorted(adds)


def test_a_family_has_all_widths() -> None:
    assert names_of(["resnet"], small=True) == [
        f"resnet18:{width}@small" for width in ("0.125", "0.25", "0.5", "1")
    ]
    everything = names_of(["mnasnet", "torchvision"], small=False)
    assert everything == names_of(FAMILIES, small=False)
    assert len(everything) == len(set(everything)) == sum(map(len, WIDTHS.values()))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet181", "torchvision has no classifier 'resnet181'; write it as in torchvision.models: resnet18"),
        ("resnet18:", "torchvision has no classifier 'resnet18:'; write it as in torchvision.models: resnet18"),
        ("resnet50:0.5", "torchvision's resnet50 has one width; these have several: mobilenet_v2, "),
        ("shufflenet_v2:0.7", "torchvision's shufflenet_v2 has the widths 0.5, 1, 1.5, 2, not 0.7"),
        ("mobilenet_v2:0", "the width of mobilenet_v2 must be above 0 and at most 4, not 0"),
    ],
)
def test_a_name_that_is_none_is_one_line(name: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        make(name)
    assert str(raised.value).startswith(words)


class One(NamedTuple):
    name: str
    origin: str
    accuracy: float
    held_out: float | None
    latency_ms: float


def test_budgets_are_spread_over_the_logarithm_of_the_range() -> None:
    assert spread_budgets(1.0, 32.0) == (2.0, 4.0, 8.0, 16.0, 32.0)
    assert spread_budgets(1.0, 10.0) == (1.58, 2.51, 3.98, 6.31, 10.0)
    assert spread_budgets(2.0, 2.0) == (2.0,)


def test_held_out_images_choose_and_test_images_score() -> None:
    networks = [
        One("net-01", "run", 0.60, 0.60, 1.0),
        One("net-02", "run", 0.70, 0.75, 2.0),
        # The best of all on the test images, which choose nothing.
        One("net-03", "run", 0.99, 0.70, 2.0),
        One("random-001", "random", 0.71, 0.71, 1.9),
        One("random-002", "random", 0.80, 0.71, 2.1),
        One("random-003", "random", 0.72, 0.71, 1.8),
        One("slow", "torchvision", 0.9, 0.9, 3.0),
    ]
    first, second, third = choices(networks, (2.0, 0.5, 4.0))
    assert (first.budget_ms, first.best, first.lead) == (0.5, (), None)
    assert [(one.origin, one.name) for one in second.best] == [("run", "net-02"), ("random", "random-003")]
    assert second.lead == pytest.approx(-0.02)
    assert [one.name for one in third.best] == ["net-02", "slow", "random-003"]
    assert third.lead == pytest.approx(-0.2)
    columns, rows = rows_of((first, second, third))
    assert columns == ["budget", "this run", "torchvision", "random architectures", "lead of this run"]
    assert rows[1][1:] == [
        "70.0% net-02, 2.00 ms",
        "\N{EN DASH}",
        "72.0% random-003, 1.80 ms",
        "\N{MINUS SIGN}2.0 points",
    ]
    said = verdict((first, second, third))
    assert said is not None
    assert said.startswith("The run's network has the highest test accuracy at 0 of 2 budgets.")
    assert choices([*networks, One("net-04", "run", 0.6, None, 1.0)], (2.0,)) == ()


class Threads(FakeDevice):
    """A device that runs so many threads."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.threads = threads

    def conditions(self) -> dict[str, Any]:
        return super().conditions() | {"threads": self.threads}


def test_kept_latencies_of_references_are_for_as_many_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured: list[int] = []

    def take(device: Threads, models: Sequence[str], *_: object) -> list[float]:
        measured.append(device.threads)
        return [1.0 / device.threads for _ in models]

    monkeypatch.setattr(comparison_range, "_measured", take)

    def latencies(threads: int) -> dict[str, float]:
        return comparison_range.reference_latencies(
            Threads(threads),
            {"ResNet-18": "resnet18"},
            NetworkSpec(4, 3, (8, 8), 1, classes=3),
            MeasurePlan(sessions=1),
            folder=tmp_path,
            progress=silent,
        )

    assert [latencies(threads)["ResNet-18"] for threads in (1, 1, 2)] == [1.0, 1.0, 0.5]
    assert measured == [1, 2]


def test_one_training_takes_its_whole_time_however_many_could_run_beside_it(
    monkeypatch: pytest.MonkeyPatch, images: Path
) -> None:
    monkeypatch.setattr(training_time, "_step_seconds", lambda *_: 1.0)
    one = Architecture(resolve_genotype("CARS_A"), NetworkSpec(4, 3, (8, 8), 1, classes=3))
    parts = training_time.training_parts(
        [("random architectures", one)],
        dict.fromkeys(("a", "b", "c"), nn.Identity),
        load_source(DataSource(str(images)), (8, 8)),
        Recipe(epochs=1, batch_size=32, learning_rate=0.1),
        device="cpu",
        jobs=2,
    )
    assert [(part.name, part.seconds) for part in parts] == [
        ("random architectures, 1 training", 1.0),
        ("a", 0.5),
        ("b", 0.5),
        ("c", 0.5),
    ]


def test_a_logarithmic_axis_has_round_numbers_on_both_sides() -> None:
    assert logarithmic_ticks(0.13, 1.7, 12) == [0.1, 0.2, 0.5, 1.0, 2.0]
    assert logarithmic_ticks(0.5, 20.0, 12) == [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    assert logarithmic_ticks(0.1, 3000.0, 8) == [0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0]
    assert logarithmic_ticks(3.0, 3.0, 8) == [2.0, 5.0]


def test_equal_cost_is_told_with_its_parts() -> None:
    cost = EqualCost(60.0, 20.0, 20.0, 95.0, 7)
    assert cost.run == 100
    assert cost.sentence == (
        "7 random architectures within the sizes and limits of the run can be trained at the cost of the run "
        "(60% search, 20% final stage, 20% training of its networks)"
    )
    assert replace(cost, earlier="first").sentence.endswith(
        "20% training of its networks; the cost of first, whose weights it started from, is not counted)"
    )
