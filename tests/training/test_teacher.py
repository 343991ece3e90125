"""A teacher: its weights from a file, its answers by its own classifier or by a fitted one, and the labels."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from long_runs import amount
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from cars_hw.config.teacher import Teacher
from cars_hw.config.training import Recipe
from cars_hw.data import DataBundle, Dataset
from cars_hw.errors import InputError
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import resolve_genotype
from cars_hw.training.linear_probe import left_out_scores
from cars_hw.training.losses import cross_entropy, mixed_cross_entropy
from cars_hw.training.standalone import NetworkTraining
from cars_hw.training.teacher import MEAN, STD, TeacherNetwork

NAME = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small network of torchvision with three classes and random weights."""
    torch.manual_seed(0)
    return models.get_model(NAME, weights=None, num_classes=3).eval()


def noise(count: int, seed: int = 0) -> Dataset:
    drawn = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=drawn)
    return Dataset(images, torch.randint(3, (count,), generator=drawn))


DATA = DataBundle("noise", noise(40), noise(9, 1), ("a", "b", "c"), (0.5,), (0.3,))


def teacher(path: Path, **changes: object) -> Teacher:
    return replace(Teacher(NAME, path, resolution=(32, 32)), **changes)  # type: ignore[arg-type]


def inputs(images: Dataset) -> torch.Tensor:
    """The images as the teacher takes them, written down a second time."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    grey = torch.cat([images.images.float() / 255] * 3, dim=1)
    return (nn.functional.interpolate(grey, (32, 32), mode="bilinear", antialias=True) - mean) / std


def test_weights_are_read_from_each_kind_of_file(network: nn.Module, tmp_path: Path) -> None:
    weights = network.state_dict()
    save_file(weights, tmp_path / "one.safetensors")
    torch.save(weights, tmp_path / "two.pt")
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "three.pth")
    for name in ("one.safetensors", "two.pt", "three.pth"):
        found = TeacherNetwork(teacher(tmp_path / name))
        assert found.classes == 3
        assert not found.network.training
        assert all(torch.equal(value, weights[key]) for key, value in found.network.state_dict().items())
        assert found.about.startswith(f"{NAME} sha256:")


class Evil:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_files_that_are_no_weights_of_the_network_are_one_line(network: nn.Module, tmp_path: Path) -> None:
    torch.save({"fc.weight": Evil(tmp_path / "made")}, tmp_path / "evil.pt")
    (tmp_path / "text.pt").write_text("nothing")
    (tmp_path / "text.safetensors").write_text("nothing")
    torch.save([1, 2], tmp_path / "list.pt")
    weights = dict(network.state_dict())
    torch.save({name: value for name, value in weights.items() if name != "conv1.0.weight"}, tmp_path / "less.pt")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    for name, words in {
        "evil.pt": "without running code",
        "text.pt": "without running code",
        "text.safetensors": "no safetensors file",
        "list.pt": "holds no weights",
        "less.pt": rf"not those of {NAME}: Missing key\(s\).*conv1\.0\.weight",
        "other.pt": "fc.weight is missing",
        "gone.pt": "No such file",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            TeacherNetwork(teacher(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()
    for changes, words in (
        ({"network": "resnet999"}, "no network 'resnet999'; it has"),
        ({"network": "squeezenet1_1"}, "no linear classifier"),
        ({"weights": None}, "give both"),
        ({"network": None}, "give both"),
    ):
        with pytest.raises(InputError, match=words):
            TeacherNetwork(teacher(tmp_path / "other.pt", **changes))


def test_a_densenet_may_have_the_names_of_torchvision_s_files_and_must_have_room_for_its_layers(
    tmp_path: Path,
) -> None:
    network = models.get_model("densenet121", weights=None, num_classes=2)
    weights = network.state_dict()
    # features.denseblock1.denselayer1.norm1.weight was features.denseblock1.denselayer1.norm.1.weight.
    old = {re.sub(r"(layer\d+\.[a-z]+)([12])\.", r"\1.\2.", name): value for name, value in weights.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pt")
    found = TeacherNetwork(Teacher("densenet121", tmp_path / "old.pt", resolution=(32, 32))).network.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in found.items())
    # Its last pooling halves an image of one pixel.
    words = r"densenet121 cannot have images of 16x20 pixels \("
    with pytest.raises(InputError, match=words) as caught:
        TeacherNetwork(Teacher("densenet121", tmp_path / "old.pt", resolution=(16, 20)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"][: amount(1, 2)])
def test_networks_that_normalise_otherwise_take_images_as_they_were_trained(name: str, tmp_path: Path) -> None:
    torch.save(
        models.get_model(name, weights=None, num_classes=2, init_weights=False).state_dict(), tmp_path / "w.pt"
    )
    assert TeacherNetwork(Teacher(name, tmp_path / "w.pt", resolution=(96, 96))).network.transform_input


def test_a_teacher_of_other_classes_has_a_classifier_of_the_images(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    told: list[str] = []
    asked = TeacherNetwork(teacher(tmp_path / "weights.pt", share=0.25, temperature=2.0))
    labels = asked.labels(DATA.train, DATA, "cpu", log=told.append)
    headless = models.get_model(NAME, weights=None, num_classes=3).eval()
    headless.load_state_dict(network.state_dict())
    headless.fc = nn.Identity()
    with torch.inference_mode():
        features = headless(inputs(DATA.train))
    scores = left_out_scores(features, DATA.train.labels, 3).float().clamp_min(1e-12)
    answers = scores.sqrt() / scores.sqrt().sum(dim=1, keepdim=True)
    expected = 0.75 * nn.functional.one_hot(DATA.train.labels, 3) + 0.25 * answers
    torch.testing.assert_close(labels, expected, atol=1e-4, rtol=1e-3)
    assert "by a linear classifier of its features" in told[0]


def test_a_teacher_of_the_same_classes_answers_by_its_own_classifier(network: nn.Module, tmp_path: Path) -> None:
    # Features tell nothing of random labels of images left out, but a classifier can learn the labels by heart.
    own = models.get_model(NAME, weights=None, num_classes=3).eval()
    own.load_state_dict(network.state_dict())
    own.fc = nn.Identity()
    with torch.inference_mode():
        features = own(inputs(DATA.train)).double()
    wanted = nn.functional.one_hot(DATA.train.labels, 3).double()
    scale = features.std(dim=0) + 1e-12
    solved = torch.linalg.lstsq(
        (features - features.mean(dim=0)) / scale, 20 * wanted - 20 / 3, driver="gelsd"
    ).solution
    weights = dict(network.state_dict())
    weights["fc.weight"] = (solved.T / scale).float()
    weights["fc.bias"] = -(weights["fc.weight"].double() @ features.mean(dim=0)).float()
    torch.save(weights, tmp_path / "own.pt")
    told: list[str] = []
    labels = TeacherNetwork(teacher(tmp_path / "own.pt", share=1.0)).labels(
        DATA.train, DATA, "cpu", log=told.append
    )
    assert told == [f"the teacher {NAME} answers 100.0% of the training images right, by its own classifier"]
    assert torch.equal(labels.argmax(dim=1), DATA.train.labels)
    assert float(labels.max(dim=1).values.min()) > 0.9


def test_the_loss_of_mixed_labels() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1, 1, 0])
    weights = torch.tensor([0.5, 2.0, 3.0])
    one_hot = nn.functional.one_hot(labels, 3).float()
    torch.testing.assert_close(
        mixed_cross_entropy(logits, one_hot, weights), cross_entropy(logits, labels, weights)
    )
    smoothed = cross_entropy(logits, labels, None, 0.1)
    torch.testing.assert_close(mixed_cross_entropy(logits, one_hot, None, 0.1), smoothed)
    # Logits 0 and ln 3 are probabilities of 1/4 and 3/4; half of each class at weights 1 and 3.
    found = mixed_cross_entropy(
        torch.tensor([[0.0, 3.0]]).log1p(), torch.tensor([[0.5, 0.5]]), torch.tensor([1.0, 3.0])
    )
    loss = 2 * (0.5 * torch.tensor(5.0).log() + 0.5 * torch.tensor(1.25).log())
    torch.testing.assert_close(found, loss)


def test_a_training_with_a_teacher_and_mixed_images_resumes(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    asked = TeacherNetwork(teacher(tmp_path / "weights.pt"))
    spec = NetworkSpec(4, 3, (8, 8), 1, classes=3)
    recipe = Recipe(
        epochs=2, batch_size=10, randaugment=1, mixup=0.3, cutmix=1.0, auxiliary=0.4, class_weights="balanced"
    )

    def training(taught: TeacherNetwork | None = asked) -> NetworkTraining:
        torch.manual_seed(0)
        made = Network(spec, resolve_genotype("DARTS_V2"), auxiliary=True)
        return NetworkTraining(made, DATA, recipe, seed=0, teacher=taught)

    whole = training()
    whole.run_epoch()
    state = {name: value for name, value in whole.state().items() if name != "best"}
    saved = torch.load(_saved(state, tmp_path / "state.pt"), weights_only=True)
    whole.run_epoch()
    resumed = training()
    resumed.restore({**saved, "best": None})
    resumed.run_epoch()
    assert resumed.loss == whole.loss
    assert all(
        torch.equal(value, whole.network.state_dict()[name]) for name, value in resumed.network.state_dict().items()
    )
    alone = training(None)
    alone.run_epoch()
    assert alone.loss != saved["loss"]


def _saved(state: dict[str, object], path: Path) -> Path:
    torch.save(state, path)
    return path
