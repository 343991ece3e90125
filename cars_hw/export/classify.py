"""Images through an exported model, with nothing but its file and its card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cars_hw.data.images import read_image
from cars_hw.errors import ExportError, InputError
from cars_hw.export.card import Preprocessing, verified_card
from cars_hw.export.formats import format_of_file

if TYPE_CHECKING:
    from cars_hw.export.format import ExportFormat, FloatArray, Runner

T = TypeVar("T")


class Guess(NamedTuple):
    """A class and its probability, a fraction."""

    name: str
    probability: float


def classify(model: Path, image: Path) -> list[Guess]:
    """Return the classes of ``model``, the likeliest first, for the image file ``image``.

    Raises:
        InputError: the model or its card is missing or damaged, or the file is of a format that is not run here.
        DatasetError: the image cannot be read.
        ExportError: the runtime cannot run the model.
    """
    return load_classifier(model)(image)


def load_classifier(model: Path) -> Callable[[Path], list[Guess]]:
    """Return :func:`classify` of ``model`` as a function of the image; the model is loaded once."""
    card = verified_card(model)
    preprocessing = card.preprocessing
    run = load_model(model)

    def classes_of(image: Path) -> list[Guess]:
        pixels = read_image(image, preprocessing.channels, preprocessing.resolution)
        logits = run(prepare(pixels, preprocessing))[0]
        if not np.isfinite(logits).all():
            raise ExportError(f"{model} gives no finite numbers for {image}")
        if len(logits) != len(card.class_names):
            raise ExportError(f"{model} has {len(logits)} outputs for {len(card.class_names)} classes")
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


def load_model(model: Path, export_format: ExportFormat | None = None) -> Runner:
    """Return what runs ``model`` on one thread; the end of the file's name tells the format if none is given.

    Raises:
        InputError: another format, or no such file.
        ExportError: the runtime cannot load the model, or later cannot run it.
    """
    wanted = export_format or format_of_file(model)
    if not model.is_file():
        raise InputError(f"there is no model file {model}")
    run = _or_export_error(model, lambda: wanted.open(model))
    return lambda batch: _or_export_error(model, lambda: run(batch))


def _or_export_error(model: Path, call: Callable[[], T]) -> T:
    try:
        return call()
    except ModuleNotFoundError:
        # A runtime that is not installed is no fault of the file.
        raise
    # The runtimes raise any exception, and all of them are about the file.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"{model} cannot be run: {lines[0]}") from error
