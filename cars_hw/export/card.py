"""ModelCard: the JSON that lies beside every exported model and says what it is and how to feed it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cars_hw.config.files import write_json
from cars_hw.config.measurement import Precision
from cars_hw.errors import InputError
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

LATENCIES: Final = ("predicted_ms", "bound_ms", "measured_ms")


@dataclass(frozen=True)
class Preprocessing:
    """What to do to an image's bytes: ``(pixel * scale - mean) / std`` per channel, laid out as ``layout``.

    ``mean`` and ``std`` have one value a channel, in units of scaled pixels; ``resolution`` is (height, width) in
    pixels.

    Raises:
        InputError: ``mean`` and ``std`` differ in length, or a value is not finite or not above zero.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resolution: tuple[int, int]
    scale: float = 1 / 255
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise InputError(
                f"mean and std need one value a channel: {len(self.mean)} and {len(self.std)} are given"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std, self.scale))) or min(*self.std, self.scale) <= 0:
            raise InputError("mean, std and scale must be finite, std and scale above zero")
        if self.layout not in ("NCHW", "NHWC"):
            raise InputError(f"layout must be NCHW or NHWC, not {self.layout}")

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(self.mean)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": self.layout,
            "resolution": list(self.resolution),
            "channels": self.channels,
        }

    @classmethod
    def from_dict(cls, value: Any) -> Preprocessing:  # noqa: ANN401 -- whatever a JSON file holds
        """Build it from :meth:`to_dict`'s form.

        Raises:
            InputError: a missing, unknown, mistyped or contradictory field.
        """
        fields = _fields(value, ("scale", "mean", "std", "layout", "resolution", "channels"), "preprocessing")
        resolution = fields["resolution"]
        if not (isinstance(resolution, list) and [type(size) for size in resolution] == [int, int]):
            raise InputError(f"the card's resolution must be [height, width], not {resolution!r}")
        built = cls(
            mean=_numbers(fields["mean"], "mean"),
            std=_numbers(fields["std"], "std"),
            resolution=(resolution[0], resolution[1]),
            scale=_number(fields["scale"], "scale"),
            layout=fields["layout"],
        )
        if fields["channels"] != built.channels:
            raise InputError(f"the card has {fields['channels']!r} channels, but {built.channels} means")
        return built


@dataclass(frozen=True)
class ModelCard:
    """What an exported model is.

    ``accuracy`` is a fraction; ``predicted_ms``, ``bound_ms`` (the prediction's upper bound) and ``measured_ms``
    are milliseconds at batch 1 on one thread; each is None where it is not known. ``parity`` is the relative
    error against the network (:mod:`~cars_hw.export.parity`). ``versions`` are those of the programs that wrote
    the model.

    Raises:
        InputError: preprocessing or class names do not fit the network, or a figure is out of its range.
    """

    genotype: Genotype
    network: NetworkSpec
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    parity: float
    versions: dict[str, str]
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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "genotype": self.genotype.to_dict(),
            "network": self.network.to_dict(),
            "precision": self.precision,
            "preprocessing": self.preprocessing.to_dict(),
            "class_names": list(self.class_names),
            "accuracy": self.accuracy,
            **{name: getattr(self, name) for name in LATENCIES},
            "parity": self.parity,
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, value: Any) -> ModelCard:  # noqa: ANN401 -- whatever a JSON file holds
        """Build a card from :meth:`to_dict`'s form.

        Raises:
            InputError: a missing, unknown, mistyped or contradictory field; a GenotypeError or a SpecError where
                the genotype or the network is at fault.
        """
        fields = _fields(value, FIELDS, "model card")
        names, versions = fields["class_names"], fields["versions"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError("the card's class_names must be a list of names")
        if not isinstance(versions, dict) or not all(isinstance(text, str) for text in versions.values()):
            raise InputError("the card's versions must be texts by name")
        return cls(
            genotype=Genotype.from_dict(fields["genotype"]),
            network=NetworkSpec.from_dict(fields["network"]),
            preprocessing=Preprocessing.from_dict(fields["preprocessing"]),
            class_names=tuple(names),
            parity=_number(fields["parity"], "parity"),
            versions=dict(versions),
            precision=fields["precision"],
            accuracy=_optional(fields["accuracy"], "accuracy"),
            **{name: _optional(fields[name], name) for name in LATENCIES},
        )

    def write(self, path: Path) -> None:
        """Write the card to ``path`` in one step."""
        write_json(path, self.to_dict())

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read the card at ``path``.

        Raises:
            InputError: there is no such file, it is not JSON, or not a card; the message names the file.
        """
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(f"cannot read the model card {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not JSON: {error}") from error
        except InputError as error:
            raise type(error)(f"{path}: {error}") from error


FIELDS: Final = tuple(ModelCard.__dataclass_fields__)


def card_path(model: Path) -> Path:
    """Return where the card of ``model`` lies: ``net.onnx.json`` beside ``net.onnx``.

    The format stays in the name, so that one network can be exported to several in one folder.
    """
    return model.with_name(f"{model.name}.json")


def _fields(value: object, names: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"a {what} is an object, not {type(value).__name__}")
    for name in names:
        if name not in value:
            raise InputError(f"the {what} has no '{name}'")
    for name in value:
        if name not in names:
            raise InputError(f"the {what} has an unknown field '{name}'")
    return value


def _number(value: object, name: str) -> float:
    # A bool is an int to isinstance, and JSON's true is no figure.
    if type(value) not in (int, float):
        raise InputError(f"the card's {name} must be a number, not {value!r}")
    assert isinstance(value, int | float)
    try:
        return float(value)
    except OverflowError as error:
        raise InputError(f"the card's {name} is too large for a number") from error


def _optional(value: object, name: str) -> float | None:
    return None if value is None else _number(value, name)


def _numbers(value: object, name: str) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise InputError(f"the card's {name} must be a list of numbers, not {value!r}")
    return tuple(_number(entry, name) for entry in value)
