"""Post-training quantisation to int8 with the libraries that the runtimes' makers keep for it.

Weights are quantised channel by channel, activations by the ranges that they have on calibration images.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cars_hw.devices.protocol import ModelFormat
from cars_hw.errors import ExportError
from cars_hw.export.tflite_writer import SIGNATURE

Feeds = Sequence[Mapping[str, npt.NDArray[np.float32]]]
"""What a model takes, by input, image for image; laid out as its format wants it."""

Ranges = Mapping[str, tuple[float, float]]
"""The smallest and the largest value that is told apart, by tensor; what is beyond is clipped."""


def quantize(model: bytes, model_format: ModelFormat, feeds: Feeds, ranges: Ranges | None = None) -> bytes:
    """Return the float32 ``model`` in int8.

    The ranges of the activations are ``ranges``, and those of tensors that are not in it what they are on ``feeds``
    (at least one). A TFLite model takes and gives int8, by the scales in its tensors; an ONNX model (QDQ) takes and
    gives float32.

    Raises:
        ExportError: the library cannot quantise it.
    """
    quantizer = _quantize_onnx if model_format == "onnx" else _quantize_tflite
    try:
        with _silence():
            return quantizer(model, feeds, ranges or {})
    # Both libraries raise whatever comes up inside of them.
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"the model cannot be quantised: {said[0]}") from error


def _quantize_tflite(model: bytes, feeds: Feeds, known_ranges: Ranges) -> bytes:
    from litert_quantizer import quantizer, recipe

    job = quantizer.Quantizer(bytearray(model), recipe.static_wi8_ai8())
    # Over several images the calibration averages their ranges and clips what is outside of the average: a small
    # network's logits were off by 11% instead of 1%. So each image is asked for its own range, and all are covered.
    ranges: dict[str, dict[str, Any]] = {}
    for feed in feeds:
        for name, found in job.calibrate({SIGNATURE: [dict(feed)]}, num_threads=1).items():
            known = ranges.setdefault(name, found)
            if found and known:
                known["min"] = np.minimum(known["min"], found["min"])
                known["max"] = np.maximum(known["max"], found["max"])
    for name, (low, high) in known_ranges.items():
        if ranges.get(name):
            ranges[name]["min"] = np.full_like(ranges[name]["min"], low)
            ranges[name]["max"] = np.full_like(ranges[name]["max"], high)
    return bytes(job.quantize(ranges, enable_progress_report=False).quantized_model)


def _quantize_onnx(model: bytes, feeds: Feeds, known_ranges: Ranges) -> bytes:
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            feed = next(self._feeds, None)
            return None if feed is None else dict(feed)

    # It warns of what its own transformations leave behind.
    onnxruntime.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            onnx.load_from_string(model),
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            # On processors without VNNI signed weights saturate inside of the kernels: off by 7% instead of 1%.
            weight_type=QuantType.QUInt8,
            extra_options={
                "TensorQuantOverrides": {
                    name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
                    for name, (low, high) in known_ranges.items()
                }
            },
        )
        return path.read_bytes()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what the libraries print and log to themselves: it is for their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
