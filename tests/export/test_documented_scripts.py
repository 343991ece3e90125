"""The scripts of the documentation, `cars-hw classify` and the network in torch see the same image in a file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cars_hw.data import load_data
from cars_hw.export.card import Preprocessing
from cars_hw.export.classify import Classifier
from cars_hw.export.export import export_model
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import zoo

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "how-to" / "export-and-int8.md"

RESOLUTION = (12, 16)

RUN_ALL = """
import contextlib, io, json, shutil, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cars_hw", "torch", "onnx", "cattrs", "click"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
code, *images = json.load(sys.stdin)
code = compile(code, "page", "exec")
found = []
for image in images:
    shutil.copyfile(image, "image.png")
    namespace, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    found.append((printed.getvalue().strip(), [float(value) for value in namespace["logits"]]))
json.dump(found, sys.stdout)
"""
"""Runs a script for each of the images, without cars-hw and its libraries."""


class Set(NamedTuple):
    """Images, all in one training folder; ``logits`` of the network in torch, in the order of ``files``."""

    channels: int
    folder: Path
    files: list[Path]
    models: Path
    logits: npt.NDArray[np.float32]


Seasoned = Callable[[nn.Module, Tensor], nn.Module]


def noise(mode: str, size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Return an image of noise about slopes, so that a mirrored or turned one is another."""
    width, height = size
    bands = len(Image.new(mode, (1, 1)).getbands())
    rng = np.random.default_rng([seed, width, height, bands])
    slope = np.add.outer(np.linspace(0, 100, height), np.linspace(0, 60, width))[:, :, None]
    pixels = (slope + rng.integers(0, 90, (height, width, bands))).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if bands == 1 else pixels, mode="L" if bands == 1 else mode)


def write_grey(folder: Path) -> None:
    """Write the grey images: 1, 8 and 16 bits, with and without transparency, of extreme sizes."""
    folder.mkdir(parents=True)
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        noise("L", (30, 20), orientation).save(folder / f"exif-{orientation}.jpg", exif=exif)
        noise("LA", (17, 23), orientation).save(folder / f"exif-{orientation}.png", exif=exif)
    for width, height in ((1, 1), (1, 200), (200, 1), (300, 2), (16, 12), (15, 12)):
        noise("L", (width, height)).save(folder / f"size-{width}x{height}.png")
    noise("L", (40, 25)).point(lambda value: 255 * (value > 90), mode="1").save(folder / "bits.png")
    deep = np.random.default_rng(0).integers(0, 65536, (25, 31)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    (folder / "deep.pgm").write_bytes(b"P5 31 25 65535\n" + deep.astype(">u2").tobytes())


def write_colour(folder: Path) -> None:
    """Write the images in colour: palettes, CMYK, transparency, every orientation, extreme sizes."""
    folder.mkdir(parents=True)
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        noise("RGB", (30, 20), orientation).save(folder / f"rgb-{orientation}.jpg", exif=exif)
        noise("CMYK", (19, 31), orientation).save(folder / f"cmyk-{orientation}.jpg", exif=exif)
        noise("RGBA", (14, 9), orientation).save(folder / f"rgba-{orientation}.webp", exif=exif, lossless=True)
    for width, height in ((1, 1), (1, 200), (300, 2), (16, 12)):
        noise("RGB", (width, height)).save(folder / f"rgb-{width}x{height}.png")
    noise("RGBA", (40, 25)).save(folder / "transparent.png")
    noise("RGB", (40, 25)).convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    noise("RGB", (40, 25)).quantize(16).save(folder / "palette-transparent.png", transparency=3)
    noise("RGB", (40, 25)).quantize(16).save(folder / "alphas.png", transparency=bytes(range(16)))
    noise("L", (40, 25)).save(folder / "animated.gif", save_all=True, append_images=[noise("L", (40, 25), 1)])
    noise("CMYK", (40, 25)).save(folder / "cmyk.tif")
    noise("RGB", (40, 25)).save(folder / "plain.bmp")


def make_set(channels: int, folder: Path, seasoned: Seasoned) -> Set:
    """Write the images and the models, and let the training's reader feed the network."""
    files = folder / "data" / "train" / "all"
    write_grey(files)
    if channels == 3:
        write_colour(files / "colour")
        for file in (files / "colour").iterdir():
            file.rename(files / file.name)
        (files / "colour").rmdir()
    # Two classes, and a test part, so that it is a data set.
    for other in ("train/other", "test/all", "test/other"):
        (folder / "data" / other).mkdir(parents=True)
        noise("L", (5, 5)).save(folder / "data" / other / "0.png")
    data = load_data(str(folder / "data"), resolution=RESOLUTION)
    assert data.channels == channels
    spec = NetworkSpec(4, 3, RESOLUTION, channels, classes=5)
    network = seeded(lambda: Network(spec, zoo()["CARS_A"].genotype), "scripts")
    images = data.train.images[data.train.labels == data.class_names.index("all")].float() / 255
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (data.mean, data.std))
    seasoned(network, (images - mean) / std)
    with torch.no_grad():
        # A classifier whose choice depends on the image.
        logits = network((images - mean) / std)
        network.classifier.weight.mul_(1 / logits.std(dim=0).mean())
        network.classifier.bias.zero_()
        network.classifier.bias -= network((images - mean) / std).mean(dim=0)
        logits = network((images - mean) / std)
    for model_format in ("onnx", "tflite"):
        export_model(
            network,
            folder / "run" / "models" / f"net-01.{model_format}",
            model_format,
            preprocessing=Preprocessing.of(data.mean, data.std, data.resolution),
            class_names="vwxyz",
        )
    return Set(channels, folder, sorted(files.iterdir()), folder / "run" / "models", logits.numpy())


