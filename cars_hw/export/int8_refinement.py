"""int8 that stays near the float model: ranges that clip as much as pays, and a classifier that knows its bias.

A range that covers everything spends its 256 levels on values that hardly come; one that clips too much cuts off
what matters. For each tensor the range with the smallest mean squared error over its values is taken. What the
error of all layers comes to on average is the same for every image, and is taken off the classifier's bias.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cars_hw.devices.protocol import ModelFormat
from cars_hw.export.classify import load_model
from cars_hw.export.quantize import Feeds, Ranges, quantize

CALIBRATION_IMAGES: Final = 256
"""So many training images are looked at."""

FEWER_IMAGES: Final = (64, 128)
"""Rare values of many images can spoil a range: those of so many are tried too."""

SAMPLED: Final = 4096
"""Of each tensor and image so many values are kept, beside its extremes."""

LEVELS: Final = 255
BINS: Final = 4096
SHRINK: Final = np.linspace(0.5, 1.0, 26)
"""The ranges that are tried, as fractions of the whole."""

LOGITS_MARGIN: Final = 0.25
"""Logits beyond those of calibration are the sure ones: their range is widened by so much on both sides."""

FloatArray = npt.NDArray[np.float32]


@dataclass
class Seen:
    """What a tensor's values were, image for image."""

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    values: list[FloatArray] = field(default_factory=list)

    def add(self, value: FloatArray, rng: np.random.Generator) -> None:
        """Note the values of an image."""
        flat = value.ravel()
        self.low.append(float(flat.min()))
        self.high.append(float(flat.max()))
        self.values.append(flat if flat.size <= SAMPLED else flat[rng.integers(flat.size, size=SAMPLED)])

    def range(self, images: int) -> tuple[float, float]:
        """Return the range with the smallest mean squared error over the first ``images``."""
        return best_range(np.concatenate(self.values[:images]), min(self.low[:images]), max(self.high[:images]))


