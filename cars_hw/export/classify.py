"""What an exported model says of images: from the file and its card alone, as anybody would use them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cars_hw.data.images import read_image
from cars_hw.errors import ExportError, InputError
from cars_hw.export.card import ModelCard, Preprocessing, card_path

T = TypeVar("T")

FloatArray = npt.NDArray[np.float32]

Runner = Callable[[FloatArray], FloatArray]
"""From a batch of one image, laid out as the model takes it, to its logits (1, classes)."""


class Guess(NamedTuple):
    """A class and its probability, a fraction."""

    name: str
    probability: float


def classify(model: Path, image: Path) -> list[Guess]:
    """Return the classes of ``model``, the likeliest first, for the image file ``image``.

    Raises:
        InputError: the model's card is missing or damaged, or the file is of a format that is not run here.
        DatasetError: the image cannot be read.
        ExportError: the runtime cannot run the model.
    """
    return load_classifier(model)(image)


def load_classifier(model: Path) -> Callable[[Path], list[Guess]]:
    """Return :func:`classify` of ``model`` as a function of the image; the model is loaded once."""
    card = ModelCard.read(card_path(model))
    preprocessing = card.preprocessing
    run = load_model(model)

    def classes_of(image: Path) -> list[Guess]:
        pixels = read_image(image, preprocessing.channels, preprocessing.resolution)
        logits = run(prepare(pixels, preprocessing))[0]
        shifted = np.exp(logits - logits.max())
        probabilities = shifted / shifted.sum()
        order = np.argsort(-probabilities, kind="stable")
        return [Guess(card.class_names[index], float(probabilities[index])) for index in order]

    return classes_of


def prepare(pixels: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> FloatArray:
    """Return what a model takes for an image of shape (H, W, C): batch 1, in the layout of ``preprocessing``."""
    mean, std = (np.array(value, np.float32) for value in (preprocessing.mean, preprocessing.std))
    batch = ((pixels.astype(np.float32) * np.float32(preprocessing.scale) - mean) / std)[None]
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if preprocessing.layout == "NCHW" else batch


def load_model(model: Path, model_format: str | None = None) -> Runner:
    """Return what runs ``model`` on one thread; the format is what the file's name ends in, if it is not given.

    Raises:
        InputError: another format, or no such file.
        ExportError: the runtime cannot load the model, or later cannot run it.
    """
    loaders = {"onnx": _load_onnx, "tflite": _load_tflite}
    kind = model_format or model.suffix.removeprefix(".")
    if kind not in loaders:
        raise InputError(f"{model} is no model that can be run here; give one of: .onnx, .tflite")
    if not model.is_file():
        raise InputError(f"there is no model file {model}")
    run = _or_export_error(model, lambda: loaders[kind](model))
    return lambda batch: _or_export_error(model, lambda: run(batch))


def _or_export_error(model: Path, call: Callable[[], T]) -> T:
    try:
        return call()
    # The runtimes raise what they please, and all of it is about the file.
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"{model} cannot be run: {said[0]}") from error


def _load_onnx(model: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name

    def run(batch: FloatArray) -> FloatArray:
        logits: FloatArray = session.run(None, {source: batch})[0]
        return logits

    return run


def _load_tflite(model: Path) -> Runner:
    from cars_hw.devices.host.litert_runtime import from_quantised, interpreter, to_quantised

    loaded = interpreter(str(model), 1)
    (source,), (target,) = loaded.get_input_details(), loaded.get_output_details()

    def run(batch: FloatArray) -> FloatArray:
        loaded.set_tensor(source["index"], to_quantised(batch, source))
        loaded.invoke()
        return from_quantised(loaded.get_tensor(target["index"]), target)

    return run
