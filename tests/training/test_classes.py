"""Classes of unequal size: weights in the loss, balanced accuracy, and evaluations by class."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from emulated_graphs import EmulatedRecorder
from torch import Tensor, nn

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.network import Network
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training import standalone
from cars_hw.training.losses import cross_entropy, weights_of_classes
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.standalone import NetworkTraining, counts_on, evaluation_on

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)
GENOTYPE = SearchSpace().sample(np.random.default_rng(4))


def part(counts: tuple[int, int, int], seed: int = 0) -> Dataset:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(labels), 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Dataset(images, labels)


DATA = DataBundle("toy", part((60, 24, 12)), part((12, 6, 2), 1), ("a", "b", "c"), (0.5,), (0.25,))


def test_weights_by_hand() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    assert weights_of_classes(labels, 4, "none") is None
    weights = weights_of_classes(labels, 4, "balanced")
    assert weights is not None
    # 10 images in three classes that have any: 10/(3*6), 10/(3*3), 10/(3*1).
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 1.0, 10 / 3])
    assert float(weights[labels].mean()) == pytest.approx(1)


def test_the_loss_is_weighed_by_image() -> None:
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 2, 2, 2, 1, 0])
    weights = torch.tensor([0.5, 2.0, 3.0])
    single = F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)
    expected = float((single * weights[labels]).sum()) / 8
    assert float(cross_entropy(logits, labels, weights, 0.1)) == pytest.approx(expected)
    assert torch.equal(
        cross_entropy(logits, labels, None, 0.1), F.cross_entropy(logits, labels, label_smoothing=0.1)
    )
    # Parts of a batch in several processes add up to it.
    halves = [cross_entropy(logits[one::2], labels[one::2], weights, 0.1) / 2 for one in (0, 1)]
    assert float(sum(halves)) == pytest.approx(expected)


def shared(recorder: EmulatedRecorder | None, weights: str = "balanced") -> SuperNetWeights:
    torch.manual_seed(0)
    settings = SharedTraining(batch_size=16, validation_fraction=0.25, class_weights=weights)  # type: ignore[arg-type]
    made = SuperNetWeights(SuperNet(SPEC).double(), DATA, settings, epochs=10, seed=0, recorder=recorder)
    for batches in (made.batches, made._full, made._subset):
        batches._normalise.dtype = torch.float64
    return made


def people(count: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [Architecture(SearchSpace().sample(rng), SPEC) for _ in range(count)]


def test_recorded_passes_weigh_the_classes_as_plain_ones_do() -> None:
    plain, graphed, unweighed = shared(None), shared(EmulatedRecorder()), shared(None, "none")
    losses = []
    for one in (plain, graphed, unweighed):
        drawn = people(2)
        losses.append([one.train(lambda count: drawn[:count]) for _ in range(3)])  # noqa: B023
    assert losses[0] == pytest.approx(losses[1])
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)
    for mine, theirs in zip(plain.parameters, graphed.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    # The weights are those of the images that train: three quarters of each class.
    assert plain.passes.class_weights.tolist() == pytest.approx([72 / (3 * n) for n in (45, 18, 9)])  # type: ignore[attr-defined]


def test_a_step_with_weights_follows_the_weighted_loss() -> None:
    weights = shared(None)
    images: Tensor = torch.randn(16, 1, 8, 8, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(16) % 3
    reference = copy.deepcopy(weights.supernet)
    single = F.cross_entropy(reference(images, GENOTYPE), labels, reduction="none")
    by_class = torch.tensor([72 / (3 * n) for n in (45, 18, 9)], dtype=torch.float64)
    expected = float((single.detach() * by_class[labels]).mean())
    assert float(weights.step(images, labels, [Architecture(GENOTYPE, SPEC)])) == pytest.approx(expected, rel=1e-6)


def test_shared_weights_count_by_class() -> None:
    weights = shared(None)
    chosen = people(3)
    found = weights.counts(chosen, full=True)
    assert [one.images for one in found] == [(15, 6, 3)] * 3
    for (genotype, _), counts in zip(chosen, found, strict=True):
        right = torch.zeros(3, dtype=torch.int64)
        for images, labels in weights._full:
            with torch.no_grad():
                answers = weights.supernet(images, genotype).argmax(1)
            right += torch.bincount(labels[answers == labels], minlength=3)
        assert list(counts.right) == right.tolist()
    assert weights.accuracies(chosen, full=True) == [one.accuracy for one in found]
    assert len({one.right for one in found}) > 1


class Fixed(nn.Module):
    """Answers by an image's first pixel."""

    def forward(self, images: Tensor) -> Tensor:
        return F.one_hot((images[:, 0, 0, 0] * 0.25 + 0.5).mul(255).round().long() % 3, 3).float()


