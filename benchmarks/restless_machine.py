"""A machine that another process keeps busy, on and off at random: what a table made on it is worth.

Used by ``latency.py restless`` and ``latency.py estimators``.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cars_hw.devices import Device, Measurement
from cars_hw.errors import DeviceError
from cars_hw.latency import LatencyTable, Predictor, fresh_genotypes, measure_genotypes, profile_device
from cars_hw.latency.predictor import fit_coefficients
from cars_hw.latency.validation import Accuracy
from cars_hw.measurement.schedule import seconds_of
from cars_hw.space.network_spec import NETWORKS

HELD_OUT = 60
SHORTEST_S, LONGEST_S = 1.0, 10.0
"""How long the other process works, and rests, at a time."""

NEAR_BEST = 1.1
"""The reference takes at most this times its best latency at the moments that one of the estimators keeps."""


def on_and_off(core: int, seed: int) -> None:
    """Keep ``core`` busy for a random time, rest for a random time, for ever."""
    os.sched_setaffinity(0, [core])
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((128, 128))
    while True:
        ends = time.monotonic() + float(rng.uniform(SHORTEST_S, LONGEST_S))
        while time.monotonic() < ends:
            matrix = np.tanh(matrix @ matrix)
        time.sleep(float(rng.uniform(SHORTEST_S, LONGEST_S)))


@contextmanager
def neighbour(device: Device, seed: int, *, same_core: bool = False) -> Iterator[None]:
    """Keep a core busy, on and off: one on which ``device`` does not measure, or the very one."""
    pinned = device.conditions()["pinned"]
    others = pinned if same_core else sorted(os.sched_getaffinity(0) - set(pinned))
    # The threads of numpy would go to every core.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    process = multiprocessing.get_context("spawn").Process(target=on_and_off, args=(others[0], seed), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def profiled(device: Device, network: str, out: Path) -> tuple[LatencyTable, float]:
    """Profile ``device`` into ``out``; return the table and the seconds."""
    began = time.monotonic()
    table = profile_device(device, NETWORKS[network], out=out, overwrite=True)
    return table, time.monotonic() - began


def restless(
    device: Device, network: str, folder: Path, repetitions: int, *, same_core: bool = False
) -> dict[str, Any]:
    """Compare tables made beside a restless process with one of the machine left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    alone, seconds = profiled(device, network, folder / f"{network}-alone.json")
    print(f"{network}, alone: {seconds:.0f} s, {describe(alone)}", flush=True)
    own = held_out(device, alone)
    print(f"  held out: {own['text']}", flush=True)
    found = []
    for seed in range(repetitions):
        with neighbour(device, seed, same_core=same_core):
            table, seconds = profiled(device, network, folder / f"{network}-restless-{seed}.json")
        operations = shifts(alone, table)
        result = held_out(device, table)
        print(
            f"{network}, beside a restless process ({seed}): {seconds:.0f} s, {describe(table)}\n"
            f"  operations: {operations['text']}\n  held out: {result['text']}\n"
            f"  warnings: {table.quality_warnings()}",
            flush=True,
        )
        found.append(
            {
                "seconds": seconds,
                "machine": [vars(state) for state in table.machine.states],
                "operations": operations,
                "held_out": result,
                "quality_warnings": table.quality_warnings(),
            }
        )
    if not found:
        return {"network": network, "alone": own, "repetitions": []}
    pooled = np.concatenate([one["held_out"]["errors"] for one in found])
    covered = float(np.mean(np.concatenate([one["held_out"]["covered"] for one in found])))
    beyond = int(np.sum(np.abs(pooled) > 0.1))
    print(f"{network}, pooled: {beyond} of {len(pooled)} beyond 10%, the bound held for {covered:.1%}")
    return {"network": network, "alone": own, "repetitions": found, "beyond_10": beyond, "coverage": covered}


def describe(table: LatencyTable) -> str:
    """Return the states, the noise and the margin of ``table``."""
    states = ", ".join(f"{state.share:.0%} at {state.factor:.2f}" for state in table.machine.states)
    return f"{states}; standard error {table.standard_error:.2%}, margin {Predictor(table).margin:.1%}"


