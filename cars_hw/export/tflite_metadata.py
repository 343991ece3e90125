"""TFLite Model Metadata: how a model is fed and what its outputs mean, for MediaPipe and Android's task library.

The metadata is a flatbuffer of the schema ``metadata_schema.fbs`` of tflite-support, written by hand: the packages
that have this schema are large. It is stored as a buffer of the model. The file with the class names is in a zip
archive behind the model; readers of zip archives look for it at the end, readers of models at the start.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cars_hw.export.format import Usage

METADATA: Final = "TFLITE_METADATA"
"""What the buffer is called."""

LABELS: Final = "labels.txt"
"""The file with the name of a class on each line."""

SCORES: Final = "Logits, one for each class. Their softmax is the probabilities."

FILE_IDENTIFIER: Final = b"M001"
PARSER_VERSION: Final = "1.0.0"
"""The oldest reader that knows all that is written here."""

WHITE: Final = 255

_Value: TypeAlias = "str | npt.NDArray[np.float64] | _Table | Sequence[_Table]"

_FIELDS: Final = {
    "ModelMetadata": (
        *("name", "description", "version", "subgraph_metadata", "author", "license", "associated_files"),
        "min_parser_version",
    ),
    "SubGraphMetadata": ("name", "description", "input_tensor_metadata", "output_tensor_metadata"),
    "TensorMetadata": (
        *("name", "description", "dimension_names", "content", "process_units", "stats", "associated_files"),
    ),
    "Content": ("content_properties_type", "content_properties"),
    "ImageProperties": ("color_space",),
    "ProcessUnit": ("options_type", "options"),
    "NormalizationOptions": ("mean", "std"),
    "Stats": ("max", "min"),
    "AssociatedFile": ("name", "description", "type"),
}
"""The schema's tables and their fields in order, as far as they are used; all integers are of one byte."""

# Members of the schema's enumerations and unions.
_TENSOR_AXIS_LABELS: Final = 2
_IMAGE_PROPERTIES: Final = 2
_NORMALIZATION_OPTIONS: Final = 1
_COLOR_SPACES: Final = {3: 1, 1: 2}


def model_metadata(usage: Usage) -> bytes:
    """Return the metadata of a model with the input ``image`` and the output ``logits``."""
    mean, std = np.array(usage.mean) / usage.scale, np.array(usage.std) / usage.scale
    normalisation = _Table("NormalizationOptions", mean=mean, std=std)
    colours = _Table("ImageProperties", color_space=_COLOR_SPACES.get(len(usage.mean), 0))
    image = _Table(
        "TensorMetadata",
        name="image",
        description="An image of the size of this tensor. Its pixels, from 0 to 255, are normalised.",
        content=_Table("Content", content_properties_type=_IMAGE_PROPERTIES, content_properties=colours),
        process_units=[_Table("ProcessUnit", options_type=_NORMALIZATION_OPTIONS, options=normalisation)],
        stats=_Table("Stats", max=(WHITE - mean) / std, min=-mean / std),
    )
    labels = _Table("AssociatedFile", name=LABELS, description="Names of the classes", type=_TENSOR_AXIS_LABELS)
    logits = _Table("TensorMetadata", name="logits", description=SCORES, associated_files=[labels])
    network = _Table(
        "SubGraphMetadata", name="network", input_tensor_metadata=[image], output_tensor_metadata=[logits]
    )
    model = _Table(
        "ModelMetadata",
        name="cars-hw",
        description="Image classifier",
        subgraph_metadata=[network],
        min_parser_version=PARSER_VERSION,
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.write(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


def label_file(class_names: Sequence[str]) -> bytes:
    """Return the content of :data:`LABELS`: a line for each class, whatever its name is."""
    return "".join(f"{' '.join(name.splitlines())}\n" for name in class_names).encode()


def with_files(model: bytes, files: Mapping[str, bytes]) -> bytes:
    """Return ``model`` with a zip archive of ``files`` behind it; the same files give the same bytes."""
    content = io.BytesIO(model)
    with zipfile.ZipFile(content, "a") as archive:
        for name, data in files.items():
            # Without this, the archive has the time and the system.
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            archive.writestr(entry, data)
    return content.getvalue()


def files_of(model: bytes) -> dict[str, bytes]:
    """Return the files in the archive behind ``model``; none if there is no archive."""
    content = io.BytesIO(model)
    if not zipfile.is_zipfile(content):
        return {}
    with zipfile.ZipFile(content) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class _Table:
    """A table of the schema: texts, bytes, vectors of float32, tables, and lists of tables."""

    def __init__(self, kind: str, **fields: int | _Value) -> None:
        self.slots = {_FIELDS[kind].index(name): value for name, value in fields.items()}

    def write(self, builder: Any) -> int:  # noqa: ANN401 -- flatbuffers has no types
        """Add the table to ``builder`` and return where it is."""
        offsets = {
            slot: _written(builder, value) for slot, value in self.slots.items() if not isinstance(value, int)
        }
        builder.StartObject(max(self.slots) + 1)
        for slot, value in self.slots.items():
            if isinstance(value, int):
                builder.PrependUint8Slot(slot, value, 0)
            else:
                builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
        return int(builder.EndObject())


def _written(builder: Any, value: _Value) -> int:  # noqa: ANN401 -- flatbuffers has no types
    """Add ``value`` to ``builder`` and return where it is."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value.astype(np.float32)))
    if isinstance(value, _Table):
        return value.write(builder)
    offsets = [table.write(builder) for table in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
