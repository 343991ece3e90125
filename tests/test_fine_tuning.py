"""The example of a fine-tuning: from the file alone to a model of other classes, here and elsewhere."""

from __future__ import annotations

import runpy
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from long_runs import amount
from PIL import Image

from cars_hw.export.card import Preprocessing, verified_card
from cars_hw.export.classify import Classifier
from cars_hw.export.model import Model, load_model
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import resolve_genotype

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "fine_tune.py"
SPEC = NetworkSpec(4, 3, (8, 8), 3, classes=5)
STEPS = Preprocessing.of((0.3, 0.3, 0.3), (0.5, 0.5, 0.5), SPEC.resolution)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in one file, and with images of two other classes of another size."""
    folder = tmp_path_factory.mktemp("given")
    network = seeded(lambda: Network(SPEC, resolve_genotype("CARS_A"), auxiliary=False), "given")
    Model.of(network, STEPS, tuple("abcde")).save(folder / "net-01.safetensors")
    rng = np.random.default_rng(0)
    for name, shade in (("dark", 30), ("light", 220)):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(24):
            pixels = rng.integers(shade - 30, shade + 30, (12, 10, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
    return folder


def require_tuned(given: Path, out: Path) -> None:
    """Check what the example wrote."""
    assert sorted(path.name for path in out.iterdir()) == [
        *("tuned.onnx", "tuned.onnx.json", "tuned.safetensors", "tuned.tflite", "tuned.tflite.json"),
    ]
    tuned, before = load_model(out / "tuned.safetensors"), load_model(given / "net-01.safetensors")
    assert tuned.card.class_names == ("dark", "light")
    assert tuned.card.preprocessing == before.card.preprocessing
    assert tuned.card.test_images == 8
    # Two shades are told apart, also by the exported files.
    assert tuned.card.accuracy == 1
    image = given / "images" / "light" / "3.png"
    with torch.no_grad():
        logits = tuned(tuned.read(image))[0].numpy()
    for suffix in ("onnx", "tflite"):
        assert verified_card(out / f"tuned.{suffix}").accuracy == 1
        assert np.allclose(Classifier(out / f"tuned.{suffix}").output(image), logits, rtol=1e-4, atol=1e-5)
    # The second part of the training trained more than the classifier.
    assert not torch.equal(next(tuned.parameters()), next(before.parameters()))


def test_the_example_runs(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = [given / "net-01.safetensors", given / "images", out, "--epochs", "3", "--batch-size", "8"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    require_tuned(given, out)


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_the_example_runs_in_a_fresh_environment_from_the_wheel(given: Path, tmp_path: Path) -> None:
    # It has this environment's libraries, whose installation needs a network, and the wheel in place of the source.
    environment = tmp_path / "environment"
    venv.create(environment)
    (packages,) = environment.glob("lib/python3*/site-packages")
    wheels = tmp_path / "wheels"
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, wheels], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = wheels.glob("cars_hw-*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(packages)
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "libraries.pth").write_text("\n".join(libraries) + "\n", encoding="utf-8")
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = elsewhere / "fine_tune.py"
    script.write_bytes(SCRIPT.read_bytes())
    where = "import cars_hw; print(cars_hw.__file__)"
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    python = environment / "bin" / "python"
    said = subprocess.run([python, "-c", where], cwd=elsewhere, env=clean, check=True, capture_output=True)
    assert str(packages) in said.stdout.decode()
    subprocess.run(
        [python, script, given / "net-01.safetensors", given / "images", out, "--epochs", "3", "--batch-size", "8"],
        cwd=elsewhere,
        env=clean,
        check=True,
    )
    require_tuned(given, out)