def best_range(values: FloatArray, low: float, high: float) -> tuple[float, float]:
    """Return the range within ``low`` and ``high`` that 8 bits render ``values`` best with, by squared error."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high <= low:
        return low, high
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    kept = counts > 0
    counts, centres = counts[kept], centres[kept]
    tried = {(low * a, high * b) for a in SHRINK for b in (a, 1.0)} | {(low, high * b) for b in SHRINK}

    def error(limits: tuple[float, float]) -> tuple[float, float, float]:
        step = (limits[1] - limits[0]) / LEVELS
        zero = np.round(-limits[0] / step)
        rendered = (np.clip(np.round(centres / step) + zero, 0, LEVELS) - zero) * step
        # Of equal ones the widest.
        return float((counts * (rendered - centres) ** 2).sum()), limits[0], -limits[1]

    return min(tried, key=error)


def refine(model: bytes, model_format: ModelFormat, feeds: Feeds) -> bytes:
    """Return the float32 ``model`` of a trained network in int8, calibrated on ``feeds``.

    Of the ranges by :data:`FEWER_IMAGES` and by all of ``feeds`` those are taken with which the logits of ``feeds``
    are nearer to the float model's.

    Raises:
        ExportError: it cannot be quantised, or not be run.
    """
    seen = _seen(model, model_format, feeds)
    truth = _logits(model, model_format, feeds)
    found: list[tuple[float, Ranges, FloatArray]] = []
    for images in sorted({*(min(few, len(feeds)) for few in FEWER_IMAGES), len(feeds)}):
        limits = {name: one.range(images) for name, one in seen.items()}
        for name in _outputs(model, model_format):
            low, high = min(seen[name].low), max(seen[name].high)
            margin = LOGITS_MARGIN * (high - low)
            limits[name] = low - margin, high + margin
        difference = _logits(quantize(model, model_format, feeds[:1], limits), model_format, feeds) - truth
        bias: FloatArray = difference.mean(axis=0)
        found.append((float(np.linalg.norm(difference - bias)), limits, bias))
    _, ranges, bias = min(found, key=lambda one: one[0])
    return quantize(_with_bias_less(model, model_format, bias), model_format, feeds[:1], ranges)


def _logits(model: bytes, model_format: ModelFormat, feeds: Feeds) -> FloatArray:
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        path = Path(folder) / f"model.{model_format}"
        path.write_bytes(model)
        run = load_model(path)
        logits: FloatArray = np.concatenate([run(np.asarray(next(iter(feed.values())))) for feed in feeds])
    return logits


def _seen(model: bytes, model_format: ModelFormat, feeds: Feeds) -> dict[str, Seen]:
    """Return the values of all activations on ``feeds``."""
    rng = np.random.default_rng(0)
    seen: dict[str, Seen] = {}
    opened = _activations_onnx(model) if model_format == "onnx" else _activations_tflite(model)
    for feed in feeds:
        for name, value in opened(feed):
            if value.dtype == np.float32 and value.size:
                seen.setdefault(name, Seen()).add(value, rng)
    return seen


Activations = Callable[[Any], Iterator[tuple[str, npt.NDArray[Any]]]]
"""From an image to all tensors that depend on it, by name."""


def _activations_tflite(model: bytes) -> Activations:
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        # It warns of the memory that this takes.
        warnings.simplefilter("ignore")
        loaded = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
        loaded.allocate_tensors()
    (taken,) = loaded.get_input_details()
    made = {int(index) for operation in loaded._get_ops_details() for index in operation["outputs"]}
    names = {
        detail["index"]: detail["name"]
        for detail in loaded.get_tensor_details()
        if detail["index"] in made | {taken["index"]}
    }

    def run(feed: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:  # noqa: ANN401
        (value,) = feed.values()
        loaded.set_tensor(taken["index"], value)
        loaded.invoke()
        for index, name in names.items():
            # What a delegate has swallowed has no values.
            with contextlib.suppress(ValueError):
                yield name, loaded.get_tensor(index)

    return run


def _activations_onnx(model: bytes) -> Activations:
    import onnx
    import onnxruntime

    opened = onnx.load_from_string(model)
    inputs = [value.name for value in opened.graph.input]
    names = [name for node in opened.graph.node for name in node.output]
    known = {value.name for value in opened.graph.output}
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(feed: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:  # noqa: ANN401
        yield from ((name, feed[name]) for name in inputs)
        yield from zip(names, session.run(names, dict(feed)), strict=True)

    return run


def _outputs(model: bytes, model_format: ModelFormat) -> list[str]:
    if model_format == "onnx":
        import onnx

        return [value.name for value in onnx.load_from_string(model).graph.output]
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = schema.ModelT.InitFromPackedBuf(model).subgraphs
    return [graph.tensors[index].name.decode() for index in graph.outputs]


def _with_bias_less(model: bytes, model_format: ModelFormat, bias: FloatArray) -> bytes:
    """Return ``model`` with ``bias`` taken off the bias of the layer that gives the logits."""
    (logits,) = _outputs(model, model_format)
    name = f"{logits}/bias"
    if model_format == "onnx":
        import onnx

        opened = onnx.load_from_string(model)
        (constant,) = (one for one in opened.graph.initializer if one.name == name)
        constant.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(constant) - bias, name))
        written: bytes = opened.SerializeToString()
        return written
    from ai_edge_litert import schema_py_generated as schema

    changed = bytearray(model)
    read = schema.Model.GetRootAs(changed)
    tensors = [read.Subgraphs(0).Tensors(index) for index in range(read.Subgraphs(0).TensorsLength())]
    (tensor,) = (one for one in tensors if one.Name().decode() == name)
    # In place: the view is on the bytes themselves.
    read.Buffers(tensor.Buffer()).DataAsNumpy().view(np.float32)[:] -= bias
    return bytes(changed)
