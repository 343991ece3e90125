"""int8: the quantised files compute about what the float files do, and say what they are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from genotypes import EVERY_OPERATION
from onnx import numpy_helper
from torch import Tensor, nn

from cars_hw.config.measurement import Int8Scheme
from cars_hw.errors import ExportError, InputError
from cars_hw.export import export
from cars_hw.export.card import CardLatency, Figures, ModelCard, Preprocessing, card_path
from cars_hw.export.classify import open_model
from cars_hw.export.export import export_int8, export_model
from cars_hw.export.format import ExportFormat
from cars_hw.export.formats import FORMATS
from cars_hw.export.int8_refinement import refine
from cars_hw.export.lower import lower_module, lower_network
from cars_hw.export.onnx import ONNX
from cars_hw.export.onnx_writer import OPSET
from cars_hw.export.quantize import quantize
from cars_hw.export.tflite import TFLITE
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.layers import Normalization
from cars_hw.nn.network import Network
from cars_hw.nn.operations import make_operation
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.operations import OPERATIONS
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import zoo

Season = Callable[[nn.Module, Tensor], nn.Module]

SPEC = NetworkSpec(4, 3, (12, 16), 3, classes=4)
NAMES = ["a", "b", "c", "d"]
WAYS = [*product(FORMATS.values(), get_args(Int8Scheme))]


@pytest.mark.parametrize(("export_format", "scheme"), WAYS, ids=lambda part: getattr(part, "name", part))
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "none"])
def test_every_operation_in_int8_is_about_right(
    name: str, export_format: ExportFormat, scheme: Int8Scheme, seasoned: Season, tmp_path: Path
) -> None:
    images = torch.randn(6, 8, 9, 8, generator=torch.Generator().manual_seed(0))
    for stride in (1, 2):
        module = seasoned(make_operation(name, 8, stride, Normalization()), images)
        error = int8_error(module, images, export_format, scheme, tmp_path)
        # What needs no arithmetic may be left in float by the library.
        assert (0.001 if "conv" in name else 0.0) <= error < 0.08


def int8_error(
    module: nn.Module, images: Tensor, export_format: ExportFormat, scheme: Int8Scheme, folder: Path
) -> float:
    """Return how far the outputs in int8 are from those in float, relative to these."""
    graph = lower_module(module, Shape(*images.shape[1:]))
    batches = [
        (image if export_format.layout == "NCHW" else image.permute(1, 2, 0)).numpy()[None].copy()
        for image in images
    ]
    model = export_format.write(graph)
    for file, content in (
        ("float", model),
        ("int8", quantize(model, export_format, [{"input": batch} for batch in batches], scheme=scheme)),
    ):
        (folder / file).write_bytes(content)
    exact, rough = (
        np.concatenate([*map(open_model(folder / file, export_format), batches)]) for file in ("float", "int8")
    )
    return float(np.linalg.norm(rough - exact) / np.linalg.norm(exact))


@pytest.fixture(scope="module")
def pixels() -> npt.NDArray[np.uint8]:
    """Images of four classes: a bright quarter each, in noise."""
    rng = np.random.default_rng(0)
    found = rng.integers(0, 80, (120, 12, 16, 3), dtype=np.uint8)
    for number in range(120):
        quarter = number % 4
        found[number, 6 * (quarter // 2) : 6 + 6 * (quarter // 2), 8 * (quarter % 2) : 8 + 8 * (quarter % 2)] += 150
    return found


@pytest.fixture(scope="module")
def network(pixels: npt.NDArray[np.uint8]) -> Network:
    """A network that has learned them."""
    torch.manual_seed(0)
    made = Network(SPEC, zoo()["CARS_A"].genotype)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    labels = torch.arange(120) % 4
    optimizer = torch.optim.SGD(made.parameters(), lr=0.05, momentum=0.9)
    for norm in (layer for layer in made.modules() if isinstance(layer, nn.BatchNorm2d)):
        # Averages over all steps' batches, which are all images, settle sooner than moving ones.
        norm.momentum = 0.3
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made.train()((images - 0.5) / 0.5), labels).backward()
        optimizer.step()
    return made.eval()


@pytest.fixture(params=FORMATS)
def exported(request: pytest.FixtureRequest, network: Network, tmp_path: Path) -> Path:
    export_format = FORMATS[request.param]
    path = tmp_path / f"net{export_format.suffix}"
    preprocessing = Preprocessing.of((0.5,) * 3, (0.5,) * 3, (12, 16))
    export_model(
        network,
        path,
        export_format.name,
        preprocessing=preprocessing,
        class_names=NAMES,
        figures=Figures(latencies=(CardLatency("ort", measured_ms=1.0),)),
    )
    return path


@pytest.mark.parametrize("scheme", get_args(Int8Scheme))
def test_a_trained_network_keeps_its_accuracy_and_gets_smaller(
    exported: Path, scheme: Int8Scheme, pixels: npt.NDArray[np.uint8]
) -> None:
    path = exported.with_name(f"net.int8{exported.suffix}")
    labels = np.arange(120) % 4
    latency = CardLatency("ort", 1, "quiet", 2.0, 2.5, 0.95)
    card = export_int8(
        exported,
        path,
        calibration=pixels[:40],
        images=pixels,
        labels=labels,
        scheme=scheme,
        figures=Figures(latencies=(latency,)),
    )
    assert ModelCard.read(card_path(path)) == card
    assert (card.precision, card.int8) == ("int8", scheme)
    assert card.accuracy is not None
    assert card.accuracy > 0.95
    assert card.test_images == 120
    assert 0 < card.parity < 0.05
    # What was measured of the float model says nothing of this one.
    assert card.latencies == (latency,)
    assert "litert-quantizer" in card.versions
    assert path.read_bytes() != exported.read_bytes()


def test_a_model_that_is_too_far_off_leaves_no_file(
    exported: Path, pixels: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported.with_name(f"net.int8{exported.suffix}")
    before = sorted(exported.parent.iterdir())
    monkeypatch.setattr(export, "INT8_BOUND", 1e-6)
    with pytest.raises(ExportError, match=r"net\.int8.*off by .*keep the float model"):
        export_int8(exported, path, calibration=pixels[:4], images=pixels[:8], labels=np.arange(8) % 4)
    assert sorted(exported.parent.iterdir()) == before


@pytest.fixture(scope="module")
def calibrated() -> dict[str, tuple[bytes, list[dict[str, npt.NDArray[np.float32]]]]]:
    """The float models of a network with every operation, and images of noise that are not around zero."""
    network = seeded(lambda: Network(NetworkSpec(4, 3, (9, 12), classes=4), EVERY_OPERATION), "symmetric")
    graph = lower_network(network)
    images = torch.randn(4, 3, 9, 12, generator=torch.Generator().manual_seed(0)).add(0.7)
    return {
        name: (
            one.write(graph),
            [
                {"image": (image if one.layout == "NCHW" else image.permute(1, 2, 0)).numpy()[None].copy()}
                for image in images
            ],
        )
        for name, one in FORMATS.items()
    }


@pytest.mark.parametrize("refined", [False, True], ids=["plain", "refined"])
@pytest.mark.parametrize("scheme", get_args(Int8Scheme))
def test_zero_points_of_onnx(
    scheme: Int8Scheme,
    refined: bool,
    calibrated: dict[str, tuple[bytes, list[dict[str, npt.NDArray[np.float32]]]]],
) -> None:
    model, feeds = calibrated["onnx"]
    made = refine(model, ONNX, feeds, scheme) if refined else quantize(model, ONNX, feeds, scheme=scheme)
    graph = onnx.load_from_string(made).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    points = [constants[node.input[2]] for node in graph.node if "QuantizeLinear" in node.op_type]
    assert len(points) > 80
    if scheme == "symmetric":
        assert {point.dtype for point in points} == {np.dtype(np.int8)}
        assert not any(point.any() for point in points)
    else:
        assert {point.dtype for point in points} == {np.dtype(np.uint8)}
        assert sum(bool(point.any()) for point in points) > 30
    # TensorRT refuses biases that are not float.
    weighted = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    biases = [constants.get(node.input[2]) for node in weighted if len(node.input) > 2]
    assert len(biases) > 20
    assert all((bias is not None and bias.dtype == np.float32) is (scheme == "symmetric") for bias in biases)
    for node in graph.node:
        known = set(onnx.defs.get_schema(node.op_type, OPSET).attributes) - {"end"}
        assert {attribute.name for attribute in node.attribute} == known


@pytest.mark.parametrize("scheme", get_args(Int8Scheme))
def test_zero_points_of_tflite(
    scheme: Int8Scheme, calibrated: dict[str, tuple[bytes, list[dict[str, npt.NDArray[np.float32]]]]]
) -> None:
    model, feeds = calibrated["tflite"]
    tensors = schema.ModelT.InitFromPackedBuf(refine(model, TFLITE, feeds, scheme)).subgraphs[0].tensors
    bytes_ = [tensor for tensor in tensors if tensor.type == schema.TensorType.INT8]
    assert len(bytes_) > 100
    moved = [tensor.name for tensor in bytes_ if np.any(tensor.quantization.zeroPoint)]
    assert (len(moved) > 50) is (scheme == "asymmetric")
    assert not any(name.endswith(b"/weight") for name in moved)
    if scheme == "symmetric":
        assert moved == []


def test_what_cannot_be_quantised_is_an_error_in_one_line(tmp_path: Path) -> None:
    for export_format in FORMATS.values():
        with pytest.raises(ExportError, match="cannot be quantised") as raised:
            quantize(b"no model", export_format, [{"image": np.zeros((1, 4, 4, 3), np.float32)}])
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"cannot read .*\.json: No such file"):
        export_int8(
            tmp_path / "nothing.onnx",
            tmp_path / "int8.onnx",
            calibration=np.zeros((1, 4, 4, 3), np.uint8),
            images=np.zeros((1, 4, 4, 3), np.uint8),
            labels=np.zeros(1, np.int64),
        )
