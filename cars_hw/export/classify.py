"""Images through an exported model, with nothing but its file and its card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cars_hw.data.images import read_by
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
        InputError: the model or its card is missing or damaged, the card has a value that is not known here, the
            network does not take image files, or the file is of a format that is not run here.
        DatasetError: the image cannot be read.
        ExportError: the runtime cannot run the model.
    """
    return Classifier(model)(image)


class Classifier:
    """:func:`classify` of one model, which is loaded once. What it does is what the model's card says.

    Raises:
        InputError, ExportError: see :func:`classify`.
    """

    def __init__(self, model: Path) -> None:
        self.model = model
        self.card = verified_card(model)
        decoding = self.card.preprocessing.decoding
        if decoding is None:
            channels = self.card.preprocessing.channels
            raise InputError(f"{model} is a network for {channels} channels, which image files do not have")
        self._decoding = decoding
        self._run = open_model(model)

    def __call__(self, image: Path) -> list[Guess]:
        """Return the classes, the likeliest first, for the file ``image``."""
        probabilities = self.probabilities(image)
        order = np.argsort(-probabilities, kind="stable")
        return [Guess(self.card.class_names[index], float(probabilities[index])) for index in order]

    def probabilities(self, image: Path) -> FloatArray:
        """Return the probability of each class, in the order of the card, for the file ``image``."""
        output = self.output(image)
        if self.card.output == "probabilities":
            return output
        shifted = np.exp(output - output.max())
        probabilities: FloatArray = shifted / shifted.sum()
        return probabilities

    def output(self, image: Path) -> FloatArray:
        """Return what the model gives for the file ``image``: a number per class."""
        preprocessing = self.card.preprocessing
        pixels = read_by(image, self._decoding, preprocessing.resizing, preprocessing.resolution)
        output: FloatArray = self._run(prepare(pixels, preprocessing))[0]
        if not np.isfinite(output).all():
            raise ExportError(f"{self.model} gives no finite numbers for {image}")
        if len(output) != len(self.card.class_names):
            raise ExportError(f"{self.model} has {len(output)} outputs for {len(self.card.class_names)} classes")
        return output


def prepare(pixels: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> FloatArray:
    """Return what a model takes for an image of shape (H, W, C): batch 1, in the layout of ``preprocessing``."""
    mean, std = (np.array(value, np.float32) for value in (preprocessing.mean, preprocessing.std))
    batch = ((pixels.astype(np.float32) * np.float32(preprocessing.scale) - mean) / std)[None]
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if preprocessing.layout == "NCHW" else batch


def open_model(model: Path, export_format: ExportFormat | None = None) -> Runner:
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