@pytest.fixture(scope="module", params=[1, 3], ids=["grey", "colour"])
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, seasoned: Seasoned) -> Set:
    return make_set(request.param, tmp_path_factory.mktemp("scripts"), seasoned)


def script(runtime: str) -> str:
    """Return the script of the page for ``runtime``: what prepares an image, and what runs the model."""
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    (common,) = (block for block in blocks if "def prepared" in block)
    (own,) = (block for block in blocks if runtime in block and 'prepared(card, "' in block)
    return f"{common}\n{own}"


def run_script(code: str, images: list[Path], folder: Path) -> list[Any]:
    """Return what the script prints for each image, and its logits."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps([code, *map(str, images)]),
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("runtime", "suffix"), [("onnxruntime", "onnx"), ("ai_edge_litert", "tflite")])
def test_script_classify_and_network_agree_on_every_image(runtime: str, suffix: str, images: Set) -> None:
    classifier = Classifier(images.models / f"net-01.{suffix}")
    found = run_script(script(runtime), images.files, images.folder)
    assert len(found) == len(images.files) == len(images.logits) == (26 if images.channels == 1 else 61)
    for file, (name, logits), known in zip(images.files, found, images.logits, strict=True):
        ours = classifier.output(file)
        assert np.abs(ours - known).max() <= 1e-5, file
        assert np.abs(np.array(logits) - ours).max() <= 1e-5, file
        assert name == classifier(file)[0].name == "vwxyz"[known.argmax()], file
    # The three files of 16 bits have the same pixels, and so have two with a palette. The others differ:
    # a script that ignored its image, or its orientation, would be found.
    distinct = len({tuple(np.round(logits, 3)) for _, logits in found})
    assert len(found) - distinct == (2 if images.channels == 1 else 3)
    assert len({name for name, _ in found}) >= 3


def test_a_grey_network_takes_files_in_colour_as_the_script_does(images: Set, tmp_path: Path) -> None:
    if images.channels == 3:
        pytest.skip("for the grey network")
    write_colour(tmp_path / "colour")
    files = sorted((tmp_path / "colour").iterdir())
    classifier = Classifier(images.models / "net-01.onnx")
    for file, (name, logits) in zip(files, run_script(script("onnxruntime"), files, images.folder), strict=True):
        assert np.abs(np.array(logits) - classifier.output(file)).max() <= 1e-5, file
        assert name == classifier(file)[0].name


def test_the_script_has_about_twenty_lines() -> None:
    lines = [line for line in script("onnxruntime").splitlines() if line.strip()]
    assert len(lines) <= 28


def test_a_quantised_model_is_run_by_the_script(images: Set, tmp_path: Path) -> None:
    pytest.importorskip("litert_quantizer")
    from cars_hw.data.images import read_image
    from cars_hw.export.export import export_int8

    if images.channels == 1:
        pytest.skip("one network is enough")
    pixels = np.stack([read_image(file, images.channels, RESOLUTION) for file in images.files])
    (tmp_path / "run" / "models").mkdir(parents=True)
    for suffix in ("", ".json"):
        shutil.copyfile(images.models / f"net-01.tflite{suffix}", tmp_path / f"net-01.tflite{suffix}")
    model = tmp_path / "run" / "models" / "net-01.tflite"
    export_int8(
        tmp_path / "net-01.tflite", model, calibration=pixels, images=pixels, labels=np.zeros(len(pixels), np.int64)
    )
    classifier = Classifier(model)
    assert classifier.card.precision == "int8"
    assert classifier.card.test_images == len(pixels)
    for file, (name, logits) in zip(
        images.files, run_script(script("ai_edge_litert"), images.files, tmp_path), strict=True
    ):
        assert np.abs(np.array(logits) - classifier.output(file)).max() <= 1e-5, file
        assert name == classifier(file)[0].name
