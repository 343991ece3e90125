"""The metadata of TFLite files, read as the schema ``metadata_schema.fbs`` says, and the names of the classes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from file_counts import Counts, count_tflite
from flatbuffers.number_types import Float32Flags, Uint8Flags
from flatbuffers.table import Table
from genotypes import EVERY_OPERATION

from cars_hw.devices.host.litert_runtime import interpreter
from cars_hw.export.card import verified_card
from cars_hw.export.export import export_genotype
from cars_hw.export.format import Usage
from cars_hw.export.lower import lower_network
from cars_hw.export.quantize import quantize
from cars_hw.export.tflite import TFLITE
from cars_hw.export.tflite_metadata import LABELS, METADATA, files_of, label_file, model_metadata, with_files
from cars_hw.nn.cost import network_cost
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec

COLOUR = Usage((0.5, 0.25, 0.2), (0.5, 0.25, 0.1), 1 / 255, ("cat", "dog", "ünï"))
SPEC = NetworkSpec(4, 3, (9, 12), classes=3)


class Read:
    """A table of a flatbuffer: fields by their number in the schema."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def _at(self, field: int) -> int:
        return int(self.table.Offset(4 + 2 * field))

    def text(self, field: int) -> str:
        return self.table.String(self._at(field) + self.table.Pos).decode()

    def byte(self, field: int) -> int:
        return int(self.table.Get(Uint8Flags, self._at(field) + self.table.Pos))

    def one(self, field: int) -> Read:
        return Read(Table(self.table.Bytes, self.table.Indirect(self._at(field) + self.table.Pos)))

    def many(self, field: int) -> list[Read]:
        start, count = self.table.Vector(self._at(field)), self.table.VectorLen(self._at(field))
        return [Read(Table(self.table.Bytes, self.table.Indirect(start + 4 * number))) for number in range(count)]

    def floats(self, field: int) -> list[float]:
        return list(self.table.GetVectorAsNumpy(Float32Flags, self._at(field)).tolist())

    def has(self, field: int) -> bool:
        return self._at(field) > 0


def root(metadata: bytes) -> Read:
    """Return the ModelMetadata of ``metadata``."""
    assert metadata[4:8] == b"M001"
    content = bytearray(metadata)
    return Read(Table(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0)))


def stored(model: bytes) -> dict[str, bytes]:
    found = schema.ModelT.InitFromPackedBuf(model)
    return {entry.name.decode(): bytes(found.buffers[entry.buffer].data) for entry in found.metadata}


@pytest.mark.parametrize(
    ("usage", "colours"),
    [
        (COLOUR, 1),
        (Usage((0.25,), (0.5,), 1 / 255, ("a", "b")), 2),
        (Usage((0.5,) * 3, (0.5,) * 3, 2.0, ("a",)), 1),
    ],
    ids=["colour", "grey", "scaled"],
)
def test_the_metadata_has_normalisation_and_labels(usage: Usage, colours: int) -> None:
    model = root(model_metadata(usage))
    assert (model.text(0), model.text(7)) == ("cars-hw", "1.0.0")
    (network,) = model.many(3)
    (image,), (logits,) = network.many(2), network.many(3)

    assert image.text(0) == "image"
    content = image.one(3)
    # ContentProperties: none, FeatureProperties, ImageProperties. ColorSpaceType: unknown, RGB, GRAYSCALE.
    assert (content.byte(0), content.one(1).byte(0)) == (2, colours)
    (unit,) = image.many(4)
    # ProcessUnitOptions: none, NormalizationOptions.
    assert unit.byte(0) == 1
    # The reader has pixels from 0 to 255: (pixel - mean) / std.
    mean, std = unit.one(1).floats(0), unit.one(1).floats(1)
    for pixel, bound in ((255, 0), (0, 1)):
        expected = (pixel * usage.scale - np.array(usage.mean)) / usage.std
        np.testing.assert_allclose((pixel - np.array(mean)) / std, expected, rtol=1e-6)
        np.testing.assert_allclose(image.one(5).floats(bound), expected, rtol=1e-6)

    assert logits.text(0) == "logits"
    assert "softmax" in logits.text(1)
    (labels,) = logits.many(6)
    # AssociatedFileType: unknown, descriptions, labels of a tensor's axis.
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)
    # No score is dropped or calibrated.
    assert not logits.has(4)


