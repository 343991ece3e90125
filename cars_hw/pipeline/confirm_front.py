"""The front on the device itself: what a search promises is measured before it is handed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device, open_device
from cars_hw.errors import BudgetError, CarsHwError
from cars_hw.evolution.population import Member
from cars_hw.latency import LatencyTable, measure_genotypes
from cars_hw.latency.profile import SAME_MACHINE
from cars_hw.latency.validation import require_device
from cars_hw.progress import Progress, prefixed, silent
from cars_hw.space.genotype import Genotype


class Held(NamedTuple):
    """A table's device, and in milliseconds what a network may take there; None where there is no budget."""

    table: LatencyTable
    device: Device
    limit_ms: float | None


class ConfirmedFront(NamedTuple):
    """The front that the devices agree to, who was struck, and the measured milliseconds of both by genotype."""

    front: list[Member]
    rejected: list[Member]
    measured: dict[Genotype, tuple[float, ...]]


def confirm_front(
    finalists: Sequence[Member],
    front_of: Callable[[Sequence[Member]], list[Member]],
    held: Sequence[Held],
    *,
    plan: MeasurePlan | None = None,
    progress: Progress = silent,
) -> ConfirmedFront:
    """Measure the front of ``finalists`` and strike what exceeds a budget, until a front is found that keeps to it.

    The next best take the place of who was struck: the front of all that are left. Every front is measured as a
    whole, in fresh sessions, so that the last word on every network is of the same hour. ``front_of`` makes a
    front; it gets at least one member.

    Raises:
        BudgetError: nobody is left.
        DeviceError: a device fails.
    """
    plan = plan or MeasurePlan()
    left = list(finalists)
    rejected: list[Member] = []
    measured: dict[Genotype, tuple[float, ...]] = {}
    while left:
        front = front_of(left)
        genotypes = [member.genotype for member in front]
        measured.update(zip(genotypes, _measure(genotypes, held, plan, progress), strict=True))
        over = [member for member in front if _exceeds(measured[member.genotype], held)]
        if not over:
            return ConfirmedFront(front, rejected, measured)
        rejected += over
        left = [member for member in left if member not in over]
    smallest = tuple(min(times) for times in zip(*measured.values(), strict=True))
    raise BudgetError(
        f"all {len(rejected)} networks that the search found exceed the budget when they are measured; allow more, "
        "or profile the device again: it is slower than when the table was made",
        smallest,
    )


def device_of(table: LatencyTable) -> tuple[Device | None, str]:
    """Return the device of ``table`` if it is this machine's and as it was, or None and why not."""
    try:
        device = open_device(table.device, table.threads)
        require_device(table, device)
        now = device.conditions()
    except CarsHwError as error:
        return None, str(error)
    for name in SAME_MACHINE:
        if now.get(name) != table.conditions.get(name):
            return None, f"{name} is {now.get(name)} here, and {table.conditions.get(name)} in the table"
    return device, ""


def _measure(
    genotypes: Sequence[Genotype], held: Sequence[Held], plan: MeasurePlan, progress: Progress
) -> list[tuple[float, ...]]:
    """Return each genotype's latencies, one for each of ``held``."""
    columns = []
    for table, device, _ in held:
        reference = table.reference
        found = measure_genotypes(
            device,
            table.spec,
            genotypes,
            plan,
            prefixed(progress, f"front on {table.device}"),
            precision=table.precision,
            reference=reference.genotype if reference is not None else None,
            usual_ms=reference.usual_ms if reference is not None else None,
        )
        columns.append([taken.ms for taken in found.models])
    return list(zip(*columns, strict=True))


def _exceeds(times: Sequence[float], held: Sequence[Held]) -> bool:
    return any(one.limit_ms is not None and ms > one.limit_ms for ms, one in zip(times, held, strict=True))
