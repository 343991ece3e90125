"""The SuperNet's training: Eq. 3, untouched parameters, evaluation, and exact restoring."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cars_hw.config.training import SharedPrecision, SharedTraining, cosine
from cars_hw.data import DataBundle, Dataset, TrainingBatches
from cars_hw.nn.device_kind import as_on
from cars_hw.nn.paths import Common, SharedNetwork
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training import shared_weights
from cars_hw.training.shared_evaluation import evaluate
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.threads import torch_threads

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=4)
SETTINGS = SharedTraining(batch_size=16, validation_fraction=0.25, evaluation_images=12, evaluation_batch=6)


def toy_data(count: int = 80) -> DataBundle:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    part = Dataset(images, torch.arange(count) % 4)
    return DataBundle("toy", part, part, ("a", "b", "c", "d"), (0.5,), (0.25,))


def make_weights(seed: int = 0, settings: SharedTraining = SETTINGS) -> SuperNetWeights:
    torch.manual_seed(seed)
    return SuperNetWeights(SuperNet(SPEC), toy_data(), settings, epochs=10, seed=seed)


def genotypes(count: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [Architecture(SearchSpace().sample(rng), SPEC) for _ in range(count)]


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 1, 8, 8, generator=generator).contiguous(memory_format=torch.channels_last)
    return images, torch.arange(16) % 4


def test_a_validation_part_evaluates_and_every_training_image_trains() -> None:
    data = toy_data()
    shades = torch.arange(100, 160, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    given = replace(data, validation=Dataset(shades.contiguous(), torch.arange(60) % 4))
    weights = SuperNetWeights(SuperNet(SPEC), given, SETTINGS, epochs=10, seed=0)
    assert len(weights.batches) == 80 // 16
    for batches, count in ((weights._full, 60), (weights._subset, 12)):
        seen = torch.cat([images[:, 0, 0, 0] for images, _ in batches])
        labels = torch.cat([labels for _, labels in batches])
        # Pixels are normalised as those of the training part.
        shade = (255 * (0.5 + 0.25 * seen)).round().int()
        assert len(set(shade.tolist())) == count
        assert torch.equal((shade - 100) % 4, labels)
        assert torch.bincount(labels).tolist() == [count // 4] * 4
    # Without one it is a share of the training images.
    assert len(make_weights().batches) == 60 // 16 + 1


def test_the_precision_of_activations_can_be_chosen_and_weights_stay_in_float32() -> None:
    def trained(precision: SharedPrecision) -> tuple[dict[str, Tensor], list[float | None]]:
        weights = make_weights(settings=replace(SETTINGS, precision=precision))
        weights.step(*batch(), genotypes(2))
        return weights.supernet.state_dict(), [one.loss for one in weights.counts(genotypes(3))]

    (auto, losses), (full, same), (low, others) = (trained(one) for one in ("auto", "float32", "bf16"))
    # On a CPU, auto is float32.
    assert losses == same
    assert all(torch.equal(value, full[name]) for name, value in auto.items())
    assert any(not torch.equal(value, full[name]) for name, value in low.items())
    assert {value.dtype for value in low.values()} == {value.dtype for value in full.values()}
    # Three significant digits are left, and the weights have made one step.
    assert others != losses
    assert others == pytest.approx(losses, rel=0.1)


def test_without_mirroring_and_crops_images_are_trained_on_as_they_are() -> None:
    settings = replace(SETTINGS, mirror=False, crop_padding=0)
    data = replace(toy_data(), validation=toy_data(4).train)
    trained = SuperNetWeights(SuperNet(SPEC), data, settings, epochs=10, seed=0).batches
    varied = SuperNetWeights(SuperNet(SPEC), data, replace(settings, mirror=True), epochs=10, seed=0).batches
    original = {tuple(image.flatten().tolist()) for image in data.train.images}

    def seen(batches: TrainingBatches) -> list[tuple[int, ...]]:
        images = torch.cat([images for images, _ in batches.epoch(torch.Generator().manual_seed(0))])
        return [tuple(image.flatten().tolist()) for image in (255 * (0.5 + 0.25 * images)).round().int()]

    assert set(seen(trained)) == original
    assert 20 < sum(image not in original for image in seen(varied)) < 60


def test_a_step_follows_the_mean_gradient_of_its_architectures() -> None:
    settings = SharedTraining(batch_size=16, momentum=0.0, weight_decay=0.0, gradient_clip=1e9, learning_rate=0.1)
    weights = make_weights(settings=settings)
    images, labels = batch()
    drawn = genotypes(3)
    reference = copy.deepcopy(weights.supernet)
    before = dict(reference.named_parameters())
    mean: dict[str, Tensor] = {}
    for genotype, _ in drawn:
        reference.zero_grad(set_to_none=True)
        F.cross_entropy(reference(images, genotype), labels).backward()
        for name, parameter in reference.named_parameters():
            if parameter.grad is not None:
                mean[name] = mean.get(name, torch.zeros_like(parameter)) + parameter.grad / 3
    weights.step(images, labels, drawn)
    moved = 0
    for name, parameter in weights.supernet.named_parameters():
        if name in mean:
            torch.testing.assert_close(parameter, before[name] - 0.1 * mean[name], rtol=1e-4, atol=1e-6)
            moved += 1
        else:
            assert torch.equal(parameter, before[name])
    assert moved > 20


def test_parameters_off_the_path_keep_value_and_momentum() -> None:
    weights = make_weights()
    images, labels = batch()
    one, other = genotypes(2, seed=3)
    weights.step(images, labels, [one])
    touched = {name for name, parameter in weights.supernet.named_parameters() if parameter.grad is not None}
    values = {name: parameter.detach().clone() for name, parameter in weights.supernet.named_parameters()}
    weights.step(images, labels, [other])
    idle = [(name, parameter) for name, parameter in weights.supernet.named_parameters() if parameter.grad is None]
    # Some of those have a momentum from the first step, and still must not move.
    assert any(name in touched for name, _ in idle)
    for name, parameter in idle:
        assert torch.equal(parameter, values[name])


def test_the_gradient_is_clipped_to_its_norm() -> None:
    settings = SharedTraining(batch_size=16, momentum=0.0, weight_decay=0.0, gradient_clip=1e-3, learning_rate=1.0)
    weights = make_weights(settings=settings)
    before = [parameter.detach().clone() for parameter in weights.supernet.parameters()]
    weights.step(*batch(), genotypes(1))
    steps = [
        (parameter.detach() - value).square().sum()
        for parameter, value in zip(weights.supernet.parameters(), before, strict=True)
    ]
    assert float(torch.stack(steps).sum().sqrt()) == pytest.approx(1e-3, rel=1e-3)


def test_accuracy_counts_hits_with_each_batch_s_own_statistics() -> None:
    weights = make_weights()
    chosen = genotypes(3)
    expected = []
    for genotype, _ in chosen:
        hits = images_seen = 0
        for images, labels in weights._full:
            with torch.no_grad():
                hits += int((weights.supernet(images, genotype).argmax(1) == labels).sum())
            images_seen += len(labels)
        expected.append(hits / images_seen)
    assert weights.accuracies(chosen, full=True) == expected
    assert len(set(expected)) > 1
    # 80 images, a quarter of which judge, 12 of those in every generation.
    assert images_seen == 20
    assert sum(len(labels) for _, labels in weights._subset) == 12


def test_threads_share_the_genotypes_out_and_change_no_accuracy() -> None:
    weights = make_weights()
    chosen = genotypes(6)
    standalone = weights.accuracies(chosen)
    torch.set_num_threads(2)
    try:
        assert weights.accuracies(chosen) == standalone
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_judging_before_uses_the_remembered_weights_and_changes_nothing() -> None:
    weights = make_weights()
    chosen = genotypes(4)
    was = weights.accuracies(chosen)
    weights.remember()
    for _ in range(3):
        weights.train(lambda count: chosen[:count])
    now = weights.accuracies(chosen)
    kept = copy.deepcopy(weights.supernet.state_dict())
    assert weights.accuracies(chosen, before=True) == was
    assert weights.accuracies(chosen) == now
    assert now != was
    for name, value in weights.supernet.state_dict().items():
        assert torch.equal(value, kept[name])


DETERMINISTIC = replace(SETTINGS, deterministic=True)
"""On a GPU, trainings are equal bit for bit with deterministic algorithms only. A state is equal in any case."""


def same(one: object, other: object) -> bool:
    """Whether two states have the same tensors, bit for bit, and the same other values."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def test_restored_weights_go_on_to_the_last_bit() -> None:
    chosen = genotypes(5)
    first = make_weights(settings=DETERMINISTIC)
    first.train(lambda count: chosen[:count])
    first.remember()
    state = copy.deepcopy(first.state())
    second = make_weights(seed=0, settings=DETERMINISTIC)
    assert not same(second.state(), state)
    second.restore(state)
    assert same(second.state(), state)
    for weights in (first, second):
        weights.train(lambda count: chosen[1 : 1 + count])
    for mine, theirs in zip(first.supernet.parameters(), second.supernet.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert first.accuracies(chosen, before=True) == second.accuracies(chosen, before=True)


def test_the_learning_rate_falls_along_a_cosine() -> None:
    assert cosine(0.0, 0.1, 0.01) == pytest.approx(0.1)
    assert cosine(0.5, 0.1, 0.01) == pytest.approx(0.055)
    assert cosine(1.0, 0.1, 0.01) == pytest.approx(0.01)
    weights = make_weights()
    rates = []
    for _ in range(3):
        weights.train(genotypes)
        rates.append(weights.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([cosine(epoch / 10, 0.025, 0.001) for epoch in range(3)])


def test_training_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(128) % 4
    # Each class is bright in its own corner.
    images = torch.randint(0, 60, (128, 1, 8, 8), dtype=torch.uint8, generator=generator)
    for index, label in enumerate(labels.tolist()):
        row, column = 4 * (label // 2), 4 * (label % 2)
        images[index, :, row : row + 4, column : column + 4] += 150
    data = Dataset(images, labels)
    bundle = DataBundle("corners", data, data, ("a", "b", "c", "d"), (0.3,), (0.25,))
    torch.manual_seed(0)
    settings = SharedTraining(
        batch_size=16, learning_rate=0.1, crop_padding=0, validation_fraction=0.25, evaluation_batch=32
    )
    weights = SuperNetWeights(SuperNet(SPEC), bundle, settings, epochs=6, seed=0)
    chosen = genotypes(4)
    rng = np.random.default_rng(0)
    for _ in range(6):
        weights.train(lambda count: [chosen[int(index)] for index in rng.integers(4, size=count)])
    # Flips mix left with right in the training images, so that only top and bottom can be told for sure.
    assert max(weights.accuracies(chosen, full=True)) > 0.45


def test_a_rehearsal_changes_nothing() -> None:
    weights, other = make_weights(settings=DETERMINISTIC), make_weights(settings=DETERMINISTIC)
    chosen = genotypes(2)
    weights.train(lambda count: chosen[:count])
    other.restore(copy.deepcopy(weights.state()))
    weights.rehearse(chosen[0].genotype)
    assert same(weights.state(), other.state())
    assert all(parameter.grad is None for parameter in weights.parameters)
    for one in (weights, other):
        one.train(lambda count: chosen[:count])
    for mine, theirs in zip(weights.parameters, other.parameters, strict=True):
        assert torch.equal(mine, theirs)


def test_a_rehearsal_has_room_for_the_features_of_linear_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    features_of = SuperNetWeights._features_of

    def watched(self: SuperNetWeights, together: int) -> Tensor | None:
        kept.append(features_of(self, together))
        return kept[-1]

    monkeypatch.setattr(SuperNetWeights, "_features_of", watched)
    for classifier in ("shared", "probe"):
        weights = make_weights(settings=replace(SETTINGS, classifier=classifier))
        weights.rehearse(genotypes(1)[0].genotype, 6)
    none, some = kept
    # Six architectures are evaluated together, on all images; the probe reads the features of each image.
    assert none is None
    assert some.shape == (6, len(weights._full.labels), weights.supernet.classifier.in_features)
    # A probe is fitted to twice as many images at most.
    monkeypatch.setattr(shared_weights, "PROBED", 3)
    assert len(features_of(weights, 6)[0]) == 6


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_cells_before_the_first_reduction_run_once_for_architectures_that_share_them(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    spec = replace(SPEC, layers=7)
    assert spec.reductions[0] == 2
    slices = Slices(SuperNet(spec))
    drawn = genotypes(3)
    # Three with one normal cell, two with another, and one of its own.
    pairs = [(0, 0), (1, 1), (0, 1), (2, 2), (0, 2), (1, 0)]
    people = [Architecture(Genotype(drawn[a].genotype.normal, drawn[b].genotype.reduce), spec) for a, b in pairs]
    begun: list[Genotype] = []
    begin = SharedNetwork._begin

    def counting(self: SharedNetwork, common: Common, genotype: Genotype, cells: int) -> tuple[Tensor, Tensor]:
        begun.append(genotype)
        return begin(self, common, genotype, cells)

    monkeypatch.setattr(SharedNetwork, "_begin", counting)

    def counts(some: list[Architecture], room: int) -> list[list[int]]:
        with as_on(kind), torch_threads(1):
            return evaluate(slices, some, [batch(), batch()], lambda: torch.autocast("cpu", enabled=False), room)

    together = counts(people, 1 << 24)
    assert len(begun) == 2 * 3
    alone = [counts([one], 0)[0] for one in people]
    assert len(begun) == 2 * (3 + 6)
    assert together == alone
    # Without room, nothing is kept.
    assert counts(people, 0) == alone
    assert len(begun) == 2 * (3 + 6 + 6)
