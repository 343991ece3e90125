"""The Kotlin class for Android prepares a photo as the card says: its formulas, and where kotlinc is, the class."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cars_hw.config.decoding import Resizing
from cars_hw.data.images import read_by
from cars_hw.export.card import FORMULA, ModelCard, Preprocessing, card_path
from cars_hw.export.classify import prepare
from cars_hw.export.model import Model
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import resolve_genotype

ROOT = Path(__file__).resolve().parent.parent.parent
SNIPPET = ROOT / "examples" / "android" / "Classifier.kt"
STUBS = sorted((ROOT / "tests" / "kotlin").glob("*.kt"))
PAGE = ROOT / "docs" / "how-to" / "run-on-android.md"
CODE = SNIPPET.read_text(encoding="utf-8")
NAMES = ("cat", "dog", "cow")


def exported(folder: Path, channels: int) -> Path:
    """Return a TFLite model, exported with its card."""
    spec = NetworkSpec(4, 3, (8, 10), channels, classes=len(NAMES))
    steps = Preprocessing.of((0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.4)[:channels], spec.resolution)
    network = seeded(lambda: Network(spec, resolve_genotype("CARS_A"), auxiliary=False), "android")
    Model.of(network, steps, NAMES).export(folder / "net.tflite")
    return folder / "net.tflite"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("android"), 3)


def photo(path: Path) -> Path:
    """Write a photo that is larger than the input in one direction, and smaller in the other."""
    pixels = np.random.default_rng(0).integers(0, 256, (21, 7, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_the_page_shows_the_file() -> None:
    (shown,) = re.findall(r"^```kotlin\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert shown == CODE, "copy examples/android/Classifier.kt to docs/how-to/run-on-android.md"


def test_what_it_requires_and_reads_is_in_the_card_of_a_model(model: Path) -> None:
    card = json.loads(card_path(model).read_text(encoding="utf-8"))
    steps = card["preprocessing"]
    found = re.findall(r'require\((\w+)\.getString\("(\w+)"\) == "([^"]*)"\)', CODE)
    assert {name for _, name, _ in found} == {"precision", "output", "layout", "formula"}
    for holder, name, value in found:
        assert {"card": card, "steps": steps}[holder][name] == value
    assert 'steps.getJSONObject("resizing").getString("filter") == "bilinear"' in CODE
    assert steps["resizing"]["filter"] == Resizing().filter == "bilinear"
    for holder, name in re.findall(r'\b(card|steps)\.get\w+\("(\w+)"\)', CODE):
        assert name in {"card": card, "steps": steps}[holder]
    assert steps["resolution"] == [8, 10]
    assert 'private val height = steps.getJSONArray("resolution").getInt(0)' in CODE


def test_its_arithmetic_is_that_of_the_card_and_of_pillow() -> None:
    expression = "(planes[channel][place] * scale - mean[channel]) / std[channel]"
    assert f"input.putFloat({expression})" in CODE
    plain = expression.replace("planes[channel][place]", "pixel").replace("[channel]", "")
    assert plain == FORMULA
    # Rows, then columns, then channels: the channels are last.
    assert re.search(r"for \(place in 0 until height \* width\) \{\s+for \(channel in 0 until channels\) \{", CODE)
    (luma,) = re.findall(r"return \(red \* (\d+) \+ green \* (\d+) \+ blue \* (\d+) \+ 0x8000\) shr 16", CODE)
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    grey = (pixels.astype(np.int64) @ np.array([int(weight) for weight in luma]) + 0x8000) >> 16
    assert np.array_equal(grey, np.asarray(Image.fromarray(pixels).convert("L")))


def test_the_input_of_an_exported_model_is_what_it_writes(model: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(model))
    ((source,), (target,)) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (source["dtype"], source["shape"].tolist()) == (np.float32, [1, 8, 10, 3])
    assert (target["dtype"], target["shape"].tolist()) == (np.float32, [1, len(NAMES)])


@pytest.mark.skipif(shutil.which("kotlinc") is None, reason="kotlinc, the compiler of Kotlin, is not installed")
@pytest.mark.parametrize("channels", [3, 1])
def test_the_class_writes_the_input_that_the_card_describes(channels: int, tmp_path: Path) -> None:
    model, image = exported(tmp_path, channels), photo(tmp_path / "photo.png")
    program = tmp_path / "program.jar"
    subprocess.run(["kotlinc", SNIPPET, *STUBS, "-include-runtime", "-d", program], check=True)
    said = subprocess.run(
        ["java", "-cp", program, "MainKt", tmp_path, model.name, image],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    ).stdout.splitlines()
    assert said[0].split("\t") == list(NAMES)
    powers = np.exp([0.0, 1.0, 2.0])
    assert np.allclose([float(one) for one in said[1].split("\t")], powers / powers.sum(), atol=1e-6)
    assert (tmp_path / "model.txt").read_text() == str(model.stat().st_size)
    written = np.fromfile(tmp_path / "input.bin", np.float32)
    steps = ModelCard.read(card_path(model)).preprocessing
    assert steps.decoding is not None
    expected = prepare(read_by(image, steps.decoding, steps.resizing, steps.resolution), steps).ravel()
    # One level of 255: Pillow rounds sums in fixed point, and some versions resize in the other direction first.
    assert np.abs(written - expected).max() <= 1.01 / 255 / min(steps.std)
    assert np.mean(written == expected) > 0.75
