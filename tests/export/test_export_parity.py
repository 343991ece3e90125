"""The gate: a model that does not compute what the network does is not delivered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from cars_hw.devices.host import ort_runtime
from cars_hw.errors import ExportError, InputError
from cars_hw.export import export
from cars_hw.export.card import CardLatency, Figures, ModelCard, Preprocessing, card_path
from cars_hw.export.lower import lower_network
from cars_hw.export.onnx import ONNX, OnnxFormat
from cars_hw.export.onnx_writer import onnx_bytes
from cars_hw.export.parity import PARITY_BOUND, check_parity
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.zoo import zoo

onnxruntime = ort_runtime.load()

Season = Callable[[nn.Module, Tensor], nn.Module]

SPEC = NETWORKS["quick"]
PREPROCESSING = Preprocessing.of(mean=(0.3,), std=(0.25,), resolution=(28, 28))
NAMES = [f"class {number}" for number in range(10)]


def network(spec: NetworkSpec = SPEC) -> Network:
    torch.manual_seed(0)
    return Network(spec, zoo()["CARS_A"].genotype)


def tamper(model: bytes, part: str) -> bytes:
    """Return the model with one number changed by a hundredth of the largest, in the initializer ``part``."""
    proto = onnx.load_from_string(model)
    tensor = next(tensor for tensor in proto.graph.initializer if part in tensor.name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1e-2 * np.abs(values).max()
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return proto.SerializeToString()


def test_a_faithful_model_passes_and_the_network_is_left_alone(tmp_path: Path, seasoned: Season) -> None:
    path = tmp_path / "net.onnx"
    trained = seasoned(network(), torch.randn(8, *SPEC.input_shape)).train()
    assert isinstance(trained, Network)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    path.write_bytes(ONNX.write(lower_network(trained)))
    error = check_parity(trained, path, ONNX)
    assert 0 < error <= PARITY_BOUND
    assert error == check_parity(trained, path, ONNX)
    assert check_parity(trained, path, ONNX, torch.rand(1, *SPEC.input_shape)) <= PARITY_BOUND
    assert all(module.training for module in trained.modules())
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("part", ["stem/conv/weight", "cells.0/preprocess_1", "cells.2/node3", "logits/bias"])
def test_one_changed_weight_is_found(part: str, tmp_path: Path, seasoned: Season) -> None:
    path = tmp_path / "net.onnx"
    trained = seasoned(network(), torch.randn(8, *SPEC.input_shape))
    assert isinstance(trained, Network)
    path.write_bytes(tamper(onnx_bytes(lower_network(trained)), part))
    with pytest.raises(ExportError, match=r"off by \d\.\de-0\d, allowed is 1e-05"):
        check_parity(trained, path, ONNX)


def test_a_change_that_never_reaches_the_logits_is_found(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    deep = network(NetworkSpec(channels=4, layers=20, resolution=(8, 8)))
    path.write_bytes(tamper(onnx_bytes(lower_network(deep)), "cells.2/"))
    image = torch.randn(1, 3, 8, 8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = deep.eval()(image).numpy()
    assert np.abs(session.run(None, {"image": image.numpy()})[0] - expected).max() < 1e-6 * np.abs(expected).max()
    with pytest.raises(ExportError, match=r"at cells\.2"):
        check_parity(deep, path, ONNX)


def test_a_badly_conditioned_network_may_be_off_as_far_as_float32_is(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    cancelling = network().eval()
    image = torch.randn(1, *SPEC.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cancelling.classifier.bias.zero_()
        cancelling.classifier.bias -= (1 - 1e-5) * cancelling(image)[0]
    model = onnx_bytes(lower_network(cancelling))
    path.write_bytes(model)
    assert PARITY_BOUND < check_parity(cancelling, path, ONNX, image) < 1
    path.write_bytes(tamper(model, "cells.2/"))
    with pytest.raises(ExportError, match="off by"):
        check_parity(cancelling, path, ONNX, image)


def test_an_overflow_is_not_parity(tmp_path: Path) -> None:
    large = network()
    with torch.no_grad():
        large.classifier.weight.fill_(3e38)
    (tmp_path / "net.onnx").write_bytes(ONNX.write(lower_network(large)))
    with pytest.raises(ExportError, match="at logits it is off by"):
        check_parity(large, tmp_path / "net.onnx", ONNX)


def test_nan_is_not_parity(tmp_path: Path) -> None:
    broken = network()
    with torch.no_grad():
        broken.classifier.bias[0] = float("nan")
    (tmp_path / "net.onnx").write_bytes(ONNX.write(lower_network(broken)))
    with pytest.raises(ExportError, match="at logits it is off by nan"):
        check_parity(broken, tmp_path / "net.onnx", ONNX)


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(ONNX.write(lower_network(network(SPEC.with_changes(classes=7)))))
    with pytest.raises(ExportError, match="have shape"):
        check_parity(network(), tmp_path / "net.onnx", ONNX)


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_no_model_is_an_export_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match="cannot run"):
        check_parity(network(), path, ONNX)


@pytest.mark.parametrize("shape", [(1, 3, 28, 28), (1, 28, 28), (0, 1, 28, 28)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(N, 1, 28, 28\) are needed"):
        check_parity(network(), tmp_path / "net.onnx", ONNX, torch.zeros(shape))


@pytest.mark.parametrize("dynamic", [False, True])
def test_export_puts_model_and_card_in_place(dynamic: bool, tmp_path: Path) -> None:
    path = tmp_path / "models" / "net.onnx"
    latency = CardLatency("ort", 1, "quiet", 1.5, 1.75, 0.95)
    card = export.export_model(
        network(),
        path,
        "onnx",
        preprocessing=PREPROCESSING,
        class_names=NAMES,
        figures=Figures(0.9, 500, (latency,)),
        dynamic_batch=dynamic,
    )
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["net.onnx", "net.onnx.json"]
    assert ModelCard.read(card_path(path)) == card
    assert (card.accuracy, card.test_images, card.latencies) == (0.9, 500, (latency,))
    assert card.versions["onnxruntime"] == onnxruntime.__version__
    assert check_parity(network(), path, ONNX) == card.parity
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert sorted(session.get_modelmeta().custom_metadata_map) == [
        "class_names",
        "genotype",
        "network",
        "preprocessing",
    ]


def export_tampered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(OnnxFormat, "write", lambda _self, graph, **_options: tamper(onnx_bytes(graph), "cells.1/"))
        with pytest.raises(ExportError, match="off by"):
            export.export_model(network(), path, "onnx", preprocessing=PREPROCESSING, class_names=NAMES)


def test_a_model_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_tampered(tmp_path / "net.onnx", monkeypatch)
    assert not list(tmp_path.iterdir())


def test_a_model_that_fails_leaves_the_last_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    export.export_model(network(), path, "onnx", preprocessing=PREPROCESSING, class_names=NAMES)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    export_tampered(path, monkeypatch)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


def test_preprocessing_for_another_network_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the preprocessing makes images"):
        export.export_model(
            network(),
            tmp_path / "net.onnx",
            "onnx",
            preprocessing=replace(PREPROCESSING, resolution=(32, 32)),
            class_names=NAMES,
        )
    assert not list(tmp_path.iterdir())
