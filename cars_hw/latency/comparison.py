"""Comparison of two tables of one network: which operations changed by more than the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar, Final

from cars_hw.devices.protocol import Measurement
from cars_hw.errors import TableError
from cars_hw.latency.table import LatencyTable
from cars_hw.measurement.states import Machine
from cars_hw.space.architecture import Architecture

SIGMAS: Final = 3.0
"""So many standard errors apart two figures have to be to differ."""

LEAST_ERROR: Final = 0.0025
"""Three sessions that happen to agree do not make a measurement better than this."""


@dataclass(frozen=True)
class Moved:
    """One operation or network in both tables.

    ``ratio`` is the second latency divided by the first. ``noise`` is the fraction by which it may differ from 1 by
    chance.
    """

    name: str
    before_ms: float
    after_ms: float
    ratio: float
    noise: float

    DERIVED: ClassVar = ("beyond_noise",)

    @property
    def beyond_noise(self) -> bool:
        """Whether it changed by more than the noise."""
        return abs(math.log(self.ratio)) > math.log1p(self.noise)


@dataclass(frozen=True)
class TableDifference:
    """What differs between two tables.

    ``operations`` and ``networks`` are those of both tables, in the order of the first. ``only_before`` and
    ``only_after`` name the operations of one table only. ``conditions`` has the conditions that differ, by name.
    ``median_ratio`` is the median ratio of the operations, ``median_change`` the median absolute change, a
    fraction. ``machines`` has the states of the machine in the first and in the second table.
    """

    operations: tuple[Moved, ...]
    networks: tuple[Moved, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    conditions: dict[str, tuple[Any, Any]]
    median_ratio: float
    median_change: float
    machines: tuple[Machine, Machine]


def compare_tables(before: LatencyTable, after: LatencyTable) -> TableDifference:
    """Compare two tables of the same network, from one device or from two.

    Raises:
        TableError: the tables are for different networks, or have no operation in common.
    """
    if (before.spec, before.sizes) != (after.spec, after.sizes):
        raise TableError(
            f"the tables are of different networks, {before.describe()} and {after.describe()}; "
            "compare tables of one network"
        )
    operations = tuple(
        _moved(name, entry, after.entries[name]) for name, entry in before.entries.items() if name in after.entries
    )
    if not operations:
        raise TableError("the tables have no operation in common; compare tables of one network")
    later = {one.key(): network.measured for one, network in zip(after.calibrated, after.calibration, strict=True)}
    networks = tuple(
        _moved(_name(before, one), network.measured, later[one.key()])
        for one, network in zip(before.calibrated, before.calibration, strict=True)
        if one.key() in later
    )
    return TableDifference(
        operations=operations,
        networks=networks,
        only_before=tuple(name for name in before.entries if name not in after.entries),
        only_after=tuple(name for name in after.entries if name not in before.entries),
        conditions=_differing(_conditions(before), _conditions(after)),
        median_ratio=median(moved.ratio for moved in operations),
        median_change=median(abs(moved.ratio - 1) for moved in operations),
        machines=(before.machine, after.machine),
    )


def _name(table: LatencyTable, architecture: Architecture) -> str:
    """Return the genotype of ``architecture``, with its size where ``table`` is for several."""
    genotype, network = architecture
    size = "" if table.sizes is None else f"{table.sizes.describe_size(network)}, "
    return f"{size}{genotype.to_darts()}"


def _moved(name: str, before: Measurement, after: Measurement) -> Moved:
    noise = SIGMAS * math.hypot(*(max(one.standard_error, LEAST_ERROR) for one in (before, after)))
    return Moved(name, before.ms, after.ms, after.ms / before.ms, noise)


def _conditions(table: LatencyTable) -> dict[str, Any]:
    told = {name: value for name, value in table.conditions.items() if name not in ("time", "load")}
    return {"device": table.device, "precision": table.precision, "created": table.created, **told}


def _differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (before.get(name), after.get(name))
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    }