def test_an_evaluation_by_hand() -> None:
    truth = [0, 0, 0, 0, 1, 1, 2, 2, 2]
    answers = [0, 0, 1, 2, 1, 0, 2, 2, 2]
    images = torch.zeros(9, 1, 8, 8, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(answers, dtype=torch.uint8)
    dataset = Dataset(images, torch.tensor(truth))
    found = evaluation_on(Fixed(), dataset, DATA)
    assert found.images == (4, 2, 3)
    assert found.right == (2, 1, 3)
    assert found.confusion == ((2, 1, 1), (1, 1, 0), (0, 0, 3))
    assert int(found.correct, 16).bit_count() == 6
    counts = counts_on(Fixed(), dataset, DATA)
    assert counts == ClassCounts((4, 2, 3), (2, 1, 3), loss=counts.loss)
    # The logit of the answer is 1, those of the other two classes are 0: six right answers and three wrong ones.
    assert counts.loss == pytest.approx((6 * math.log(1 + 2 / math.e) + 3 * math.log(math.e + 2)) / 9, rel=1e-6)
    # The same images are recognised, and others are not.
    assert evaluation_on(nn.Sequential(Fixed()), dataset, DATA).p_value(found) == 1
    other = evaluation_on(Fixed(), Dataset(images, torch.tensor(truth[::-1])), DATA)
    assert other.evaluated != found.evaluated


def test_answers_are_compared_image_by_image() -> None:
    images = torch.zeros(9, 1, 8, 8, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2], dtype=torch.uint8)
    dataset = Dataset(images, torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2]))

    class Always(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return F.one_hot(torch.full((len(images),), 2), 3).float()

    right, always = (evaluation_on(one, dataset, DATA) for one in (Fixed(), Always()))
    assert (sum(right.right), sum(always.right)) == (9, 3)
    # Six images are right in the first only, none in the second only.
    assert right.p_value(always) == 2 / 64


def test_more_classes_than_a_matrix_is_kept_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standalone, "MOST_CLASSES", 2)
    found = evaluation_on(Fixed(), DATA.test, DATA)
    assert found.confusion is None
    assert found.images == (12, 6, 2)


def test_balanced_accuracy_chooses_the_best_epoch_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # By accuracy the first epoch is the best, by balanced accuracy the second.
    counted = [ClassCounts((8, 2), (8, 0)), ClassCounts((8, 2), (5, 2)), ClassCounts((8, 2), (4, 2))]
    chosen = {}
    for objective in ("accuracy", "balanced-accuracy"):
        recipe = Recipe(epochs=3, batch_size=32, hold_out=0.25, objective=objective)  # type: ignore[arg-type]
        torch.manual_seed(0)
        training = NetworkTraining(Network(SPEC, GENOTYPE), DATA, recipe, seed=0)
        found = iter(counted)
        monkeypatch.setattr(standalone, "counts_on", lambda *_, found=found, **__: next(found))
        for _ in range(3):
            training.run_epoch()
        result = training.finish()
        chosen[objective] = (result.best_epoch, result.held_out)
    assert chosen == {"accuracy": (1, counted[0]), "balanced-accuracy": (2, counted[1])}


def test_a_training_with_weights_is_resumed_to_the_same_weights() -> None:
    recipe = Recipe(
        epochs=2,
        batch_size=32,
        hold_out=0.25,
        class_weights="balanced",
        objective="balanced-accuracy",
        auxiliary=0.4,
    )

    def fresh(recipe: Recipe) -> NetworkTraining:
        torch.manual_seed(0)
        return NetworkTraining(Network(SPEC, GENOTYPE, auxiliary=True), DATA, recipe, seed=0)

    whole, first, second = fresh(recipe), fresh(recipe), fresh(recipe)
    for _ in range(2):
        whole.run_epoch()
    first.run_epoch()
    second.restore(copy.deepcopy(first.state()))
    second.run_epoch()
    assert second.finish().held_out == whole.finish().held_out
    for mine, theirs in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    plain = fresh(replace(recipe, class_weights="none"))
    plain.run_epoch()
    assert plain.loss != pytest.approx(first.loss, rel=1e-3)
