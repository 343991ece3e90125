"""What docs/how-to/use-other-formats.md shows runs: a model goes to other tools, where they are installed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from long_runs import amount

from cars_hw.export.card import Preprocessing
from cars_hw.export.model import Model
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import resolve_genotype

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "how-to" / "use-other-formats.md"
SPEC = NetworkSpec(4, 3, (16, 16), 3, classes=3)

BLOCKS = {
    found["name"]: found["code"]
    for found in re.finditer(
        r"^## (?P<name>[^\n]+)\n(?:(?!^## ).)*?^```text\n(?P<code>.*?)^```$",
        PAGE.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
}

pytestmark = [
    pytest.mark.skipif(not amount(0, 1), reason="long: run with --long"),
    # The converters warn of much that is their own.
    pytest.mark.filterwarnings("default"),
]


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("torch.export", "torch"),
        ("ExecuTorch", "executorch"),
        ("OpenVINO", "openvino"),
        ("Core ML", "coremltools"),
    ],
)
def test_the_code_of_the_page_runs(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    network = seeded(lambda: Network(SPEC, resolve_genotype("CARS_A"), auxiliary=False), "other formats")
    model = Model.of(network, Preprocessing.of((0.4,) * 3, (0.2,) * 3, SPEC.resolution), ("a", "b", "c"))
    model.save(tmp_path / "net-01.safetensors")
    model.export(tmp_path / "net-01.onnx")
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    exec(compile(BLOCKS["torch.export"], str(PAGE), "exec"), space)
    if name != "torch.export":
        exec(compile(BLOCKS[name], str(PAGE), "exec"), space)
    image = space["image"]
    assert isinstance(image, torch.Tensor)
    with torch.no_grad():
        expected = model(image).numpy()
    if "logits" in space:
        found = np.asarray(space["logits"]).reshape(expected.shape)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    else:
        assert package == "coremltools"
        assert importlib.import_module(package).models.MLModel is not None
        assert (tmp_path / "net-01.mlpackage" / "Manifest.json").is_file()
