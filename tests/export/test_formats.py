"""The table of formats: what it loads, what it refuses, and that nothing else tells formats apart by name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cars_hw
from cars_hw.devices import FakeDevice, LitertDevice, OrtDevice, format_of
from cars_hw.errors import InputError
from cars_hw.export.export import export_genotype
from cars_hw.export.format import ExportFormat
from cars_hw.export.formats import FORMATS, export_format, export_formats, format_of_file
from cars_hw.export.graph import Graph, Relu, identity_graph
from cars_hw.export.write import write_graph
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import zoo

PACKAGE = Path(cars_hw.__file__).parent
OWN = ("export/onnx.py", "export/onnx_writer.py", "export/tflite.py", "export/tflite_writer.py")
LIBRARIES = "cli/extras.py"
"""Names libraries, of which one is called as its format is."""
LITERALS = {*FORMATS, *(one.suffix for one in FORMATS.values())}
SPEC = NetworkSpec(4, 3, (8, 8), 3, classes=3)


def literals(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and value of the format names in ``file``, but for the ``model_format`` that a class declares."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    declared = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "model_format"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in declared and node.value in LITERALS:
            yield node.lineno, node.value


def test_only_the_formats_themselves_and_the_devices_that_declare_one_name_a_format() -> None:
    assert set(OWN) <= {file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py")}
    found = [
        f"{file.relative_to(PACKAGE)}:{line}: {value}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.relative_to(PACKAGE).as_posix() not in (*OWN, LIBRARIES)
        for line, value in literals(file)
    ]
    assert found == []


def test_the_search_for_literals_finds_every_way_to_branch(tmp_path: Path) -> None:
    file = tmp_path / "branches.py"
    file.write_text(
        'class Device:\n    model_format: str = "onnx"\n\n'
        'if kind == "onnx" or path.suffix == ".tflite":\n    pass\n'
        'match kind:\n    case "tflite":\n        pass\n'
        'table = {"onnx": 1}\n'
    )
    assert [line for line, _ in sorted(literals(file))] == [4, 4, 7, 9]


def test_the_table_loads_neither_torch_nor_a_library_of_a_format() -> None:
    heavy = {"torch", "numpy", "onnx", "onnxruntime", "ai_edge_litert", "litert_quantizer", "flatbuffers"}
    code = f"import sys, cars_hw.export.formats; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_unknown_formats_are_refused_with_the_known_ones() -> None:
    known = "known: " + ", ".join(FORMATS)
    with pytest.raises(InputError, match=f"unknown format 'caffe'; {known}"):
        export_format("caffe")
    with pytest.raises(InputError, match=f"unknown format 'caffe'; {known}"):
        export_formats(["onnx", "caffe"])
    with pytest.raises(InputError, match=f"no format is named; {known}"):
        export_formats([])
    with pytest.raises(InputError, match=r"net\.caffe is no model file .*known: \.onnx, \.tflite"):
        format_of_file(Path("net.caffe"))
    assert [one.name for one in export_formats(["tflite", "onnx", "tflite"])] == ["tflite", "onnx"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_known_by_its_name_and_by_its_files(name: str) -> None:
    one = export_format(name)
    assert one.name == name
    assert format_of_file(Path(f"some.net{one.suffix}")) is one
    assert one.image_shape(Shape(3, 4, 5)) == {"NCHW": (1, 3, 4, 5), "NHWC": (1, 4, 5, 3)}[one.layout]


@pytest.mark.parametrize("name", FORMATS)
def test_a_precision_that_a_format_lacks_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{name} models have no precision 'fp16'; known: fp32, int8"):
        write_graph(identity_graph(Shape(1, 2, 2)), tmp_path / "net", name, "fp16")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_every_format_declares_a_dynamic_batch_where_one_is_wanted(tmp_path: Path) -> None:
    genotype = zoo()["CARS_A"].genotype
    fixed, free = (
        export_genotype(genotype, SPEC, tmp_path / str(dynamic), name="net", dynamic_batch=dynamic)
        for dynamic in (False, True)
    )
    for one, other in zip(fixed, free, strict=True):
        assert one.path.read_bytes() != other.path.read_bytes()
        assert one.card.parity == other.card.parity


@pytest.mark.parametrize("one", FORMATS.values(), ids=FORMATS)
def test_values_are_the_outputs_and_what_is_wanted_as_torch_lays_it_out(tmp_path: Path, one: ExportFormat) -> None:
    shape = Shape(2, 3, 4)
    layers = tuple(
        Relu(output=name, inputs=(source,), shape=shape)
        for source, name in (("input", "first"), ("first", "second"))
    )
    (tmp_path / "net").write_bytes(one.write(Graph((("input", shape),), layers, ("second",))))
    images = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    found = one.values(tmp_path / "net", images, lambda name: name == "first")
    assert sorted(found) == ["first", "second"]
    for value in found.values():
        np.testing.assert_array_equal(value, np.maximum(images, 0))


def without(modules: set[str], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a process in which ``modules`` cannot be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({sorted(modules)}))"
    command = [sys.executable, "-c", f"{block}; {code}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_is_classified_without_torch_and_with_one_runtime(name: str, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    (exported,) = export_genotype(
        zoo()["CARS_A"].genotype,
        SPEC,
        tmp_path,
        name="net",
        formats=[name],
        progress=lambda *step: steps.append(step),
    )
    assert steps == [("exporting", 0, 1), ("exporting", 1, 1)]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    # LiteRT's runtime is ai_edge_litert.interpreter; ONNX files need no onnx package to be run.
    others = {"onnx": {"ai_edge_litert", "onnx"}, "tflite": {"onnxruntime", "onnx"}}[name]
    heavy = {"torch", "torchvision", "scipy", "sklearn", "litert_quantizer"}
    code = (
        "from pathlib import Path; from cars_hw.export.classify import classify; "
        "print(sum(guess.probability for guess in classify(Path(sys.argv[1]), Path(sys.argv[2]))))"
    )
    done = without(heavy | others, code, str(exported.path), str(tmp_path / "a.png"))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1, abs=1e-5)


def test_every_device_declares_a_format_of_the_table() -> None:
    assert {kind: format_of(kind) for kind in ("ort", "litert", "fake:3", "android:R58M", "mine")} == {
        "ort": "onnx",
        "litert": "tflite",
        "fake:3": "onnx",
        "android:R58M": "tflite",
        "mine": None,
    }
    assert {OrtDevice.model_format, LitertDevice.model_format, FakeDevice.model_format} <= FORMATS.keys()
