"""The states of a machine: what every model takes in the quiet state, and how much slower each moment was.

A machine slows down for seconds at a time: another process runs on the sibling hardware thread, a clock changes, a
processor gets hot. Every session of a model is a sample of one moment. The fit is a two-way model of all sessions,

    log(latency of a session) = quiet[model] + sensitivity[model] * level[moment] + noise,

in which the level of a moment is common to all models, 0 in the quiet state. Neighbouring sessions share a
moment, so that the level is a running median over them. A sensitivity differs from 1 where a model is bound by
memory and the machine is short of arithmetic, or the other way round. The parts are fitted in turn, robustly
(median polish, Tukey 1977, with the moments smoothed in time and a factor by row, as in Tukey's "row-PLUS-one"
fit).

The quiet state is the fastest level that recurs: it has a tenth of the time, and it was seen in the last third of
the measurement. A session of another state counts with the weight that the spread of sensitivities leaves it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cars_hw.config.measurement import QUIET, USUAL, quantile_of
from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int_]
BoolArray = npt.NDArray[np.bool_]

WINDOW: Final = 3
"""The level of a moment is the median over so many sessions before and after it."""

MAX_GAP_S: Final = 3.0
"""Sessions farther apart than this, in seconds, are no neighbours; a session stands for at most this time."""

LEAST_SHARE: Final = 0.1
"""A state has at least this share of the time."""

LAST_SHARE: Final = 0.05
"""The quiet state has at least this share of the last third of the measurement."""

LEAST_BAND: Final = 0.03
"""The least width of a state: levels closer than this, as a fraction, are not told apart."""

FASTEST: Final = 0.1
"""What varies within the quiet state beyond the noise is counted from this quantile of it."""

OTHER_BAND: Final = 0.1
"""The least width of a state that is not the quiet one: its level varies more."""

OUTLIER: Final = 4.0
"""A session so many standard deviations from the fit is of no state."""

LEAST_NOISE: Final = 0.003
"""Few sessions that happen to agree make a measurement no better than this, a fraction."""

SENSITIVITY_DEVIATION: Final = 0.3
"""How far sensitivities are from 1 before anything is known of them: a standard deviation."""

MIN_OTHER_SESSIONS: Final = 2
"""A sensitivity is estimated from at least so many sessions outside of the quiet state; below, it is 1."""

MAX_FASTER: Final = 1.05
"""A machine that was so many times faster before, and did not come back to it, is reported."""

ITERATIONS: Final = 12
QUANTILES: Final = 20
TO_DEVIATION: Final = 1.4826
"""From a median absolute deviation to the standard deviation of the normal distribution that has it."""


class Moments(NamedTuple):
    """N sessions in the order in which they ran.

    ``models`` (N,) numbers their models from 0, ``log_ms`` (N,) are the logarithms of their latencies in
    milliseconds, and ``ends`` (N,) the times in seconds at which they ended; without times, their numbers.
    """

    models: IntArray
    log_ms: FloatArray
    ends: FloatArray


@dataclass(frozen=True)
class MachineState(Settings):
    """A state that was seen: its share of the time, and how many times the quiet latency models take in it."""

    name: str
    # Shares are sums of many parts.
    share: float = setting(minimum=0, maximum=1 + 1e-6)
    factor: float = setting(above=0, maximum=1e6)


@dataclass(frozen=True)
class Machine(Settings):
    """The states of a machine during a measurement.

    ``states`` has the quiet state first, then slower ones. ``factors`` are the quantiles 0, 5, ... 100% over the
    time of how many times the quiet latency a model of sensitivity 1 took. ``noise`` is the standard deviation of
    a session in the quiet state, a fraction.

    ``faster_before`` is how many times faster than the quiet state the machine was earlier, in a state that did not
    come back; 1 without such a state. ``slower_than_expected`` is the latency of the reference in the quiet state
    relative to that in the latency table; None without a table.
    """

    states: tuple[MachineState, ...]
    factors: tuple[float, ...] = setting(above=0, maximum=1e6)
    noise: float = setting(minimum=0, maximum=1e6)
    faster_before: float = setting(1.0, above=0, maximum=1e6)
    slower_than_expected: float | None = setting(None, above=0, maximum=1e6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.states or not self.factors:
            raise InputError("a machine has at least one state and one factor")

    @property
    def quiet_share(self) -> float:
        """The share of the time in which the machine was in the quiet state."""
        return self.states[0].share

    @property
    def usual_factor(self) -> float:
        """How many times the quiet latency a model of sensitivity 1 took at the median moment."""
        return self.factor(USUAL)

    def warnings(self) -> list[str]:
        """Return why the quiet state is not the fastest that was seen, with its figure; empty if it is."""
        if self.faster_before <= MAX_FASTER:
            return []
        return [f"the machine was {self.faster_before:.2f} times faster before and did not return to that state"]

    def factor(self, state: str) -> float:
        """Return how many times the quiet latency a model of sensitivity 1 takes in ``state``.

        ``state`` is ``quiet``, ``usual``, or a quantile over the time as text, such as ``0.9``.

        Raises:
            InputError: another text.
        """
        if state == QUIET:
            return 1.0
        share = 0.5 if state == USUAL else quantile_of(state)
        places = np.linspace(0, 1, len(self.factors))
        return float(np.interp(share, places, self.factors))


ONE_STATE: Final = Machine((MachineState(QUIET, 1.0, 1.0),), (1.0, 1.0), 0.0)
"""A machine with one state, as a simulated one is, or one on which nothing was measured."""


@dataclass(frozen=True)
class StateFit:
    """M models and N sessions: what the model of states found.

    ``quiet_ms`` (M,) are latencies in the quiet state in milliseconds, ``standard_error`` (M,) their standard
    errors and ``spread`` (M,) the median distance of a model's sessions from the fit, both as fractions.
    ``sensitivity`` (M,) is 1 for a model that slows down as the others do. ``quiet_sessions`` (M,) counts a
    model's sessions in the quiet state. ``factors`` (N,) says how many times the quiet latency a model of
    sensitivity 1 took at each session, ``quiet`` (N,) whether it was in the quiet state.
    """

    quiet_ms: FloatArray
    standard_error: FloatArray
    spread: FloatArray
    sensitivity: FloatArray
    quiet_sessions: IntArray
    factors: FloatArray
    quiet: BoolArray
    machine: Machine


def fit_states(moments: Moments, count: int) -> StateFit:
    """Fit ``moments``, sessions of ``count`` models, of which every one has at least one session."""
    models, y = moments.models, moments.log_ms
    durations = _durations(moments.ends)
    quiet = np.full(count, np.inf)
    np.minimum.at(quiet, models, y)
    sensitivity = np.ones(count)
    level, is_quiet = np.zeros(len(y)), np.ones(len(y), bool)
    noise, band, faster = LEAST_NOISE, LEAST_BAND, 0.0
    for _ in range(ITERATIONS):
        raw = _smooth((y - quiet[models]) / sensitivity[models], moments.ends)
        band = max(LEAST_BAND, 4 * _local_noise(raw))
        centre, faster = _quiet_level(raw, durations, band)
        level = raw - centre
        is_quiet = np.abs(level) <= band / 2
        level = np.where(is_quiet, _told_by(level[is_quiet], noise) * level, level)
        # A machine that drifts has no state but its fastest moments.
        level -= float(np.quantile(level[is_quiet], FASTEST)) if is_quiet.any() else 0.0
        rest = ~is_quiet
        sensitivity = _sensitivities(models[rest], (y - quiet[models])[rest], level[rest], count, noise)
        before = quiet
        quiet = _locations(models, y - sensitivity[models] * level, _variances(level, noise), count)
        left = y - quiet[models] - sensitivity[models] * level
        noise = max(_quiet_noise(models, left, is_quiet, count), LEAST_NOISE)
        if np.max(np.abs(quiet - before)) < 1e-6:
            break
    left = y - quiet[models] - sensitivity[models] * level
    is_quiet &= np.abs(left) <= max(OUTLIER * noise, band / 2)
    return StateFit(
        quiet_ms=np.exp(quiet),
        standard_error=_standard_errors(models, left, _variances(level, noise), count),
        spread=np.array([_spread(left[models == one], is_quiet[models == one]) for one in range(count)]),
        sensitivity=sensitivity,
        quiet_sessions=np.bincount(models[is_quiet], minlength=count),
        factors=np.where(is_quiet, 1.0, np.exp(level)),
        quiet=is_quiet,
        machine=_machine(level, durations, band, noise, faster),
    )


def slowed_down(machine: Machine, reference_ms: float, fastest_ms: float) -> Machine:
    """Return ``machine`` with the fastest state that its reference was seen in, where the fit no longer has it."""
    if machine.faster_before > MAX_FASTER or reference_ms <= MAX_FASTER * fastest_ms:
        return machine
    return replace(machine, faster_before=round(reference_ms / fastest_ms, 4))


def compared(machine: Machine, reference_ms: float, expected_ms: float) -> Machine:
    """Return ``machine`` with the latency of its reference relative to that in a latency table."""
    return replace(machine, slower_than_expected=round(reference_ms / expected_ms, 6))


def _durations(ends: FloatArray) -> FloatArray:
    """Return the time that each session stands for, in seconds: half of the way to both neighbours."""
    gaps = np.minimum(np.diff(ends), MAX_GAP_S)
    first, last = (gaps[:1], gaps[-1:]) if len(gaps) else (np.ones(1), np.ones(0))
    steps = np.concatenate([first, gaps, last]) if len(gaps) else np.ones(2)
    return np.maximum((steps[:-1] + steps[1:]) / 2, 1e-6)


def _smooth(values: FloatArray, ends: FloatArray) -> FloatArray:
    """Return the running median of ``values`` over neighbours in time."""
    padded = np.full((2 * WINDOW + 1, len(values)), np.nan)
    for row, shift in enumerate(range(-WINDOW, WINDOW + 1)):
        here = np.arange(max(0, -shift), min(len(values), len(values) - shift))
        near = np.abs(ends[here + shift] - ends[here]) <= MAX_GAP_S if shift else np.ones(len(here), bool)
        padded[row, here[near]] = values[here[near] + shift]
    smoothed: FloatArray = np.nanmedian(padded, axis=0)
    return smoothed


def _local_noise(level: FloatArray) -> float:
    """Return the standard deviation of the noise of a smoothed level, from its steps: few of them change the
    state."""
    return _deviation(np.diff(level)) / math.sqrt(2) if len(level) > 1 else 0.0


def _deviation(values: FloatArray) -> float:
    """Return a standard deviation from the median distance to 0."""
    return TO_DEVIATION * float(np.median(np.abs(values))) if len(values) else 0.0


def _told_by(level: FloatArray, noise: float) -> float:
    """Return which part of the ``level`` of moments in one state is no noise of the sessions around, 0 to 1.

    A median of n samples has a variance of pi / 2 / n times theirs.
    """
    if len(level) < 2:
        return 0.0
    expected = math.pi / 2 * noise**2 / (2 * WINDOW + 1)
    return max(0.0, 1 - expected / max(float(np.var(level)), 1e-12))


def _quiet_noise(models: IntArray, left: FloatArray, quiet: BoolArray, count: int) -> float:
    """Return the standard deviation of a session in the quiet state; a model's own fit takes one of its
    sessions."""
    sessions = np.bincount(models[quiet], minlength=count)
    told = quiet & (sessions[models] >= 2)
    of = sessions[models[told]]
    return _deviation(left[told] * np.sqrt(of / (of - 1)))


def _quiet_level(level: FloatArray, durations: FloatArray, band: float) -> tuple[float, float]:
    """Return the level of the quiet state, and how far a state below it was that did not come back (0 or less)."""
    passed = np.cumsum(durations) / durations.sum()
    last = passed > 2 / 3
    order = np.argsort(level, kind="stable")
    lowest = None
    for index in order:
        inside = (level >= level[index]) & (level <= level[index] + band)
        if durations[inside].sum() < LEAST_SHARE * durations.sum():
            continue
        centre = _mode(level, durations, float(np.median(level[inside])), band)
        lowest = centre if lowest is None else lowest
        if durations[inside & last].sum() >= LAST_SHARE * durations[last].sum():
            if centre - lowest <= band:
                lowest = _fastest_before(level, durations, last, centre - band)
            return centre, min(lowest - centre, 0.0)
    # Levels spread so widely that no state has its share: the median moment is the one that is known. The faster
    # moments are reported like a state that did not come back.
    centre = _weighted_quantile(level, durations, 0.5)
    return centre, min(_weighted_quantile(level, durations, LAST_SHARE) - centre, 0.0)


def _fastest_before(level: FloatArray, durations: FloatArray, last: BoolArray, bound: float) -> float:
    """Return the level of the fastest moments, if they are below ``bound`` and did not come back at the end.

    A machine that slows down gradually has no state before its last one, as each of its levels lasts too short.
    Without such moments, the level is infinite.
    """
    below = level < bound
    if durations[below].sum() < LAST_SHARE * durations.sum():
        return math.inf
    if durations[below & last].sum() >= LAST_SHARE * durations[last].sum():
        return math.inf
    return _weighted_quantile(level, durations, LAST_SHARE)


def _mode(level: FloatArray, durations: FloatArray, centre: float, band: float) -> float:
    """Return the centre of the moments around ``centre``: the median of those in the band, moved along with it."""
    for _ in range(5):
        inside = np.abs(level - centre) <= band / 2
        if not inside.any():
            return centre
        centre = _weighted_quantile(level[inside], durations[inside], 0.5)
    return centre


def _weighted_quantile(values: FloatArray, weights: FloatArray, share: float) -> float:
    order = np.argsort(values, kind="stable")
    passed = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(passed, share * passed[-1] * (1 - 1e-12))])


def _sensitivities(models: IntArray, left: FloatArray, level: FloatArray, count: int, noise: float) -> FloatArray:
    """Return each model's slope over the level, (count,), shrunk towards the common one (ridge regression).

    The sessions are those outside of the quiet state.
    """
    if not len(models):
        return np.ones(count)
    # They differ by more than those in the quiet state; their distance from a common slope says by how much.
    busy_noise = max(_deviation(left - level), 2 * noise)
    prior = (busy_noise / SENSITIVITY_DEVIATION) ** 2
    xy, xx = np.bincount(models, left * level, count), np.bincount(models, level**2, count)
    sessions = np.bincount(models, minlength=count)
    slopes = np.where(sessions >= MIN_OTHER_SESSIONS, (xy + prior) / (xx + prior), 1.0)
    # Only the product of level and sensitivity is known: the median model has 1.
    slopes = slopes / float(np.median(slopes))
    return np.clip(slopes, 0.2, 3.0)


def _variances(level: FloatArray, noise: float) -> FloatArray:
    """Return (N,) variances of what a session says of the quiet latency."""
    variances: FloatArray = noise**2 + (SENSITIVITY_DEVIATION * level) ** 2
    return variances


def _locations(models: IntArray, values: FloatArray, variances: FloatArray, count: int) -> FloatArray:
    """Return the weighted mean of each model's ``values``, (count,), robust against outliers (Huber 1964)."""
    weights, deviations = 1 / variances, np.sqrt(variances)
    centres = np.empty(count)
    for one in range(count):
        mine = models == one
        centres[one] = _weighted_quantile(values[mine], weights[mine], 0.5)
    for _ in range(5):
        distance = np.abs(values - centres[models]) / deviations
        robust = weights * np.minimum(1.0, 1.5 / np.maximum(distance, 1e-12))
        centres = np.bincount(models, robust * values, count) / np.bincount(models, robust, count)
    return centres


