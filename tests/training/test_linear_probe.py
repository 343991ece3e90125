"""The linear probe: its left-out scores against a regression refitted without each image, and its counts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from torch import Tensor

from cars_hw.config.presets import PRESETS
from cars_hw.config.training import SharedTraining
from cars_hw.data import DataBundle, Dataset
from cars_hw.errors import InputError
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training import shared_evaluation
from cars_hw.training.linear_probe import left_out_scores
from cars_hw.training.shared_weights import SuperNetWeights

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)


def made(images: int, features: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features that tell the classes apart in part, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images,), generator=generator)
    centres = torch.randn(classes, features, generator=generator)
    return centres[labels] + 2 * torch.randn(images, features, generator=generator), labels


@pytest.mark.parametrize(("images", "features", "penalty"), [(40, 6, 3.0), (12, 30, 0.1), (25, 1, 1.0)])
def test_scores_are_those_of_a_regression_without_the_image(images: int, features: int, penalty: float) -> None:
    inputs, labels = made(images, features, 3)
    standard = inputs.double().numpy()
    standard = (standard - standard.mean(0)) / standard.std(0)
    wanted = F.one_hot(labels, 3).double().numpy()
    scores = left_out_scores(inputs, labels, 3, penalty)
    for index in range(images):
        others = np.arange(images) != index
        model = Ridge(alpha=penalty * images, solver="cholesky").fit(standard[others], wanted[others])
        assert scores[index].numpy() == pytest.approx(model.predict(standard[[index]])[0], abs=1e-9)


def test_scores_do_not_depend_on_the_scale_of_a_feature() -> None:
    inputs, labels = made(30, 5, 4)
    scaled = inputs * torch.tensor([1e-3, 1.0, 1e3, 7.0, 0.2]) + torch.tensor([5.0, 0.0, -2.0, 1.0, 0.0])
    assert torch.allclose(left_out_scores(inputs, labels, 4), left_out_scores(scaled, labels, 4), atol=1e-4)


def test_features_that_say_nothing_answer_with_the_most_frequent_other_class() -> None:
    labels = torch.tensor([0] * 5 + [1] * 3)
    for features in (torch.ones(8, 4), torch.full((8, 4), torch.nan), torch.full((8, 4), torch.inf)):
        scores = left_out_scores(features, labels, 2)
        assert scores[0].tolist() == pytest.approx([4 / 7, 3 / 7])
        assert scores[7].tolist() == pytest.approx([5 / 7, 2 / 7])


def test_no_image_answers_for_itself() -> None:
    """Features without any relation to the classes give a chance result, however many features there are."""
    generator = torch.Generator().manual_seed(2)
    features, labels = torch.randn(400, 300, generator=generator), torch.arange(400) % 4
    right = (left_out_scores(features, labels, 4, 0.01).argmax(1) == labels).double().mean()
    assert 0.15 < float(right) < 0.35


def bundle(count: int = 60) -> DataBundle:
    """Images whose brightness is their class, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 120, (count, 1, 8, 8), generator=generator)
    part = Dataset((noise + 40 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)
    return DataBundle("toy", part, part, ("a", "b", "c"), (0.5,), (0.25,), validation=part)


SETTINGS = SharedTraining(batch_size=16, evaluation_batch=14, classifier="probe")


def weights(settings: SharedTraining = SETTINGS) -> SuperNetWeights:
    torch.manual_seed(0)
    return SuperNetWeights(SuperNet(SPEC), bundle(), settings, epochs=1, seed=0)


def people(count: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [Architecture(SearchSpace().sample(rng), SPEC) for _ in range(count)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("probed", "parts"), [(1000, [60]), (25, [25, 35]), (20, [20, 20, 20]), (13, [13, 13, 13, 21])]
)
def test_a_probe_is_fitted_to_parts_of_the_images(
    threads: int, probed: int, parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_evaluation, "PROBED", probed)
    shared, several = weights(), people(5)
    wanted = []
    for one in several:
        with torch.no_grad():
            found = [
                (shared.supernet.features(shared.supernet.common(images), one.genotype), labels)
                for images, labels in shared._full
            ]
        features, labels = (torch.cat(column) for column in zip(*found, strict=True))
        right = torch.zeros(3, dtype=torch.int64)
        for inputs, classes in zip(features.split(parts), labels.split(parts), strict=True):
            answers = left_out_scores(inputs, classes, 3).argmax(1)
            right += torch.bincount(classes[answers == classes], minlength=3)
        wanted.append(tuple(right.tolist()))
    torch.set_num_threads(threads)
    try:
        counts = shared.counts(several, full=True)
    finally:
        torch.set_num_threads(1)
    assert [one.right for one in counts] == wanted
    assert {one.images for one in counts} == {(20, 20, 20)}
    assert [one.loss for one in counts] == [None] * 5
    assert len(set(wanted)) > 1


def test_a_probe_needs_no_trained_classifier() -> None:
    """Untrained weights answer by chance with the shared classifier, and tell classes apart with a probe."""
    several = people(6)
    probed, shared = weights(), weights(replace(SETTINGS, classifier="shared"))
    with torch.no_grad():
        for one in (probed, shared):
            one.supernet.classifier.weight.zero_()
    assert [one.accuracy for one in shared.counts(several)] == pytest.approx([1 / 3] * 6)
    assert min(one.accuracy for one in probed.counts(several)) > 0.6


def test_what_a_probe_does_not_know_cannot_select() -> None:
    quick = PRESETS["quick"]
    probed = partial(replace, quick, training=replace(quick.training, classifier="probe"))
    assert probed().training.classifier == "probe"
    for objective in ("loss", "balanced-accuracy"):
        with pytest.raises(InputError, match=r"training\.classifier = 'shared'"):
            probed(evolution=replace(quick.evolution, objective=objective))
    with pytest.raises(InputError, match=r"training\.class_weights = 'balanced' needs"):
        replace(quick, training=replace(quick.training, classifier="probe", class_weights="balanced"))