def shifts(before: LatencyTable, after: LatencyTable) -> dict[str, Any]:
    """Return how far the operations of two tables are apart: in common, and half and 90% of them about that."""
    ratios = np.array([after.entries[key].ms / entry.ms for key, entry in before.entries.items()])
    common = float(np.median(ratios))
    scatter = np.abs(ratios / common - 1)
    half, most = float(np.median(scatter)), float(np.quantile(scatter, 0.9))
    text = f"shifted by {common - 1:+.1%}; half within {half:.1%}, 90% within {most:.1%}"
    return {"common": common - 1, "half": half, "most": most, "text": text}


def held_out(device: Device, table: LatencyTable) -> dict[str, Any]:
    """Measure networks that took no part in ``table`` on the machine left alone; return how well it predicts
    them."""
    genotypes = fresh_genotypes(table, HELD_OUT, np.random.default_rng(1))
    assert table.reference is not None
    found = measure_genotypes(
        device,
        table.spec,
        genotypes,
        reference=table.reference_architecture,
        expected_ms=table.reference.measured.ms,
    )
    times = [measured.ms for measured in found.models]
    predictor = Predictor(table)
    predictions = [predictor.predict(genotype) for genotype in genotypes]
    accuracy = Accuracy.of([one.ms for one in predictions], times)
    covered = [ms <= one.bound_ms for one, ms in zip(predictions, times, strict=True)]
    text = (
        f"mean error {accuracy.mean_error:.1%}, bias {accuracy.bias:+.1%}, within 10% {accuracy.within_10:.0%}, "
        f"tau {accuracy.kendall_tau:.3f}, margin {predictor.margin:.1%}, bound held for {np.mean(covered):.0%}"
    )
    errors = [one.ms / ms - 1 for one, ms in zip(predictions, times, strict=True)]
    # The quiet state itself may have changed since the table was made: the reference tells by how much.
    change = found.machine.slower_than_expected or 1.0
    at_same_speed = float(np.mean([abs((1 + error) * change - 1) for error in errors]))
    text += f"; reference {change - 1:+.1%}, without this change mean error {at_same_speed:.1%}"
    return {
        "errors": errors,
        "covered": covered,
        "margin": predictor.margin,
        "mean_error": accuracy.mean_error,
        "kendall_tau": accuracy.kendall_tau,
        "slower_than_table": change,
        "mean_error_at_same_speed": at_same_speed,
        "text": text,
    }


class Sessions(NamedTuple):
    """All sessions of a table in their order: model, milliseconds, seconds; the last model is the reference."""

    models: np.ndarray
    ms: np.ndarray
    seconds: np.ndarray


def sessions_of(table: LatencyTable) -> Sessions:
    """Return the sessions of ``table``, of its operations, overhead first, its networks and its reference."""
    assert table.reference is not None
    measured = [
        table.overhead,
        *table.entries.values(),
        *(network.measured for network in table.calibration),
        table.reference.measured,
    ]
    models = np.concatenate([[number] * one.sessions for number, one in enumerate(measured)])
    samples = [sample for one in measured for sample in one.samples]
    seconds = seconds_of(samples)
    order = np.argsort(seconds, kind="stable")
    return Sessions(models[order], np.array([sample.ms for sample in samples])[order], seconds[order])


def by_model(sessions: Sessions, statistic: Callable[[np.ndarray], float], ms: np.ndarray) -> np.ndarray:
    """Return ``statistic`` of each model's ``ms``."""
    return np.array([statistic(ms[sessions.models == one]) for one in range(int(sessions.models.max()) + 1)])


def median_of_sessions(sessions: Sessions) -> np.ndarray:
    """Return the median over a model's sessions."""
    return by_model(sessions, np.median, sessions.ms)


def minimum(sessions: Sessions) -> np.ndarray:
    """Return the fastest session of a model."""
    return by_model(sessions, np.min, sessions.ms)


def interpolated(sessions: Sessions) -> np.ndarray:
    """Return what the reference took at each session, relative to its best."""
    own = sessions.models == sessions.models.max()
    reference = np.interp(sessions.seconds, sessions.seconds[own], sessions.ms[own])
    relative: np.ndarray = reference / sessions.ms[own].min()
    return relative


