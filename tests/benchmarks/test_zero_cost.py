"""Scores of untrained networks against their definitions, and the calibration by size."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scripts import script
from torch import Tensor, nn

from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace


@pytest.fixture
def zero_cost(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("benchmarks/zero_cost", monkeypatch)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)).double()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 1, 2, 3, generator=generator, dtype=torch.float64), torch.arange(7) % 4


def test_the_gradient_norm_is_that_of_all_weights(
    zero_cost: ModuleType, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    found = zero_cost.gradient_norm(network, *batch)
    F.cross_entropy(network(batch[0]), batch[1]).backward()
    total = sum(float(one.grad.square().sum()) for one in network.parameters() if one.grad is not None)
    assert found == pytest.approx(np.log(total) / 2)


def test_the_synaptic_flow_is_counted_once_for_each_layer(
    zero_cost: ModuleType, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    first, second = (one.detach().abs() for one in network.parameters())
    flow = float((second @ first @ torch.ones(6, dtype=torch.float64)).sum())
    assert zero_cost.synflow(network, *batch) == pytest.approx(np.log(2 * flow))


def test_naswot_compares_what_relus_let_through(
    zero_cost: ModuleType, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    inner = network[:2](batch[0]).detach()  # type: ignore[index]
    outer = network[3](inner.relu()).detach()  # type: ignore[index]
    codes = torch.cat([inner, outer], 1).numpy() > 0
    alike = np.array([[int((one == other).sum()) for other in codes] for one in codes])
    expected = np.linalg.slogdet(alike + 0.0)[1]
    assert np.isfinite(expected)
    assert zero_cost.naswot(network, *batch) == pytest.approx(expected)


def test_scores_of_architectures_do_not_depend_on_random_numbers(zero_cost: ModuleType) -> None:
    spec, rng = NetworkSpec(4, 3, (8, 8), 1, classes=4), np.random.default_rng(0)
    people = {f"net-{number}": Architecture(SearchSpace().sample(rng), spec) for number in range(2)}
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = [zero_cost.scores(people, images, torch.arange(6) % 4) for _ in range(2)]
    assert found[0] == found[1]
    assert [*found[0]] == ["gradient norm", "synflow", "naswot"]
    for values in found[0].values():
        assert [*values] == [*people]
        assert len(set(values.values())) == 2


def test_a_calibration_by_size_finds_what_size_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    calibration = script("benchmarks/calibration", monkeypatch)
    rng = np.random.default_rng(0)
    shared, costs = rng.normal(size=20).tolist(), np.exp(rng.normal(size=20)).tolist()
    trained = [one - 2 * np.log(cost) for one, cost in zip(shared, costs, strict=True)]
    assert calibration.left_out(shared, costs, trained).tau == 1
    calibrated, plain = calibration.from_few(shared, costs, trained)
    assert calibrated == pytest.approx(1)
    assert plain < 0.5
    assert calibration.from_few(shared[:15], costs[:15], trained[:15]) is None
