"""The order by probes on untrained weights: as the search evaluates them, and within parts of similar latency."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from scripts import script

from cars_hw.config.training import SharedTraining
from cars_hw.data import DataBundle, Dataset, EvaluationBatches
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.untrained_weights import UntrainedWeights


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("benchmarks/untrained_probes", monkeypatch)


def test_the_slices_are_evaluated_as_a_search_does(probes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(40) % 3
    noise = torch.randint(0, 160, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    part = Dataset((noise + 30 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)
    mean, std = (0.5,) * 3, (0.25,) * 3
    data = DataBundle("toy", part, part, ("a", "b", "c"), mean, std, validation=part)
    rng = np.random.default_rng(0)
    sizes = [NetworkSpec(channels, cells, (8, 8), 3, classes=3) for channels, cells in ((4, 3), (2, 4), (4, 4))]
    architectures = {size.size: Architecture(SearchSpace().sample(rng), size) for size in sizes}
    monkeypatch.setattr(probes, "IMAGES", (25, 40))
    batches = EvaluationBatches(part, 40, mean, std, torch.device("cpu"))
    found = probes.evaluate(SimpleNamespace(data=data, parts={"held_out": batches}), architectures, 2)
    torch.manual_seed(1)
    settings = SharedTraining(evaluation_batch=40, threads=1, classifier="untrained-probe")
    weights = UntrainedWeights(
        SuperNetWeights(SuperNet(sizes[2]), data, settings, epochs=1, seed=0, over_sizes=True)
    )
    counts = weights.counts(list(architectures.values()), full=True)
    assert [one["slices"][1][1] for one in found.values()] == [count.accuracy for count in counts]
    # The largest network is the SuperNet, whose weights are drawn in another order than those of the network alone.
    assert {len(one["own"]) for one in found.values()} == {2}
    assert found[sizes[2].size]["own"] != found[sizes[2].size]["slices"]


def test_orders_are_compared_within_parts_of_similar_latency(probes: ModuleType) -> None:
    # Four parts of three by latency: one in order, one reversed, one with a swap, one with equal scores.
    latencies = [9, 8, 7, 1, 2, 3, 6, 5, 4, 12, 11, 10]
    losses = [1.0, 2, 3, 5, 6, 7, 1, 2, 3, 4, 5, 6]
    scores = [0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.5, 0.4, 0.45, 0.6, 0.6, 0.6]
    assert probes.within(scores, losses, latencies) == pytest.approx((-1 + 1 / 3 + 1 + 0) / 4)
