"""An image through a model by its card alone: the card's preprocessing is what the network was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cars_hw.config.checksummed import digest
from cars_hw.data import load_data
from cars_hw.errors import DatasetError, ExportError, InputError
from cars_hw.export.card import ModelCard, Preprocessing, card_path
from cars_hw.export.classify import classify
from cars_hw.export.export import export_model
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import zoo

SPEC = NetworkSpec(4, 3, (12, 16), 3, classes=4)
NAMES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a data set: odd sizes, a palette, one on its side."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in NAMES:
        (root / name).mkdir()
        for number in range(6):
            picture = Image.fromarray(rng.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8))
            if number == 1:
                picture = picture.convert("P")
            exif = Image.Exif()
            exif[0x0112] = 6 if number == 2 else 1
            picture.save(root / name / f"{number}.png", exif=exif)
    return root


@pytest.fixture(scope="module")
def models(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Network, Preprocessing, dict[str, Path]]:
    data = load_data(str(folder), resolution=(12, 16))
    network = seeded(lambda: Network(SPEC, zoo()["CARS_A"].genotype), "classify")
    # Logits that differ from image to image as they do behind a trained classifier.
    images = torch.cat([data.train.images, data.test.images]).float() / 255
    with torch.no_grad():
        logits = network((images - images.mean()) / images.std())
        network.classifier.weight.mul_(1 / logits.std(dim=0).mean())
        network.classifier.bias.zero_()
        network.classifier.bias -= network((images - images.mean()) / images.std()).mean(dim=0)
    out = tmp_path_factory.mktemp("models")
    preprocessing = Preprocessing(data.mean, data.std, data.resolution)
    paths = {}
    for name in ("onnx", "tflite"):
        paths[name] = out / f"net.{name}"
        export_model(network, paths[name], name, preprocessing=preprocessing, class_names=NAMES)
    return network, preprocessing, paths


@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
def test_a_file_and_its_card_say_what_the_network_says_of_the_data_set(
    model_format: str, models: tuple[Network, Preprocessing, dict[str, Path]], folder: Path
) -> None:
    network, _, paths = models
    # The data set reads all of a folder; which of its images this one is, its pixels tell.
    data = load_data(str(folder), resolution=(12, 16))
    images = torch.cat([data.train.images, data.test.images]).float() / 255
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (data.mean, data.std))
    with torch.no_grad():
        known = torch.softmax(network((images - mean) / std), dim=1).numpy()
    for file in sorted(folder.rglob("*.png")):
        guesses = classify(paths[model_format], file)
        assert [guess.probability for guess in guesses] == sorted(
            (guess.probability for guess in guesses), reverse=True
        )
        assert sum(guess.probability for guess in guesses) == pytest.approx(1, abs=1e-5)
        found = np.array([next(g.probability for g in guesses if g.name == name) for name in NAMES])
        assert np.abs(known - found).max(axis=1).min() < 1e-4
    assert np.ptp(known, axis=0).max() > 0.01


def test_what_cannot_be_run_is_an_error_in_one_line(
    models: tuple[Network, Preprocessing, dict[str, Path]], folder: Path, tmp_path: Path
) -> None:
    _, _, paths = models
    image = folder / "a" / "0.png"
    with pytest.raises(InputError, match=r"cannot read .*nothing\.onnx\.json"):
        classify(tmp_path / "nothing.onnx", image)
    with pytest.raises(DatasetError, match=r"pixels\.png"):
        (tmp_path / "pixels.png").write_bytes(b"no image")
        classify(paths["onnx"], tmp_path / "pixels.png")
    for name, path in paths.items():
        card = path.with_name(f"{path.name}.json").read_text()
        broken = tmp_path / f"broken.{name}"
        broken.with_name(f"{broken.name}.json").write_text(card)
        with pytest.raises(InputError, match=rf"cannot read .*broken\.{name}: No such file"):
            classify(broken, image)
        broken.write_bytes(b"no model")
        with pytest.raises(InputError, match=rf"broken\.{name} was changed or damaged after it was written"):
            classify(broken, image)
        replace(ModelCard.read(card_path(path)), digest=digest(b"no model")).write(card_path(broken))
        with pytest.raises(ExportError, match=rf"broken\.{name} cannot be run") as raised:
            classify(broken, image)
        assert "\n" not in str(raised.value)
        other = tmp_path / "net.pt"
        other.write_bytes(path.read_bytes())
        other.with_name("net.pt.json").write_text(card)
        with pytest.raises(InputError, match=r"\.onnx, \.tflite"):
            classify(other, image)