def over_reference(sessions: Sessions) -> np.ndarray:
    """Return the median of a model's sessions over the interleaved reference."""
    return by_model(sessions, np.median, sessions.ms / interpolated(sessions))


def near_best(sessions: Sessions) -> np.ndarray:
    """Return the median of the sessions at whose moment the reference was near its best; else of all."""
    good = interpolated(sessions) <= NEAR_BEST
    kept = np.where(good, sessions.ms, np.nan)
    return by_model(sessions, lambda ms: float(np.nanmedian(ms)) if not np.isnan(ms).all() else np.nan, kept)


def median_polish(sessions: Sessions) -> np.ndarray:
    """Return model effects of a two-way fit of the logarithms by model and second (Tukey 1977)."""
    left = np.log(sessions.ms)
    moments = np.unique(np.floor(sessions.seconds), return_inverse=True)[1]
    models, seconds = np.zeros(sessions.models.max() + 1), np.zeros(moments.max() + 1)
    for _ in range(20):
        for groups, effects in ((sessions.models, models), (moments, seconds)):
            change = np.array([np.median(left[groups == one]) for one in range(len(effects))])
            effects += change  # noqa: PLW2901 -- in place
            left = left - change[groups]
    return np.exp(models + np.median(seconds))


ESTIMATORS: dict[str, Callable[[Sessions], np.ndarray]] = {
    "median over sessions": median_of_sessions,
    "minimum over sessions": minimum,
    "session over reference": over_reference,
    "reference near its best": near_best,
    "median polish": median_polish,
}


def with_figures(table: LatencyTable, figures: np.ndarray) -> LatencyTable:
    """Return ``table`` with these latencies of overhead, operations and networks, fitted anew."""
    count = len(table.entries) + 1
    if np.isnan(figures).any():
        raise DeviceError("a model was never measured while the reference was near its best")

    def of(measured: Measurement, ms: float) -> Measurement:
        return replace(measured, ms=float(ms))

    pairs = zip(table.entries.items(), figures[1:count], strict=True)
    changed = replace(
        table,
        overhead=of(table.overhead, figures[0]),
        entries={key: of(entry, ms) for (key, entry), ms in pairs},
        calibration=tuple(
            replace(network, measured=of(network.measured, ms))
            for network, ms in zip(table.calibration, figures[count:-1], strict=True)
        ),
    )
    return replace(changed, predictor=fit_coefficients(changed, changed.calibration))


def estimators(paths: Sequence[Path]) -> dict[str, Any]:
    """Compare ways to make one figure of a model's sessions, on stored tables of one network and machine."""
    tables = [LatencyTable.read(path) for path in paths]
    every: dict[str, Callable[[LatencyTable], LatencyTable]] = {"states (the product)": lambda table: table}
    for name, estimator in ESTIMATORS.items():
        every[name] = lambda table, estimator=estimator: with_figures(table, estimator(sessions_of(table)))  # type: ignore[misc]
    found = {}
    for name, make in every.items():
        try:
            changed = [make(table) for table in tables]
        except DeviceError as error:
            print(f"{name:24} {error}")
            continue
        residuals = [np.abs(table.predictor.residuals) for table in changed if table.predictor is not None]
        pairs = [shifts(first, second) for first, second in itertools.combinations(changed, 2)]
        found[name] = {
            "left_out_error": [float(one.mean()) for one in residuals],
            "residuals_95": [float(np.quantile(one, 0.95)) for one in residuals],
            "pairs": pairs,
        }
        print(
            f"{name:24} left-out error {percents(found[name]['left_out_error'])}; 95% of residuals "
            f"{percents(found[name]['residuals_95'])}"
        )
        if pairs:
            print(
                f"{'':24} tables apart: shift {percents([abs(pair['common']) for pair in pairs])}; "
                f"half within {percents([pair['half'] for pair in pairs])}; "
                f"90% within {percents([pair['most'] for pair in pairs])}"
            )
    return found


def percents(values: Sequence[float]) -> str:
    """Return fractions as percentages, one after the other."""
    return ", ".join(f"{100 * value:.1f}" for value in values) + "%"
