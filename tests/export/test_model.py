"""A model in one file: read anywhere, verified, fine-tuned, exported, and as a folder for a model hub."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published_schemas import require_files
from safetensors.torch import load_file, save_file

from cars_hw.errors import InputError
from cars_hw.export.card import CardLatency, Figures, Preprocessing, verified_card
from cars_hw.export.classify import Classifier
from cars_hw.export.export import Exported
from cars_hw.export.hub import write_hub_folder
from cars_hw.export.model import METADATA, MODEL, Model, load_model
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import resolve_genotype

SPEC = NetworkSpec(4, 3, (8, 8), 3, classes=3)
GENOTYPE = resolve_genotype("CARS_A")
STEPS = Preprocessing.of((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), (8, 8))
NAMES = ("cat", "dog", "cow: 'red'")

ABSENT = ("onnx", "onnxruntime", "ai_edge_litert", "sklearn", "scipy", "pymoo", "torchvision")

ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Only(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2:]:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Only())
import cars_hw
import torch
model = cars_hw.load_model(sys.argv[1])
print(model.card.class_names, model.training)
print(model(torch.arange(192.0).view(1, 3, 8, 8) / 192).tolist())
"""


@pytest.fixture
def model() -> Model:
    network = seeded(lambda: Network(SPEC, GENOTYPE, auxiliary=False), "weights of its own")
    return Model.of(network, STEPS, NAMES, Figures(0.75, 40, (CardLatency("ort", measured_ms=1.5),)))


def test_a_file_alone_is_the_model_in_another_process_without_the_runtimes(model: Model, tmp_path: Path) -> None:
    card = model.save(tmp_path / "net.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    assert card.accuracy == 0.75
    said = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / "net.safetensors", *ABSENT],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout.splitlines()
    assert said[0] == f"{NAMES!r} False"
    images = torch.arange(192.0).view(1, 3, 8, 8) / 192
    with torch.no_grad():
        assert torch.allclose(torch.tensor(json.loads(said[1])), model(images), rtol=0, atol=1e-6)


def test_the_same_model_is_the_same_file_and_has_no_auxiliary_head(model: Model, tmp_path: Path) -> None:
    for name in ("a", "b"):
        model.save(tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    trained = seeded(lambda: Network(replace(SPEC, resolution=(32, 32)), GENOTYPE, auxiliary=True), "x")
    with_head = Model.of(trained, replace(STEPS, resolution=(32, 32)), NAMES)
    with_head.save(tmp_path / "c.safetensors")
    assert not [name for name in load_file(tmp_path / "c.safetensors") if name.startswith("auxiliary")]
    loaded = load_model(tmp_path / "c.safetensors")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(images), trained.eval()(images))


def test_a_changed_bit_is_noticed_wherever_it_is(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    model.save(path)
    content = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(content), 40):
        damaged = bytearray(content)
        damaged[place] ^= 4
        path.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=r"net\.safetensors"):
            load_model(path)
    path.write_bytes(content[:-7])
    with pytest.raises(InputError, match="cannot read"):
        load_model(path)


def test_other_files_are_refused_by_what_they_are(model: Model, tmp_path: Path) -> None:
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    plain, newer, other = (tmp_path / f"{name}.safetensors" for name in ("plain", "newer", "other"))
    save_file(weights, plain)
    with pytest.raises(InputError, match="no card of cars-hw"):
        load_model(plain)
    save_file(weights, newer, {METADATA: '{"format": "cars-hw model", "version": 2}'})
    with pytest.raises(InputError, match="newer cars-hw"):
        load_model(newer)
    del weights["classifier.bias"]
    text = model.save(other).digest and MODEL.text({})
    save_file(weights, other, {METADATA: text})
    with pytest.raises(InputError, match=r"other\.safetensors is damaged"):
        load_model(other)
    with pytest.raises(InputError, match=r"cannot read .*gone"):
        load_model(tmp_path / "gone.safetensors")
    with pytest.raises(InputError, match=r"there is no model\.safetensors in"):
        load_model(tmp_path)
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        model.save(tmp_path / "net.pt")


