"""The latency table of one device and one network: a JSON file that a person can read and a checksum protects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any, ClassVar, Final

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.codec import register, structure, unstructure
from cars_hw.config.measurement import SUSTAINED, Precision
from cars_hw.config.setting import Settings, count, milliseconds, setting
from cars_hw.devices.protocol import Measurement, Sample
from cars_hw.errors import InputError, TableError
from cars_hw.latency.energy import EnergyState
from cars_hw.latency.keys import OpKey
from cars_hw.latency.line import Line, Traits, Widths
from cars_hw.latency.operation_costs import OperationCosts
from cars_hw.latency.sustained import SustainedState
from cars_hw.measurement.states import ONE_STATE, Machine
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import Resolution, SizeGrid

TABLE: Final = ChecksummedFormat("cars-hw latency table", 3, "profile")


MAX_NOISE: Final = 0.03
MAX_STANDARD_ERROR: Final = 0.015
MAX_MODEL_ERROR: Final = 0.03
MAX_STAGE_DIFFERENCE: Final = 0.03
"""Above any of these values a measurement is unreliable; see :meth:`LatencyTable.quality_warnings`."""


NOTHING_ASSUMED: Final = {
    "block": 1,
    "unaligned": 1.0,
    "cache_mb": None,
    "spill_ms": 0.0,
    "width_block": 1,
    "width_multiples": 1.0,
    "width_others": 1.0,
}
"""What tables that were written before these fields were there say of the runtime."""


@dataclass(frozen=True)
class CalibrationNetwork:
    """A whole network that the predictor was fitted on.

    An ``anchor`` is a network at the end of the range of latencies. It keeps predictions within the measured range
    and is left out of the residuals. ``channels`` and ``layers`` are those of the network in a table over sizes;
    None in a table of one network. ``resolution`` is its height and width in pixels, None in a table of one
    resolution.
    """

    genotype: Genotype
    measured: Measurement
    anchor: bool = False
    channels: int | None = None
    layers: int | None = None
    resolution: Resolution | None = None

    def architecture(self, network: NetworkSpec) -> Architecture:
        """Return the genotype and its network, ``network`` being that of the table."""
        size = network.with_changes(channels=self.channels, layers=self.layers, resolution=self.resolution)
        return Architecture(self.genotype, size)


@dataclass(frozen=True)
class Reference(Settings):
    """The network that was measured before and after every block: it shows the states of the machine.

    ``operations_ms`` and ``networks_ms`` are its median latencies in the quiet state, in milliseconds, while only
    operations were measured and afterwards; None where that state was not seen.
    """

    genotype: Genotype
    measured: Measurement
    operations_ms: float | None = milliseconds(None)
    networks_ms: float | None = milliseconds(None)

    @property
    def difference(self) -> float:
        """The latency in the second stage relative to that in the first, less 1; 0 if one is not known."""
        if self.operations_ms is None or self.networks_ms is None:
            return 0.0
        return self.networks_ms / self.operations_ms - 1


@dataclass(frozen=True)
class Coefficients(Settings):
    """The predictor: ``slope`` times the sum of operations plus ``intercept_ms``.

    ``conversion_ns`` is subtracted for every element that the isolated model of an operation may convert, in
    nanoseconds; see :mod:`cars_hw.latency.line`. ``factors`` has one factor per kind of operation; it multiplies
    what is left of the latency after both subtractions (overhead and conversion). A missing factor is 1. They are
    empty for the ``kind`` ``affine`` and set for ``ridge``.

    ``unaligned`` multiplies the slope of operations whose channels are no multiples of ``block``, and for every
    megabyte of a network's weights beyond ``cache_mb`` the latency is ``spill_ms`` more. A ``block`` of 1 and a
    ``cache_mb`` of None assume nothing.

    For a table over sizes, ``width_multiples`` multiplies the slope of networks whose first cell has a multiple of
    ``width_block`` channels, and ``width_others`` that of other networks. A ``width_block`` of 1 assumes nothing.

    ``residuals`` has one value per calibration network, without anchors: how much slower the network is than a fit
    to the other networks predicts, as a fraction. The upper bound is computed from them. ``left_out_error`` is the
    mean absolute residual of ``affine``, of ``ridge``, and of ``widths``: the chosen one with factors by width,
    where they were tried. What has more factors was chosen only if its error is at least 5% smaller. Reading fails
    for an unknown ``kind``.
    """

    slope: float = setting(minimum=-1e9, maximum=1e9)
    intercept_ms: float = setting(minimum=-1e9, maximum=1e9)
    conversion_ns: float = setting(minimum=-1e9, maximum=1e9)
    residuals: tuple[float, ...] = setting(minimum=-1e6, maximum=1e6)
    kind: str = "affine"
    factors: Mapping[str, float] = field(default_factory=dict)
    left_out_error: Mapping[str, float] = field(default_factory=dict)
    block: int = count(1, minimum=1)
    unaligned: float = setting(1.0, minimum=0, maximum=1e9)
    cache_mb: float | None = setting(None, minimum=0, maximum=1e9)
    spill_ms: float = setting(0.0, minimum=0, maximum=1e9)
    width_block: int = count(1, minimum=1)
    width_multiples: float = setting(1.0, minimum=0, maximum=1e9)
    width_others: float = setting(1.0, minimum=0, maximum=1e9)

    @property
    def widths(self) -> Widths:
        """The factors by the number of channels."""
        return Widths(self.width_block, self.width_multiples, self.width_others)

    @property
    def line(self) -> Line:
        """The line without factors, neither by kind nor by width."""
        traits = Traits(self.block, math.inf if self.cache_mb is None else self.cache_mb)
        return Line(self.slope, self.intercept_ms, self.conversion_ns, None, traits, self.unaligned, self.spill_ms)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (*self.factors.items(), *self.left_out_error.items()):
            if not abs(value) <= 1e6:
                raise InputError(f"{name} must be from -1e6 to 1e6, not {value}")


@dataclass(frozen=True)
class LatencyTable:
    """The measurements of one device for one NetworkSpec, in milliseconds at batch 1.

    ``entries`` maps the text of each operation's :class:`OpKey` to its latency as a model of its own. Each includes
    the ``overhead``, which is the latency of a model that does nothing. ``conditions`` are those of
    :meth:`Device.conditions` when profiling began, and ``plan`` has the settings of the measurement. ``created`` is
    a time in ISO 8601 format. ``machine`` has the states of the machine, and ``standard_error`` is that of
    predicted networks, a fraction. All latencies are those of the quiet state. ``sustained`` has those after
    minutes of load; None in a table of a profile that did not measure them. ``energy`` has that of networks; None
    until it is measured.

    ``sizes`` is None for a table of ``spec`` alone. Otherwise the table is for ``spec`` at all sizes on and between
    those of the grid. Operations are measured at some of them, and ``spec`` is the network of the reference.

    ``operations`` are those that calibration networks could have, if the space was a part of the family; empty for
    all of them.
    """

    device: str
    precision: Precision
    threads: int
    spec: NetworkSpec
    created: str
    conditions: Mapping[str, Any]
    plan: Mapping[str, Any]
    overhead: Measurement
    entries: Mapping[str, Measurement]
    calibration: tuple[CalibrationNetwork, ...] = ()
    predictor: Coefficients | None = None
    reference: Reference | None = None
    machine: Machine = ONE_STATE
    standard_error: float = 0.0
    sizes: SizeGrid | None = None
    sustained: SustainedState | None = None
    operations: tuple[str, ...] = ()
    energy: EnergyState | None = None

    PLAIN_NAMES: ClassVar = {"spec": "network"}
    OPTIONAL: ClassVar = frozenset({"sustained", "operations", "energy"})

    @property
    def reference_architecture(self) -> Architecture | None:
        """The network that shows the state of the machine; None in a table without one."""
        return None if self.reference is None else Architecture(self.reference.genotype, self.spec)

    def describe(self) -> str:
        """Return a text for people: which networks the table is for."""
        return self.spec.describe() if self.sizes is None else self.sizes.describe_networks(self.spec)

    @property
    def calibrated(self) -> list[Architecture]:
        """The networks that the predictor was fitted on."""
        return [network.architecture(self.spec) for network in self.calibration]

    @property
    def overhead_ms(self) -> float:
        """What it takes to run a model that does nothing, in milliseconds."""
        return self.overhead.ms

    @property
    def noise(self) -> float:
        """The median spread of the calibration networks, a fraction: below it no prediction means anything."""
        return median(network.measured.spread for network in self.calibration) if self.calibration else 0.0

    @property
    def other_load(self) -> float | None:
        """The cores that other processes kept busy while networks were measured; None if not reported."""
        told = [
            sample.other_load
            for network in self.calibration
            for sample in network.measured.samples
            if sample.other_load is not None
        ]
        return fmean(told) if told else None

    def quality_warnings(self) -> list[str]:
        """Return the reasons why this table is unreliable, each with its figures; empty for a reliable one."""
        reasons = []
        if self.noise > MAX_NOISE:
            reasons.append(f"repeated sessions differ by {self.noise:.1%}, more than {MAX_NOISE:.0%}")
        if self.standard_error > MAX_STANDARD_ERROR:
            reasons.append(
                f"predicted networks have a standard error of {self.standard_error:.1%}, more than "
                f"{MAX_STANDARD_ERROR:.1%}"
            )
        measured = [*self.entries.values(), *(network.measured for network in self.calibration)]
        uncertain = sum(one.standard_error > MAX_MODEL_ERROR for one in measured)
        if uncertain:
            reasons.append(
                f"{uncertain} of {len(measured)} models have a standard error above {MAX_MODEL_ERROR:.0%}: too few "
                "of their sessions ran in the quiet state"
            )
        reasons += self.machine.warnings()
        if self.reference is not None and abs(self.reference.difference) > MAX_STAGE_DIFFERENCE:
            reasons.append(
                f"the quiet state changed by {self.reference.difference:+.1%} between the operations and the "
                f"networks, more than {MAX_STAGE_DIFFERENCE:.0%}"
            )
        return [*reasons, *self.device_warnings]

    @property
    def device_warnings(self) -> list[str]:
        """Why the device was slower than it can be when the table was made, as it told; each in a few words."""
        return list(map(str, self.conditions.get("warnings") or ()))

    def sustained_warnings(self) -> list[str]:
        """Return why the figures of the sustained state are unreliable, each in a few words; empty without one."""
        found = [] if self.sustained is None else self.sustained.warnings()
        return [f"the sustained state: {one}" for one in found]

    def require_sustained(self) -> SustainedState:
        """Return the sustained state.

        Raises:
            InputError: it was not measured.
        """
        if self.sustained is None:
            raise InputError("the table does not have the sustained state", remedy="profile-sustained")
        return self.sustained

    def factor(self, state: str) -> float:
        """Return how many times the quiet latency a model of sensitivity 1 takes in ``state``.

        ``state`` is ``quiet``, ``usual``, ``sustained``, or a quantile over the time such as ``0.9``.

        Raises:
            InputError: another text, or the sustained state was not measured.
        """
        return self.require_sustained().p90_factor if state == SUSTAINED else self.machine.factor(state)

    def in_state(self, measured: Measurement, state: str) -> float:
        """Return the latency in milliseconds that ``measured`` has in ``state``.

        Raises:
            InputError: an unknown state, or the sustained state was not measured.
        """
        # How much a model slows down beside other processes says nothing of heat.
        return self.factor(state) * measured.ms if state == SUSTAINED else measured.in_state(self.factor(state))

    def costs(self) -> dict[str, float]:
        """Return every entry less the overhead, in milliseconds and not below 0."""
        return {key: max(entry.ms - self.overhead.ms, 0.0) for key, entry in self.entries.items()}

    @cached_property
    def operation_costs(self) -> OperationCosts:
        """The costs of operations, those between the measured sizes included."""
        return OperationCosts(
            {OpKey.parse(key): ms for key, ms in self.costs().items()}, between=self.sizes is not None
        )

    def covers(self, spec: NetworkSpec) -> bool:
        """Return whether the table is for ``spec``."""
        if self.sizes is None:
            return spec == self.spec
        same = spec.is_size_of(self.spec, any_resolution=bool(self.sizes.resolutions))
        return same and self.sizes.covers(spec)

    def require(self, spec: NetworkSpec, precision: str = "fp32") -> None:
        """Check that the table is for ``spec`` at ``precision``.

        Raises:
            TableError: it is for another network or another precision.
        """
        if not self.covers(spec):
            raise TableError(
                f"the table is for {self.describe()}, not for {spec.describe()}; profile the device for this "
                "network"
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
        plain = unstructure(self)
        if self.sizes is None:
            # A table of one network has the form that it had before there were sizes.
            del plain["sizes"]
        if self.spec.depths is None:
            del plain["network"]["depths"]
        TABLE.write(path, plain)

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """Read a table.

        Raises:
            TableError: it cannot be read, is no table, was changed after it was written, or is of a newer schema.
        """
        content = TABLE.read(path)
        if isinstance(content.get("predictor"), dict):
            content["predictor"] = {**NOTHING_ASSUMED, **content["predictor"]}
        if isinstance(content.get("network"), dict):
            content["network"] = {"depths": None, **content["network"]}
        try:
            return structure({"sizes": None, **content}, cls)
        except InputError as error:
            raise TableError(f"{path} is no complete latency table: {error}; profile again") from error


@dataclass(frozen=True)
class ColumnsForm(Settings):
    """The samples of a measurement in the file: a list for each figure; figures the device lacks are left out."""

    PLAIN_NAMES: ClassVar = {"other_load": "others"}
    ADDED: ClassVar = frozenset({"time", "load", "clock_mhz", "other_load", "factor"})

    ms: tuple[float, ...] = setting(minimum=0, maximum=1e9)
    time: tuple[str | None, ...] = ()
    load: tuple[float | None, ...] = ()
    clock_mhz: tuple[float | None, ...] = ()
    other_load: tuple[float | None, ...] = ()
    factor: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class MeasuredForm(Settings):
    """A measurement in the file."""

    ADDED: ClassVar = frozenset({"standard_error", "sensitivity", "quiet_sessions"})

    ms: float = setting(minimum=0, maximum=1e9)
    spread: float = setting(minimum=0, maximum=1e9)
    samples: ColumnsForm = setting()
    standard_error: float = setting(0.0, minimum=0, maximum=1e9)
    # A factor of a million, to this power, is a float still.
    sensitivity: float = setting(1.0, minimum=-50, maximum=50)
    quiet_sessions: int = count(0)


@dataclass(frozen=True)
class CalibratedForm(MeasuredForm):
    """A calibration network in the file."""

    ADDED: ClassVar = MeasuredForm.ADDED | {"channels", "layers", "resolution"}

    genotype: Genotype = field(kw_only=True)
    anchor: bool = field(kw_only=True)
    channels: int | None = count(None)
    layers: int | None = count(None)
    resolution: Resolution | None = setting(None, metavar="HxW")


FIGURES: Final = ("ms", "spread", "standard_error", "sensitivity", "quiet_sessions")


def _measured_plain(measured: Measurement) -> dict[str, Any]:
    columns = dict(zip(Sample._fields, zip(*measured.samples, strict=True), strict=True))
    told = {
        ColumnsForm.PLAIN_NAMES.get(name, name): list(column)
        for name, column in columns.items()
        if any(value is not None for value in column)
    }
    return {**{name: getattr(measured, name) for name in FIGURES}, "samples": told}


def _measured(plain: MeasuredForm) -> Measurement:
    columns = {name: column for name, column in vars(plain.samples).items() if column}
    try:
        rows = zip(*columns.values(), strict=True)
        samples = tuple(Sample(**dict(zip(columns, row, strict=True))) for row in rows)
    except ValueError as error:
        raise InputError("samples must be lists of one length") from error
    return Measurement(samples=samples, **{name: getattr(plain, name) for name in FIGURES})


def _size_plain(network: CalibrationNetwork) -> dict[str, Any]:
    size: dict[str, Any] = {}
    if network.channels is not None:
        size = {"channels": network.channels, "layers": network.layers}
    if network.resolution is not None:
        size["resolution"] = list(network.resolution)
    return size


def _calibrated(value: object) -> CalibrationNetwork:
    plain = structure(value, CalibratedForm, complete=False)
    size = {"channels": plain.channels, "layers": plain.layers}
    return CalibrationNetwork(plain.genotype, _measured(plain), plain.anchor, **size, resolution=plain.resolution)


register(
    Measurement,
    to_plain=_measured_plain,
    from_plain=lambda value: _measured(structure(value, MeasuredForm, complete=False)),
)
register(
    CalibrationNetwork,
    to_plain=lambda network: {
        "genotype": network.genotype.to_dict(),
        "anchor": network.anchor,
        **_size_plain(network),
        **_measured_plain(network.measured),
    },
    from_plain=_calibrated,
)
