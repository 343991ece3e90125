"""What ``--json`` prints where no other record of the package has the same content.

The JSON schemas of the documentation are made from these classes; see ``docs/reference/schemas.md``. The module is
imported by commands when they print: it needs NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cars_hw.config.measurement import Precision
from cars_hw.latency.energy import EnergyState
from cars_hw.latency.size_range import SizeRange
from cars_hw.latency.sustained import SustainedState
from cars_hw.measurement.states import Machine, MachineState
from cars_hw.measurement.sustained import Sustained
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid


@dataclass(frozen=True)
class DeviceOutput:
    """A device of ``cars-hw devices``. ``detail`` says what it is, or why it cannot be used."""

    name: str
    usable: bool
    detail: str


@dataclass(frozen=True)
class PluginOutput:
    """A name of ``cars-hw plugins``: its kind, the package it is from, and why it cannot be used, if so."""

    kind: str
    name: str
    package: str
    usable: bool
    detail: str


@dataclass(frozen=True)
class CostCounts:
    """Parameters and multiply-adds of the exported file, and by the published rule."""

    parameters: int
    multiply_adds: int
    published_parameters: int
    published_multiply_adds: int


@dataclass(frozen=True)
class CostOutput:
    """The counts of a genotype, by ``cars-hw cost``: those of ``CostCounts``."""

    name: str
    genotype: Genotype
    parameters: int
    multiply_adds: int
    published_parameters: int
    published_multiply_adds: int


@dataclass(frozen=True)
class ZooOutput:
    """A published genotype of ``cars-hw zoo``: its two cells, where it was published, and its costs by network.

    ``family`` names the family of the cells; the states ``normal_concat`` and ``reduce_concat`` are joined.
    """

    family: str
    normal: tuple[tuple[str, int], ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[tuple[str, int], ...]
    reduce_concat: tuple[int, ...]
    source: str
    costs: Mapping[str, CostCounts]


@dataclass(frozen=True)
class ClassOutput:
    """A class and its probability, a fraction."""

    name: str
    probability: float


@dataclass(frozen=True)
class ClassifiedOutput:
    """An image that ``cars-hw classify`` read: its classes, the likeliest first.

    ``folder_class`` is the class that a folder around it is called by, None without one.
    """

    image: str
    classes: tuple[ClassOutput, ...]
    folder_class: str | None


@dataclass(frozen=True)
class UnreadableOutput:
    """A file that ``cars-hw classify`` could not read, and the reason."""

    image: str
    error: str


@dataclass(frozen=True)
class MeasureOutput:
    """A network that ``cars-hw measure`` measured. Latencies are milliseconds, errors fractions.

    ``ms`` is the latency in the quiet state and ``usual_ms`` that in the usual state. ``samples`` has one latency a
    session. ``states`` and ``warnings`` are those of the device. ``sustained`` is there with ``--sustained``.
    """

    name: str
    genotype: Genotype
    ms: float
    usual_ms: float
    standard_error: float
    spread: float
    quiet_sessions: int
    states: tuple[MachineState, ...]
    samples: tuple[float, ...]
    warnings: tuple[str, ...]
    sustained: Sustained | None = None

    OPTIONAL: ClassVar = frozenset({"sustained"})


@dataclass(frozen=True)
class PredictOutput:
    """The latency of a network in milliseconds, by ``cars-hw predict``.

    ``ms`` is the latency in ``state`` and ``bound_ms`` its upper bound. ``stem``, ``cells`` (one figure a cell),
    ``head`` and ``other`` add up to ``ms``, and ``operations`` divides it by kind. ``sustained_p50_ms`` and
    ``sustained_ms`` are there if the table has the sustained state: those of the median run and of 90% of the runs.
    ``limit_ms`` and ``within_budget`` are there with ``--at-most``: the upper bound is compared with the limit.
    """

    name: str
    genotype: Genotype
    bound_ms: float
    usual_ms: float
    ms: float
    stem: float
    cells: tuple[float, ...]
    head: float
    operations: Mapping[str, float]
    other: float
    network: NetworkSpec
    state: str
    quality_warnings: tuple[str, ...]
    sustained_p50_ms: float | None = None
    sustained_ms: float | None = None
    limit_ms: float | None = None
    within_budget: bool | None = None

    OPTIONAL: ClassVar = frozenset({"sustained_p50_ms", "sustained_ms", "limit_ms", "within_budget"})


@dataclass(frozen=True)
class QuantileOutput:
    """The upper bound in milliseconds that a share ``quantile`` of random networks keeps to."""

    quantile: float
    bound_ms: float
    network: NetworkSpec
    state: str
    quality_warnings: tuple[str, ...]


@dataclass(frozen=True)
class BoundsOutput:
    """Upper bounds of networks in milliseconds: the smallest of all, and quantiles of random networks.

    ``sizes`` are those of the networks, where they have several.
    """

    bounds_ms: Mapping[str, float]
    network: NetworkSpec
    state: str
    quality_warnings: tuple[str, ...]
    sizes: SizeGrid | None = None

    OPTIONAL: ClassVar = frozenset({"sizes"})


@dataclass(frozen=True)
class TableOutput:
    """What ``cars-hw table show`` tells of a latency table; ``noise`` and ``standard_error`` are fractions."""

    device: str
    precision: Precision
    threads: int
    network: NetworkSpec
    sizes: SizeGrid | None
    created: str
    operations: int
    calibration_networks: int
    conditions: Mapping[str, Any]
    noise: float
    standard_error: float
    states: Machine
    sustained: SustainedState | None
    energy: EnergyState | None
    quality_warnings: tuple[str, ...]


@dataclass(frozen=True)
class ProfileOutput:
    """The table that ``cars-hw profile`` wrote.

    ``fastest_ms`` and ``slowest_ms`` are the latencies of its calibration networks in milliseconds. The upper bound
    is by ``margin`` above the prediction, and holds for a share ``level`` of networks; errors are fractions.
    ``estimated_from_others`` has the errors of operations that are estimated between measured ones, by kind, and
    ``further_channels`` the numbers of channels that were measured to reduce them. ``range`` has the sizes that
    were found for given latencies.
    """

    table: str
    device: str
    operations: int
    calibration_networks: int
    fastest_ms: float
    slowest_ms: float
    margin: float
    level: float
    noise: float
    standard_error: float
    states: Machine
    sustained: SustainedState | None
    quality_warnings: tuple[str, ...]
    predictor: str | None
    left_out_error: Mapping[str, float]
    estimated_from_others: Mapping[str, float]
    further_channels: Mapping[str, tuple[int, ...]]
    sizes: SizeGrid | None
    range: SizeRange | None


@dataclass(frozen=True)
class RunnerOutput:
    """The stored tool of ``cars-hw runner show``: its file, its SHA-256 and its source."""

    path: str
    sha256: str
    source: str
