"""The latency table of one device and one network: a JSON file that a person can read and a checksum protects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from cars_hw.devices.protocol import Measurement
from cars_hw.errors import InputError, TableError
from cars_hw.genotype import Genotype
from cars_hw.latency.keys import OpKey
from cars_hw.latency.sealed import SealedFormat
from cars_hw.spec import NetworkSpec

TABLE: Final = SealedFormat("cars-hw latency table", 1, "restore it, or make one with: cars-hw profile")


@dataclass(frozen=True)
class CalibrationNetwork:
    """A whole network that the predictor was fitted on.

    An ``anchor`` was searched for, at the end of the range, so that no prediction reaches beyond what was
    measured. It says nothing about how far off predictions of other networks are.
    """

    genotype: Genotype
    measured: Measurement
    anchor: bool = False


@dataclass(frozen=True)
class Coefficients:
    """The predictor: ``slope`` times the sum of operations plus ``intercept_ms``.

    Of each operation ``conversion_ns`` (nanoseconds) are taken off for every element that its isolated model may
    convert, see :mod:`cars_hw.latency.fit`.

    ``residuals`` are, for each calibration network but anchors, how much slower it is than the others predict, as a
    fraction of that prediction; the upper bound is made of them. ``kind`` leaves room for other predictors: a
    reader refuses what it does not know.
    """

    slope: float
    intercept_ms: float
    conversion_ns: float
    residuals: tuple[float, ...]
    kind: str = "affine"


@dataclass(frozen=True)
class LatencyTable:
    """What was measured on one device for one NetworkSpec, all in milliseconds at batch 1.

    ``entries`` are the isolated operations by the text of their :class:`OpKey`, each with the ``overhead`` of
    running a model at all. ``conditions`` are those of :meth:`Device.conditions` when profiling began, and
    ``plan`` says how it measured. ``created`` is ISO 8601.
    """

    device: str
    precision: str
    threads: int
    spec: NetworkSpec
    created: str
    conditions: Mapping[str, Any]
    plan: Mapping[str, Any]
    overhead: Measurement
    entries: Mapping[str, Measurement]
    calibration: tuple[CalibrationNetwork, ...] = ()
    predictor: Coefficients | None = None

    @property
    def overhead_ms(self) -> float:
        """What it takes to run a model that does nothing, in milliseconds."""
        return self.overhead.ms

    @property
    def noise(self) -> float:
        """The median spread of the calibration networks, a fraction: below it no prediction means anything."""
        return median(network.measured.spread for network in self.calibration) if self.calibration else 0.0

    def costs(self) -> dict[str, float]:
        """Return every entry less the overhead, in milliseconds and not below 0."""
        return {key: max(entry.ms - self.overhead.ms, 0.0) for key, entry in self.entries.items()}

    def require(self, spec: NetworkSpec, precision: str = "fp32") -> None:
        """Check that the table is for ``spec`` at ``precision``.

        Raises:
            TableError: it is for another network or another precision.
        """
        if spec != self.spec:
            raise TableError(
                f"the table is for {self.spec.describe()}, not for {spec.describe()}; "
                "profile the device for this network"
            )
        if precision != self.precision:
            raise TableError(
                f"the table is for precision {self.precision}, not {precision}; profile the device with that one"
            )

    def require_keys(self, keys: Iterable[OpKey]) -> None:
        """Check that every one of ``keys`` was measured: what is missing has no latency, not a latency of 0.

        Raises:
            TableError: the first that is missing, and how many are.
        """
        missing = [str(key) for key in keys if str(key) not in self.entries]
        if missing:
            raise TableError(
                f"the table has no entry for {missing[0]} ({len(missing)} missing in all); profile the device again"
            )

    def write(self, path: Path) -> None:
        """Write the table to ``path`` in one step."""
        TABLE.write(path, self.to_dict())

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """Read a table.

        Raises:
            TableError: it cannot be read, is no table, was changed after it was written, or is of a newer schema.
        """
        content = TABLE.read(path)
        try:
            return cls.from_dict(content)
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            raise TableError(f"{path} is no complete latency table ({error!r}); profile again") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
            "network": self.spec.to_dict(),
            "created": self.created,
            "conditions": dict(self.conditions),
            "plan": dict(self.plan),
            "overhead": _measurement_dict(self.overhead),
            "entries": {key: _measurement_dict(entry) for key, entry in self.entries.items()},
            "calibration": [
                {
                    "genotype": network.genotype.to_dict(),
                    "anchor": network.anchor,
                    **_measurement_dict(network.measured),
                }
                for network in self.calibration
            ],
            "predictor": asdict(self.predictor) if self.predictor is not None else None,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LatencyTable:
        """Build a table from :meth:`to_dict`'s form; KeyError, TypeError or InputError where it is not that."""
        predictor = content["predictor"]
        return cls(
            device=content["device"],
            precision=content["precision"],
            threads=content["threads"],
            spec=NetworkSpec.from_dict(content["network"]),
            created=content["created"],
            conditions=content["conditions"],
            plan=content["plan"],
            overhead=_measurement(content["overhead"]),
            entries={key: _measurement(entry) for key, entry in content["entries"].items()},
            calibration=tuple(
                CalibrationNetwork(
                    Genotype.from_dict(network["genotype"]), _measurement(network), bool(network["anchor"])
                )
                for network in content["calibration"]
            ),
            predictor=predictor and Coefficients(**{**predictor, "residuals": tuple(predictor["residuals"])}),
        )


def _measurement_dict(measured: Measurement) -> dict[str, Any]:
    return {"ms": measured.ms, "spread": measured.spread, "samples": list(measured.samples)}


def _measurement(value: Mapping[str, Any]) -> Measurement:
    return Measurement(float(value["ms"]), tuple(map(float, value["samples"])), float(value["spread"]))
