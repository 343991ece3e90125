"""ModelCard: the JSON that lies beside every exported model and says what it is and how to feed it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Literal, get_args

from cars_hw.config.checksummed import ChecksummedFormat, read_verified
from cars_hw.config.decoding import Decoding, Resizing
from cars_hw.config.measurement import QUIET, Int8Scheme, Precision, require_state
from cars_hw.config.setting import Settings, count, fraction, milliseconds, predicted, setting
from cars_hw.config.training import Recipe
from cars_hw.errors import InputError
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

INT8_SUFFIX: Final = ".int8"
"""What the name of a quantised network ends with, before the suffix of its format."""

CARD: Final = ChecksummedFormat("cars-hw model card", 1, "export-again", InputError)

RESIZING: Final = Resizing()

FORMULA: Final = "(pixel * scale - mean) / std"

Output = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class CardLatency(Settings):
    """Latency of a model at batch 1 on one device: milliseconds in the machine state ``state``.

    The model runs on ``threads`` threads. ``predicted_ms`` and its upper bound ``bound_ms``, which holds for a
    share ``level`` of networks, are by the run's table; None where the run has no table for this device, number of
    threads, precision and size of network. ``measured_ms`` is None until the model has been measured.
    """

    device: str
    threads: int = count(1, minimum=1)
    state: str = QUIET
    predicted_ms: float | None = predicted(None)
    bound_ms: float | None = predicted(None)
    level: float | None = setting(None, above=0, below=1)
    measured_ms: float | None = milliseconds(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_state(self.state)

    @property
    def conditions(self) -> tuple[str, int, str]:
        """Device, threads and state: what two latencies share that can be compared."""
        return self.device, self.threads, self.state


@dataclass(frozen=True)
class Augmentations(Settings):
    """How training images were varied at random. None of it is done to an image that is classified.

    With ``mirror``, left and right were exchanged in half of the images. With ``crop``, the network saw shifted or
    enlarged parts of the images. ``cutout`` is the side of a square that was cut out, in pixels, and
    ``colour_jitter`` the largest change of brightness, contrast and saturation, a fraction. ``randaugment`` is the
    number of random operations on each image. With ``mixup`` or ``cutmix`` above 0, two images were mixed.
    """

    mirror: bool
    crop: bool
    cutout: int = count()
    colour_jitter: float = fraction()
    randaugment: int = count(0)
    mixup: float = setting(0.0, minimum=0)
    cutmix: float = setting(0.0, minimum=0)

    ADDED: ClassVar = frozenset({"randaugment", "mixup", "cutmix"})

    @classmethod
    def of(cls, recipe: Recipe) -> Augmentations:
        """Return those of a training by ``recipe``."""
        crop = recipe.crop_padding > 0 or recipe.crop_scale > 0
        return cls(
            recipe.mirror,
            crop,
            recipe.cutout,
            recipe.colour_jitter,
            recipe.randaugment,
            recipe.mixup,
            recipe.cutmix,
        )


@dataclass(frozen=True)
class Figures:
    """What a card says of a network besides the network itself; None and empty is what is not known.

    ``accuracy`` is a fraction of ``test_images`` test images; ``augmentations`` are those of the training.
    """

    accuracy: float | None = None
    test_images: int | None = None
    latencies: tuple[CardLatency, ...] = ()
    augmentations: Augmentations | None = None


NO_FIGURES: Final = Figures()


@dataclass(frozen=True)
class Preprocessing:
    """What to do to an image file; everything is in float32 after the resizing.

    ``decoding`` and ``resizing`` make pixels of it, from 0 to 255, of the size ``resolution``: (height, width) in
    pixels. ``decoding`` is None for a network whose channels are not those of image files. The network's input is
    ``formula`` of each pixel, where ``mean`` and ``std`` have one value per channel, in units of scaled pixels. It
    is laid out as ``layout`` says.

    Raises:
        InputError: ``mean`` and ``std`` differ in length or from the channels of ``decoding``, or a value is
            unknown, not finite or not above zero.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resolution: tuple[int, int]
    decoding: Decoding | None
    resizing: Resizing = RESIZING
    scale: float = 1 / 255
    formula: str = FORMULA
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    DERIVED: ClassVar = ("channels", "colours")

    @classmethod
    def of(cls, mean: tuple[float, ...], std: tuple[float, ...], resolution: tuple[int, int]) -> Preprocessing:
        """Return what is done in training on a data set with this mean and standard deviation."""
        return cls(mean, std, resolution, Decoding.of(len(mean)) if len(mean) in (1, 3) else None)

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
        if self.formula != FORMULA:
            raise InputError(f"formula must be {FORMULA!r}, not {self.formula!r}")
        if self.colours is not None and len(self.colours) != self.channels:
            raise InputError(f"decoding makes {self.colours} of an image, and mean has {self.channels} values")

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(self.mean)

    @property
    def colours(self) -> str | None:
        """What the channels are, in their order: ``L`` (grey) or ``RGB``; None where they are no image file's."""
        return None if self.decoding is None else self.decoding.mode


@dataclass(frozen=True)
class ModelCard:
    """Describes an exported model, so that it can be used without the run.

    ``accuracy`` is a fraction of ``test_images`` test images. ``latencies`` has one entry for each device, number
    of threads and machine state of which a latency is known. ``output`` tells whether the model's outputs are
    logits, of which the softmax has the probabilities, or the probabilities. ``augmentations`` are those of the
    training, None for a network that was not trained. ``parity`` is the relative difference between the outputs of
    the model and of the network in torch (see :mod:`cars_hw.export.parity`). ``int8`` is the scheme
    of an int8 model, and None for fp32. ``versions`` are those of the programs that wrote the model and read the
    images. ``digest`` is that of the model's file.

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
    int8: Int8Scheme | None = None
    output: Output = "logits"
    accuracy: float | None = None
    test_images: int | None = None
    latencies: tuple[CardLatency, ...] = ()
    augmentations: Augmentations | None = None

    def __post_init__(self) -> None:
        spec, preprocessing = self.network, self.preprocessing
        if (preprocessing.channels, *preprocessing.resolution) != tuple(spec.input_shape):
            raise InputError(
                f"the preprocessing makes images of {preprocessing.channels} channels and "
                f"{'x'.join(map(str, preprocessing.resolution))} pixels; the network has {spec.describe()}"
            )
        if len(self.class_names) != spec.classes:
            raise InputError(f"there are {len(self.class_names)} class names for {spec.classes} classes")
        for name, known in (("precision", get_args(Precision)), ("output", get_args(Output))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be {' or '.join(known)}, not {getattr(self, name)}")
        if self.int8 not in (get_args(Int8Scheme) if self.precision == "int8" else (None,)):
            schemes = " or ".join(get_args(Int8Scheme))
            raise InputError(f"int8 must be {schemes} for a model of int8 and null for others, not {self.int8}")
        if self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise InputError(f"accuracy must be a fraction from 0 to 1, not {self.accuracy}")
        if self.test_images is not None and self.test_images < 1:
            raise InputError(f"test_images must be at least 1, not {self.test_images}")
        if not (math.isfinite(self.parity) and self.parity >= 0):
            raise InputError(f"parity must be finite and not negative, not {self.parity}")
        if len({one.conditions for one in self.latencies}) < len(self.latencies):
            raise InputError("latencies has two entries for one device, number of threads and state")

    def with_latency(self, latency: CardLatency) -> ModelCard:
        """Return the card with ``latency`` in the place of what it has for the same conditions."""
        others = (one for one in self.latencies if one.conditions != latency.conditions)
        return replace(self, latencies=(*others, latency))

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
