"""The confirmation of the front: its networks are measured on the devices, and those over a limit are rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from cars_hw.config.measurement import MeasurePlan
from cars_hw.errors import BudgetError
from cars_hw.evolution.population import Finalist
from cars_hw.latency import measure_architectures
from cars_hw.measurement.schedule import MAX_SLOWER, Measured
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.progress import Log, Progress, no_log, prefixed, silent
from cars_hw.space.architecture import Architecture


class ConfirmedFront(NamedTuple):
    """The front, the networks that were rejected, and the measured latencies of both.

    ``measured`` has for each architecture the milliseconds on every target's device, None where a target has none.
    """

    front: list[Finalist]
    rejected: list[Finalist]
    measured: dict[Architecture, tuple[float | None, ...]]


def confirm_front(
    finalists: Sequence[Finalist],
    front_of: Callable[[Sequence[Finalist]], list[Finalist]],
    targets: Sequence[LatencyTarget],
    *,
    plan: MeasurePlan | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> ConfirmedFront:
    """Measure the front of ``finalists`` and reject networks over a limit, until all of the front keeps to it.

    The next best networks replace the rejected ones: the front is made again, by ``front_of``, of those that are
    left. Each front is measured as a whole and in fresh sessions, so that its latencies are of the same time.
    Targets without an open device are not measured. ``front_of`` gets at least one member. ``log`` gets a line for
    each front and device if the device did not reach the quiet state of its table. The patience of ``plan`` is for
    all fronts together on each device.

    Raises:
        BudgetError: every network was rejected; it carries the smallest latency that was measured on each device.
        DeviceError: a device fails.
    """
    plan = plan or MeasurePlan()
    left = list(finalists)
    rejected: list[Finalist] = []
    measured: dict[Architecture, tuple[float | None, ...]] = {}
    patience = [plan.patience_seconds] * len(targets)
    while left:
        front = front_of(left)
        architectures = [member.architecture for member in front]
        columns = []
        for index, target in enumerate(targets):
            own = replace(plan, patience_seconds=patience[index])
            times, waited_s = _measure(architectures, target, own, progress, log)
            columns.append(times)
            patience[index] = max(patience[index] - waited_s, 0.0)
        measured.update(zip(architectures, zip(*columns, strict=True), strict=True))
        over = [member for member in front if _over_limit(measured[member.architecture], targets)]
        if not over:
            return ConfirmedFront(front, rejected, measured)
        rejected += over
        left = [member for member in left if member not in over]
    every = zip(*measured.values(), strict=True)
    smallest = tuple(min(ms for ms in times if ms is not None) for times in every if None not in times)
    raise BudgetError(
        f"all {len(rejected)} networks that the search found exceed the budget when they are measured; allow more, "
        "or profile the device again: it is slower than when the table was made",
        smallest,
    )


def _measure(
    architectures: Sequence[Architecture],
    target: LatencyTarget,
    plan: MeasurePlan,
    progress: Progress,
    log: Log,
) -> tuple[list[float | None], float]:
    """Return the latency of each of ``architectures`` in milliseconds, and the seconds that were waited.

    Without a device the latencies are None.
    """
    if target.device is None:
        return [None] * len(architectures), 0.0
    table, reference = target.table, target.table.reference
    found = measure_architectures(
        target.device,
        architectures,
        plan,
        prefixed(progress, f"front on {target.device_name}"),
        precision=target.precision,
        reference=table.reference_architecture,
        expected_ms=reference.measured.ms if reference is not None else None,
    )
    problem = missed_quiet_state(target.device_name, found)
    if problem is not None:
        log(f"while the front was measured, {problem}")
    return [target.in_state(measurement) for measurement in found.models], found.waited_s


def missed_quiet_state(device: str, found: Measured) -> str | None:
    """Return what kept models from being measured in the quiet state of ``device``; None if all were.

    The quiet state is that of the latency table if its reference was measured beside the models.
    """
    slower = found.machine.slower_than_expected
    if slower is not None and slower > MAX_SLOWER:
        return (
            f"{device} did not return to the quiet state of its table: the reference network took {slower:.2f} "
            "times as long, so that the measured latencies are too high"
        )
    never = sum(model.quiet_sessions == 0 for model in found.models)
    if never:
        return (
            f"{never} of {len(found.models)} models had no session in the quiet state of {device}: their latencies "
            "are derived from slower states"
        )
    return None


def _over_limit(times: Sequence[float | None], targets: Sequence[LatencyTarget]) -> bool:
    return any(ms is not None and target.exceeded_by(ms) for ms, target in zip(times, targets, strict=True))
