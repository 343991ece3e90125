"""What a latency table would have been after less time, from the sessions that it keeps.

A shorter profile has fewer sessions of every model and fewer whole networks. Both are taken away from a finished
table, the states of the machine and the predictor are fitted again, and networks that took no part are predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice, Sample
from cars_hw.latency import Accuracy, LatencyTable
from cars_hw.latency.predictor import fit_coefficients
from cars_hw.latency.validation import predict_all
from cars_hw.measurement.schedule import REFERENCE, Event, Schedule, Series
from cars_hw.space.architecture import Architecture

OVERHEAD = "overhead"
STEPS = (0.25, 0.5, 0.75, 1.0)
"""The shares of the sessions and of the networks that are kept."""


class Shorter(NamedTuple):
    """A table of fewer sessions and networks, and the seconds that it would have taken."""

    table: LatencyTable
    sessions: int
    seconds: float


def shortened(table: LatencyTable, share: float) -> Shorter:
    """Return ``table`` with ``share`` of its sessions and of its calibration networks.

    Of every model the first sessions are kept, of the networks the smallest and others spread over the latencies.
    Each session takes the time since the one before, so that the time for writing models counts as well.
    """
    networks = _kept(len(table.calibration), share)
    calibration = [table.calibration[index] for index in networks]
    sessions = max(round(share * int(table.plan["sessions"])), 1)
    # Sessions that were run because the machine was not quiet are part of the whole table only.
    most = None if share == 1 else sessions
    samples = {OVERHEAD: table.overhead.samples}
    samples |= {key: entry.samples for key, entry in table.entries.items()}
    samples |= {str(index): table.calibration[index].measured.samples for index in networks}
    kept = {(name, sample.time) for name, taken in samples.items() for sample in taken[:most]}
    events, seconds = _events(table, kept)
    schedule = Schedule(FakeDevice(), MeasurePlan(), series=Series(events))
    names = [OVERHEAD, *table.entries, *map(str, networks)]
    found = schedule.measured(names)
    measured = dict(zip(names, found.models, strict=True))
    calibration = [
        replace(one, measured=measured[str(index)]) for one, index in zip(calibration, networks, strict=True)
    ]
    short = replace(
        table,
        overhead=measured[OVERHEAD],
        entries={key: measured[key] for key in table.entries},
        calibration=tuple(calibration),
        machine=found.machine,
    )
    return Shorter(replace(short, predictor=fit_coefficients(short, calibration)), sessions, seconds)


def _kept(count: int, share: float) -> list[int]:
    """Return the places of ``share`` of ``count`` networks, at least 8, first and last included."""
    return sorted({int(place) for place in np.linspace(0, count - 1, max(round(share * count), 8)).round()})


def _events(table: LatencyTable, kept: set[tuple[str, str | None]]) -> tuple[list[Event], float]:
    """Return the sessions of ``kept`` and those of the reference beside them, in their order, and their seconds."""
    everything = _in_order(table)
    known = [(event.model, event.sample.time) in kept for event in everything]
    before = [datetime.fromisoformat(table.created), *(_time(event.sample) for event in everything[:-1])]
    events, seconds = [], 0.0
    for place, event in enumerate(everything):
        beside = event.model == REFERENCE and any(known[max(place - 1, 0) : place + 2])
        if known[place] or beside:
            events.append(event)
            seconds += (_time(event.sample) - before[place]).total_seconds()
    return events, seconds


def _in_order(table: LatencyTable) -> list[Event]:
    assert table.reference is not None
    models: list[tuple[str, Iterable[Sample]]] = [
        (REFERENCE, table.reference.measured.samples),
        (OVERHEAD, table.overhead.samples),
        *((key, entry.samples) for key, entry in table.entries.items()),
        *((str(index), one.measured.samples) for index, one in enumerate(table.calibration)),
    ]
    events = [Event(name, sample) for name, samples in models for sample in samples]
    return sorted(events, key=lambda event: _time(event.sample))


def _time(sample: Sample) -> datetime:
    assert sample.time is not None
    return datetime.fromisoformat(sample.time)


def error_by_time(
    table: LatencyTable, networks: Sequence[Architecture], measured: Sequence[float], between: np.ndarray
) -> list[dict[str, Any]]:
    """Return what tables of less time predict for ``networks``.

    ``measured`` are their latencies in milliseconds, in the state of the table.

    ``between`` says which of the networks have numbers of channels that were not measured.
    """
    rows = []
    for share in STEPS:
        short, sessions, seconds = shortened(table, share)
        predictions = [one.ms for one in predict_all(short, networks)]
        errors = np.abs(np.array(predictions) / np.array(measured) - 1)
        accuracy = Accuracy.of(predictions, measured)
        rows.append(
            {
                "share": share,
                "seconds": round(seconds, 1),
                "sessions": sessions,
                "networks": len(short.calibration),
                "mean_error": accuracy.mean_error,
                "bias": accuracy.bias,
                "beyond_10": int(np.sum(errors > 0.1)),
                "kendall_tau": accuracy.kendall_tau,
                "between": float(errors[between].mean()) if between.any() else None,
            }
        )
        print(
            f"  {share:4.0%}: {seconds:4.0f} s, {sessions} sessions, {len(short.calibration)} networks: mean error "
            f"{accuracy.mean_error:.1%}, {rows[-1]['beyond_10']} beyond 10%, tau {accuracy.kendall_tau:.3f}",
            flush=True,
        )
    return rows