def _standard_errors(models: IntArray, left: FloatArray, variances: FloatArray, count: int) -> FloatArray:
    """Return (count,) standard errors: of the common noise, or of a model's own where that is larger."""
    precision = np.bincount(models, 1 / variances, count)
    own = np.empty(count)
    for one in range(count):
        mine = models == one
        scatter = _deviation(left[mine] / np.sqrt(variances[mine]))
        # Of few sessions the own scatter says little: it is averaged with the common one, as if that had four.
        sessions = int(mine.sum())
        own[one] = max((sessions * scatter**2 + 4) / (sessions + 4), 1.0)
    errors: FloatArray = np.sqrt(own / precision)
    return errors


def _spread(left: FloatArray, quiet: BoolArray) -> float:
    return float(np.median(np.abs(left[quiet] if quiet.any() else left)))


def _machine(level: FloatArray, durations: FloatArray, band: float, noise: float, faster: float) -> Machine:
    # A faster state that did not come back is none of the machine's states.
    there = level >= -band
    level, durations = np.maximum(level[there], 0.0), durations[there]
    shares = np.linspace(0, 1, QUANTILES + 1)
    factors = tuple(round(math.exp(_weighted_quantile(level, durations, float(share))), 4) for share in shares)
    # Closer to it than two states can be told apart, a moment belongs to the quiet state.
    quiet = level <= band
    total = float(durations.sum())
    states = [MachineState(QUIET, round(float(durations[quiet].sum()) / total, 4), 1.0)]
    states += _other_states(level[~quiet], durations[~quiet], band, total)
    return Machine(tuple(states), factors, round(noise, 6), round(math.exp(-faster), 4))


def _other_states(level: FloatArray, durations: FloatArray, band: float, total: float) -> list[MachineState]:
    """Return further states, the fastest first: the densest band, as long as it has its share of the ``total``
    time."""
    found = []
    left = np.ones(len(level), bool)
    width = max(band, OTHER_BAND)
    while left.any():
        bands = [left & (level >= start) & (level <= start + width) for start in level[left]]
        inside = max(bands, key=lambda band: float(durations[band].sum()))
        share = float(durations[inside].sum()) / total
        if share < LEAST_SHARE:
            break
        factor = math.exp(_weighted_quantile(level[inside], durations[inside], 0.5))
        found.append(MachineState(f"{factor:.2f} times slower", round(share, 4), round(factor, 4)))
        left &= ~inside
    return sorted(found, key=lambda state: state.factor)
