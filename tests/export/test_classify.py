"""An image through a model by its card alone: the card's preprocessing is what the network was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from cars_hw.config.checksummed import digest
from cars_hw.data import load_data
from cars_hw.errors import DatasetError, ExportError, InputError
from cars_hw.export.card import CARD, ModelCard, Preprocessing, card_path
from cars_hw.export.classify import Classifier, classify
from cars_hw.export.export import export_genotype, export_model
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
    preprocessing = Preprocessing.of(data.mean, data.std, data.resolution)
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


Change = Callable[[dict[str, Any]], object]


def changed(model: Path, to: Path, change: Change) -> Path:
    """Copy ``model`` to the folder ``to``, with a card that ``change`` was applied to."""
    copy = to / model.name
    copy.write_bytes(model.read_bytes())
    content = CARD.read(card_path(model))
    change(content)
    CARD.write(card_path(copy), content)
    return copy


def steps(content: dict[str, Any]) -> Any:  # noqa: ANN401 -- JSON
    return content["preprocessing"]


Pixels = npt.NDArray[np.float64]

OBEYED: dict[str, tuple[Change, Callable[[Image.Image], Image.Image], Callable[[Pixels], Pixels]]] = {
    "orientation": (
        lambda card: steps(card)["decoding"].update(orientation="stored"),
        lambda image: image.convert("RGB").resize((16, 12), Image.Resampling.BILINEAR),
        lambda pixels: pixels,
    ),
    "conversions": (
        lambda card: steps(card)["decoding"]["conversions"].update(RGB=["L", "RGB"]),
        lambda image: upright(image).convert("L").convert("RGB").resize((16, 12), Image.Resampling.BILINEAR),
        lambda pixels: pixels,
    ),
    "filter": (
        lambda card: steps(card)["resizing"].update(filter="lanczos"),
        lambda image: upright(image).resize((16, 12), Image.Resampling.LANCZOS),
        lambda pixels: pixels,
    ),
    "antialias": (
        lambda card: steps(card)["resizing"].update(filter="nearest", antialias=False),
        lambda image: upright(image).resize((16, 12), Image.Resampling.NEAREST),
        lambda pixels: pixels,
    ),
    "scale": (
        lambda card: steps(card).update(scale=1 / 128),
        lambda image: upright(image).resize((16, 12), Image.Resampling.BILINEAR),
        lambda pixels: pixels * 255 / 128,
    ),
    "mean": (
        lambda card: steps(card).update(mean=[0.1, 0.2, 0.3]),
        lambda image: upright(image).resize((16, 12), Image.Resampling.BILINEAR),
        lambda pixels: pixels + MEAN - np.array([0.1, 0.2, 0.3]),
    ),
    "std": (
        lambda card: steps(card).update(std=[0.1, 0.2, 0.3]),
        lambda image: upright(image).resize((16, 12), Image.Resampling.BILINEAR),
        lambda pixels: (pixels - MEAN) * STD / np.array([0.1, 0.2, 0.3]) + MEAN,
    ),
}
"""By field: the change of a card, and what it makes of an image and of its scaled pixels."""

MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])


def upright(image: Image.Image) -> Image.Image:
    """Return an image of orientation 6 upright, by hand."""
    return image.transpose(Image.Transpose.ROTATE_270)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Path]:
    """A network with logits that differ from image to image, and its model, for a known normalisation."""
    network = seeded(lambda: Network(SPEC, zoo()["CARS_A"].genotype), "card")
    noise = torch.randn(8, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.classifier.weight.mul_(1 / network(noise).std(dim=0).mean())
        network.classifier.bias -= network(noise).mean(dim=0)
    model = tmp_path_factory.mktemp("fixed") / "net.onnx"
    preprocessing = Preprocessing.of(tuple(MEAN), tuple(STD), (12, 16))
    export_model(network, model, "onnx", preprocessing=preprocessing, class_names=NAMES)
    return network, model


@pytest.mark.parametrize("field", OBEYED)
def test_classify_goes_by_each_field_of_the_card(field: str, fixed: tuple[Network, Path], tmp_path: Path) -> None:
    network, model = fixed
    change, to_image, to_pixels = OBEYED[field]
    noise = np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(tmp_path / "image.png", exif=exif)
    pixels = to_pixels(np.asarray(to_image(Image.fromarray(noise)), np.float64) / 255)
    batch = torch.from_numpy(((pixels - MEAN) / STD).transpose(2, 0, 1)[None])
    with torch.no_grad():
        known = network.double()(batch).numpy()[0]
        network.float()
    found = Classifier(changed(model, tmp_path, change)).output(tmp_path / "image.png")
    as_it_was = Classifier(model).output(tmp_path / "image.png")
    assert np.abs(found - known).max() < 1e-3
    assert np.abs(as_it_was - known).max() > 1e-2


def test_probabilities_are_taken_as_they_are(fixed: tuple[Network, Path], folder: Path, tmp_path: Path) -> None:
    _, model = fixed
    image = folder / "a" / "0.png"
    logits = Classifier(model).output(image)
    copy = changed(model, tmp_path, lambda card: card.update(output="probabilities"))
    assert np.array_equal(Classifier(copy).probabilities(image), logits)
    assert Classifier(model).probabilities(image).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: steps(card)["decoding"].update(library="OpenCV"), "library must be one of Pillow"),
        (lambda card: steps(card)["decoding"].update(frame="middle"), "frame must be one of first"),
        (lambda card: steps(card)["resizing"].update(crop="centre"), "crop must be one of none"),
        (lambda card: steps(card)["resizing"].update(keep_aspect=True), "keep_aspect must be False"),
        (lambda card: steps(card)["resizing"].update(antialias=False), "antialias must be True"),
        (lambda card: steps(card).update(formula="pixel"), "formula must be"),
        (lambda card: steps(card).update(colours="BGR"), "colours must be RGB, not 'BGR'"),
        (lambda card: steps(card).update(layout="CHWN"), "layout must be"),
        (lambda card: card.update(output="softmax"), "output must be"),
    ],
)
def test_what_a_card_says_and_is_not_known_is_refused(
    change: Change, message: str, fixed: tuple[Network, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        Classifier(changed(fixed[1], tmp_path, change))


def test_a_mode_that_the_card_does_not_convert_is_refused(fixed: tuple[Network, Path], tmp_path: Path) -> None:
    copy = changed(fixed[1], tmp_path, lambda card: steps(card)["decoding"]["conversions"].pop("CMYK"))
    Image.new("CMYK", (9, 9)).save(tmp_path / "image.tif")
    assert len(classify(fixed[1], tmp_path / "image.tif")) == 4
    with pytest.raises(DatasetError, match=r"image\.tif has pixels of mode CMYK"):
        classify(copy, tmp_path / "image.tif")


def test_a_network_of_four_channels_takes_no_image_files(tmp_path: Path) -> None:
    (made,) = export_genotype(
        zoo()["CARS_A"].genotype, SPEC.with_changes(in_channels=4), tmp_path, name="four", formats=["onnx"]
    )
    assert made.card.preprocessing.decoding is None
    with pytest.raises(InputError, match="for 4 channels, which image files do not have"):
        classify(made.path, tmp_path / "image.png")