def test_the_classifier_is_replaced_and_everything_else_stays(model: Model, tmp_path: Path) -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        features = model.features(images)
        assert features.shape == (2, model.classifier.in_features)
        assert torch.equal(model.classifier(features), model(images))
        model.reset_classifier(["left", "right"])
        assert torch.equal(model.features(images), features)
        assert model(images).shape == (2, 2)
    now = model.state_dict()
    changed = {
        name for name in before if now[name].shape != before[name].shape or (now[name] != before[name]).any()
    }
    assert changed == {"classifier.weight", "classifier.bias"}
    assert (model.card.class_names, model.card.accuracy, model.card.latencies) == (("left", "right"), None, ())
    assert model.save(tmp_path / "two.safetensors").network.classes == 2
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "two.safetensors")(images), model(images))
    model.reset_classifier(5)
    assert model.card.class_names == ("0", "1", "2", "3", "4")
    with pytest.raises(InputError, match="classes"):
        model.reset_classifier(["alone"])


@pytest.mark.parametrize("end", ["onnx", "tflite"])
def test_a_loaded_model_is_exported_and_classifies_the_same(model: Model, tmp_path: Path, end: str) -> None:
    model.save(tmp_path / "net.safetensors")
    loaded = load_model(tmp_path / "net.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (11, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    loaded.export(tmp_path / f"net.{end}")
    found = Classifier(tmp_path / f"net.{end}").output(tmp_path / "image.png")
    with torch.no_grad():
        logits = loaded(loaded.read(tmp_path / "image.png", tmp_path / "image.png"))
    assert logits.shape == (2, 3)
    assert np.allclose(found, logits[1].numpy(), rtol=1e-4, atol=1e-5)
    card = verified_card(tmp_path / f"net.{end}")
    assert (card.class_names, card.accuracy) == (NAMES, 0.75)


PLAIN = {
    *("aten::_convolution", "aten::batch_norm", "aten::relu", "aten::relu_", "aten::avg_pool2d", "aten::cat"),
    *("aten::max_pool2d", "aten::add", "aten::mean", "aten::linear", "aten::slice", "aten::pad"),
    *("prim::Constant", "prim::GetAttr", "prim::ListConstruct"),
}
"""The operations of a network: what the exporters of other tools have to know."""


# PyTorch calls traces deprecated; converters use them all the same.
@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning"
)
@pytest.mark.parametrize("name", ["CARS_A", "DARTS_V2"])
def test_other_exporters_see_the_plain_operations_also_with_gradients(name: str) -> None:
    network = seeded(lambda: Network(SPEC, resolve_genotype(name), auxiliary=False), "traced").eval()
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.is_grad_enabled()
    traced = torch.jit.trace(network, images, check_trace=False)
    # A function of this package would be a prim::PythonOp.
    found = {node.kind() for node in traced.inlined_graph.nodes()}
    assert found <= PLAIN, found - PLAIN
    with torch.no_grad():
        assert torch.allclose(traced(images), network(images), rtol=1e-5, atol=1e-6)


def test_a_folder_for_a_hub(model: Model, tmp_path: Path) -> None:
    card = model.export(tmp_path / "net-01.onnx").with_latency(CardLatency("ort", predicted_ms=2.0))
    exported = Exported("net-01", tmp_path / "net-01.onnx", card)
    folder = write_hub_folder(model, tmp_path / "hub", name="net-01: mine", data="pets", exported=[exported])
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.onnx",
        "model.onnx.json",
        "model.safetensors",
    ]
    verified_card(folder / "model.onnx")
    assert require_files(folder) == {"card", "model"}
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(load_model(folder)(images), model(images))
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    metadata = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in front.splitlines())}
    assert metadata["library_name"] == "cars-hw"
    assert metadata["tags"][-1] == "onnx"
    (result,) = metadata["model-index"][0]["results"]
    assert (result["dataset"]["name"], result["metrics"]) == ("pets", [{"type": "accuracy", "value": 0.75}])
    assert "| accuracy (95% interval), on 40 test images | 75.0% (59.8 to 85.8) |" in text
    assert "| latency of `model.onnx` on ort, 1 thread, quiet state, predicted | 2.00 ms |" in text
    # A folder is written again, and its parts belong together.
    write_hub_folder(model, folder, name="net-01")
    # Files of the earlier call had other weights.
    assert sorted(path.name for path in folder.glob("model.*")) == ["model.safetensors"]
    model.reset_classifier(2)
    model.save(folder / "model.safetensors")
    with pytest.raises(InputError, match=r"config\.json does not describe"):
        load_model(folder)
    (folder / "thesis.pdf").touch()
    with pytest.raises(InputError, match=r"other files, such as thesis\.pdf"):
        write_hub_folder(model, folder, name="net-01")
