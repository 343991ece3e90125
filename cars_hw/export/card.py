"""ModelCard: the JSON that lies beside every exported model and says what it is and how to feed it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal, get_args

from cars_hw.config.checksummed import ChecksummedFormat, read_verified
from cars_hw.config.measurement import Precision
from cars_hw.errors import InputError
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

INT8_SUFFIX: Final = ".int8"
"""What the name of a quantised network ends with, before the suffix of its format."""

LATENCIES: Final = ("predicted_ms", "bound_ms", "measured_ms")

CARD: Final = ChecksummedFormat("cars-hw model card", 1, "export-again", InputError)


@dataclass(frozen=True)
class Figures:
    """What a card says of a network besides the network itself; None is what is not known.

    ``accuracy`` is a fraction of the test images. ``predicted_ms``, ``bound_ms`` (the prediction's upper bound)
    and ``measured_ms`` are milliseconds at batch 1 on one thread.
    """

    accuracy: float | None = None
    predicted_ms: float | None = None
    bound_ms: float | None = None
    measured_ms: float | None = None


NO_FIGURES: Final = Figures()


@dataclass(frozen=True)
class Preprocessing:
    """What to do to an image's bytes: ``(pixel * scale - mean) / std`` per channel, laid out as ``layout``.

    ``mean`` and ``std`` have one value per channel, in units of scaled pixels; ``resolution`` is (height, width)
    in pixels.

    Raises:
        InputError: ``mean`` and ``std`` differ in length, or a value is not finite or not above zero.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resolution: tuple[int, int]
    scale: float = 1 / 255
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    DERIVED: ClassVar = ("channels",)

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise InputError(
                f"mean and std need one value a channel: {len(self.mean)} and {len(self.std)} are given"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std, self.scale))) or min(*self.std, self.scale) <= 0:
            raise InputError("mean, std and scale must be finite, std and scale above zero")
        # Beyond these, pixels leave the range of float32 inside of a network.
        if (
            max(map(abs, self.mean)) > 1e6
            or not 1e-6 <= min(*self.std, self.scale) <= max(*self.std, self.scale) <= 1e6
        ):
            raise InputError("mean must be at most a million, std and scale from a millionth to a million")
        if self.layout not in ("NCHW", "NHWC"):
            raise InputError(f"layout must be NCHW or NHWC, not {self.layout}")

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(self.mean)


@dataclass(frozen=True)
class ModelCard:
    """Describes an exported model, so that it can be used without the run.

    ``accuracy`` is a fraction. ``predicted_ms``, ``bound_ms`` (the prediction's upper bound) and ``measured_ms``
    are milliseconds at batch 1; each is None where it is not known. The prediction is for the number of threads of
    the run's table, the measurement for that of ``cars-hw verify``. ``parity`` is the relative difference between
    the outputs of the model and of the network in torch (see :mod:`cars_hw.export.parity`). ``versions`` are
    those of the programs that wrote the model. ``digest`` is that of the model's file.

    Raises:
        InputError: preprocessing or class names do not fit the network, or a figure is out of its range.
    """

    genotype: Genotype
    network: NetworkSpec
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    parity: float
    versions: dict[str, str]
    digest: str
    precision: Precision = "fp32"
    accuracy: float | None = None
    predicted_ms: float | None = None
    bound_ms: float | None = None
    measured_ms: float | None = None

    def __post_init__(self) -> None:
        spec, preprocessing = self.network, self.preprocessing
        if (preprocessing.channels, *preprocessing.resolution) != tuple(spec.input_shape):
            raise InputError(
                f"the preprocessing makes images of {preprocessing.channels} channels and "
                f"{'x'.join(map(str, preprocessing.resolution))} pixels; the network has {spec.describe()}"
            )
        if len(self.class_names) != spec.classes:
            raise InputError(f"there are {len(self.class_names)} class names for {spec.classes} classes")
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be fp32 or int8, not {self.precision}")
        if self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise InputError(f"accuracy must be a fraction from 0 to 1, not {self.accuracy}")
        for name in ("parity", *LATENCIES):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} must be finite and not negative, not {value}")

    def write(self, path: Path) -> None:
        """Write the card to ``path`` in one step."""
        CARD.write_record(path, self)

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read the card at ``path``.

        Raises:
            InputError: there is no such file, it is not a card, or damaged; the message names the file.
        """
        return CARD.read_record(path, cls)


def card_path(model: Path) -> Path:
    """Return where the card of ``model`` lies: ``net.onnx.json`` beside ``net.onnx``.

    The format stays in the name, so that one network can be exported to several in one folder.
    """
    return model.with_name(f"{model.name}.json")


def verified_card(model: Path) -> ModelCard:
    """Return the card of the file ``model``, after the file was found to be the one that the card describes.

    Raises:
        InputError: the card or the model is missing or damaged, or they do not belong together.
    """
    card = ModelCard.read(card_path(model))
    read_verified(model, card.digest, InputError, "export-again")
    return card