def test_pixels_of_the_usual_images() -> None:
    (network,) = root(model_metadata(COLOUR)).many(3)
    (unit,) = network.many(2)[0].many(4)
    assert unit.one(1).floats(0) == pytest.approx([127.5, 63.75, 51])
    assert unit.one(1).floats(1) == pytest.approx([127.5, 63.75, 25.5])


def written(usage: Usage | None = COLOUR) -> bytes:
    graph = lower_network(seeded(lambda: Network(SPEC, EVERY_OPERATION), "metadata"))
    return TFLITE.write(graph, metadata={"b": "text"}, usage=usage)


def test_a_model_is_a_zip_archive_with_the_class_names(tmp_path: Path) -> None:
    model = written()
    (tmp_path / "net.tflite").write_bytes(model)
    with zipfile.ZipFile(tmp_path / "net.tflite") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode() == "cat\ndog\nünï\n"
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED
    assert stored(model)["b"] == b"text"
    assert stored(model)[METADATA] == model_metadata(COLOUR)
    assert model == written()
    plain = written(None)
    assert stored(plain) == {"b": b"text"}
    assert not zipfile.is_zipfile(io.BytesIO(plain))
    assert files_of(plain) == {}


def test_the_runtime_and_the_counts_do_not_care(tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((1, 9, 12, 3)).astype(np.float32)
    found = {}
    for name, usage in (("with", COLOUR), ("without", None)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(written(usage))
        found[name] = TFLITE.open(path)(images)
        loaded = interpreter(path.read_bytes(), 1)
        assert loaded.get_input_details()[0]["shape"].tolist() == [1, 9, 12, 3]
        cost = network_cost(SPEC, EVERY_OPERATION)
        assert count_tflite(path) == Counts(cost.parameters, cost.multiply_adds)
    np.testing.assert_array_equal(found["with"], found["without"])


def test_an_int8_model_keeps_both() -> None:
    images = np.random.default_rng(0).standard_normal((1, 9, 12, 3)).astype(np.float32)
    model = quantize(written(), TFLITE, [{"image": images}])
    assert stored(model)[METADATA] == model_metadata(COLOUR)
    assert files_of(model) == {LABELS: b"cat\ndog\n\xc3\xbcn\xc3\xaf\n"}
    assert files_of(TFLITE.subtract_bias(written(), np.zeros(3, np.float32))) == files_of(model)


def test_a_name_of_two_lines_is_one_label() -> None:
    assert label_file(["a\nb", "c\r\n", "d e"]) == b"a b\nc\nd e\n"


def test_files_are_found_again_and_have_no_time() -> None:
    files = {"a.txt": b"1", "b.txt": b"\0\xff"}
    assert files_of(with_files(b"model", files)) == files
    assert with_files(b"model", files).startswith(b"model")
    with zipfile.ZipFile(io.BytesIO(with_files(b"model", files))) as archive:
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_exported_file_has_them_and_its_card_knows_the_whole_file(tmp_path: Path) -> None:
    (one,) = export_genotype(EVERY_OPERATION, SPEC, tmp_path, name="net", formats=["tflite"])
    content = one.path.read_bytes()
    assert files_of(content) == {LABELS: b"0\n1\n2\n"}
    (network,) = root(stored(content)[METADATA]).many(3)
    assert network.many(2)[0].many(4)[0].one(1).floats(0) == [127.5] * 3
    assert verified_card(one.path) == one.card


def test_constants_are_aligned_as_the_schema_says() -> None:
    content = np.frombuffer(written(), np.uint8)
    start = content.__array_interface__["data"][0]
    model = schema.Model.GetRootAs(content.tobytes())
    view = schema.Model.GetRootAs(content)
    kept = [view.Buffers(number) for number in range(model.BuffersLength())]
    places = [one.DataAsNumpy().__array_interface__["data"][0] - start for one in kept if one.DataLength()]
    assert len(places) > 50
    assert not any(place % 16 for place in places)
