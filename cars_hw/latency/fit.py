"""The fit of the line behind a predicted latency, see :mod:`cars_hw.latency.line`, by relative error.

The traits of a runtime, and the factors by width, are assumed only where networks that are left out are predicted
better by them. The factors by kind of operation are shrunk towards 1, and are assumed on the same condition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cars_hw.errors import DeviceError
from cars_hw.latency.line import ANY_WIDTH, PLAIN, FloatArray, Line, Observations, Traits, Widths

STEPS: Final = 21
"""How many values of the conversion are tried."""

PENALTIES: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""The shrinkages that are tried: of the factors' squared distance from 1, against squared relative errors."""

GAIN: Final = 0.95
"""Factors, and traits of the runtime, have to leave no more than this share of the error to be worth having."""

BLOCKS: Final = (1, 8, 16)
CACHES_MB: Final = (math.inf, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""The traits of a runtime and of its processor that are tried."""

WIDTH_BLOCKS: Final = (8, 16, 32)
"""The blocks of :class:`Widths` that are tried."""

LEAST_NETWORKS: Final = 4
"""So many networks with a multiple of the block, and as many others, are needed to tell them apart."""

WIDTH_PRIOR: Final = 2.0
"""A factor of :class:`Widths` is shrunk towards 1 as if so many more networks had the factor 1."""

WIDTH_ROUNDS: Final = 3
"""So many times the line and the factors of :class:`Widths` are fitted by turns."""


class Fitted(NamedTuple):
    """The line that was chosen, with the factors by width, if any, and its residuals.

    ``left_out_error`` is the mean absolute residual of each kind of predictor, and of the chosen one with factors
    by width.
    """

    line: Line
    residuals: FloatArray
    left_out_error: dict[str, float]
    widths: Widths = ANY_WIDTH


def fit_line(observations: Observations, traits: Traits = PLAIN) -> Line:
    """Return the line that has the least squared relative error; neither slope nor intercept is negative.

    An error of a millisecond matters more in a network of 5 ms than in one of 50. The conversion is the best of
    :data:`STEPS` values, from 0 to where half of the operations would cost nothing.

    Raises:
        DeviceError: the line does not rise: these are not measurements of these networks, or noise is all.
    """
    rising = []
    for conversion in _conversions(observations):
        rates, error = _solved(_columns(observations, traits, conversion), observations.measured)
        if rates is not None:
            rising.append((error, conversion, rates))
    if not rising:
        raise DeviceError(
            "networks with slower operations are not slower on this device; profile it again when it is quiet"
        )
    # Where nothing is gained but what rounding gives, the smaller conversion stands.
    best = min(error for error, *_ in rising)
    _, conversion, rates = next(one for one in rising if one[0] <= best + 1e-12)
    ratio = rates.unaligned / rates.slope
    return Line(rates.slope, rates.intercept_ms, conversion, None, traits, ratio, rates.spill_ms)


def _conversions(observations: Observations) -> list[float]:
    converting = observations.elements > 0
    ratios = 1e6 * observations.costs[converting] / observations.elements[converting]
    return np.linspace(0.0, float(np.median(ratios)), STEPS).tolist() if len(ratios) else [0.0]


class _Rates(NamedTuple):
    """Milliseconds for a millisecond of aligned and of other operations, of any network, and for a megabyte."""

    slope: float
    unaligned: float
    intercept_ms: float
    spill_ms: float


def _columns(observations: Observations, traits: Traits, conversion_ns: float) -> FloatArray:
    """Return shape (N, 4): what the rates multiply."""
    net = observations.net(conversion_ns, traits.block)
    aligned = observations.channels % traits.block == 0
    return np.stack(
        [
            observations.weighted_counts @ (net * aligned),
            observations.weighted_counts @ (net * ~aligned),
            np.ones(len(observations.measured)),
            observations.beyond(traits.cache_mb),
        ],
        axis=1,
    )


def _solved(columns: FloatArray, measured: FloatArray) -> tuple[_Rates | None, float]:
    """Return the rates by which ``columns`` (N, 4) explain ``measured`` (N,) best, and the squared error left.

    The rates are None where the line does not rise.
    """
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    relative = columns / measured[:, None]
    # Columns of one scale, for the sake of the solver's tolerance; one that is empty stays out of it.
    scale = np.maximum(relative.max(axis=0), np.finfo(float).tiny)
    there: npt.NDArray[np.bool_] = np.asarray(relative.any(axis=0))
    solution, error = nnls(relative[:, there] / scale[there], np.ones(len(relative)))
    found = np.zeros(len(scale))
    found[there] = solution / scale[there]
    if not there[1]:
        found[1] = found[0]
    if not there[0] or not found[:2].min() > 0:
        return None, math.inf
    return _Rates(*map(float, found)), float(error) ** 2


def choose_traits(observations: Observations, evaluated: Sequence[int]) -> Traits:
    """Return the traits of the runtime by which the ``evaluated`` networks are predicted best, each left out.

    Without a clear gain nothing is assumed.
    """
    errors = {}
    for traits in itertools.starmap(Traits, itertools.product(BLOCKS, CACHES_MB)):
        error = _left_out_error(observations, evaluated, traits)
        if error is not None:
            errors[traits] = error
    if PLAIN not in errors:
        return PLAIN
    best = min(errors, key=lambda traits: errors[traits])
    return best if errors[best] < GAIN * errors[PLAIN] else PLAIN


def _left_out_error(observations: Observations, evaluated: Sequence[int], traits: Traits) -> float | None:
    """Return the mean absolute residual of networks that are left out; None where a line does not rise.

    The conversion is that of all networks, for the sake of speed.
    """
    try:
        conversion = fit_line(observations, traits).conversion_ns
    except DeviceError:
        return None
    columns, measured = _columns(observations, traits, conversion), observations.measured
    left = []
    for network in evaluated:
        others = np.arange(len(measured)) != network
        rates, _ = _solved(columns[others], measured[others])
        if rates is None:
            return None
        left.append(abs(measured[network] / float(columns[network] @ np.array(rates)) - 1))
    return fmean(left)


def add_factors(line: Line, observations: Observations, penalty: float) -> Line:
    """Return ``line`` with a factor for every kind of operation, shrunk towards 1 by ``penalty``; ridge regression.

    What is fitted is what the line leaves, by relative error.
    """
    from sklearn.linear_model import Ridge

    parts = line.parts(observations)
    left, weights = observations.measured - line.predict(observations), observations.measured**-2.0
    model = Ridge(alpha=penalty).fit(parts, left, sample_weight=weights)
    intercept = line.intercept_ms + float(model.intercept_)
    if intercept < 0:
        intercept = 0.0
        model = Ridge(alpha=penalty, fit_intercept=False).fit(
            parts, left + line.intercept_ms, sample_weight=weights
        )
    return replace(line, intercept_ms=intercept, factors=1 + model.coef_)


def find_widths(line: Line, observations: Observations, block: int) -> Widths:
    """Return the factors of networks with multiples of ``block`` and of others, by what ``line`` leaves.

    A factor is the mean of what the operations of such networks take, by that of the line. It is shrunk towards 1,
    as by :data:`WIDTH_PRIOR` networks that have the factor 1.
    """
    assert observations.widths is not None
    plain = replace(observations, scale=None)
    ratios = (plain.measured - line.rest(plain)) / line.operations(plain)
    aligned = observations.widths % block == 0
    factors = [
        float((ratios[chosen].sum() + WIDTH_PRIOR) / (chosen.sum() + WIDTH_PRIOR)) for chosen in (aligned, ~aligned)
    ]
    return Widths(block, *factors)


def fit_widths(
    observations: Observations, block: int, penalty: float | None = None, traits: Traits = PLAIN
) -> tuple[Line, Widths]:
    """Return the line, with factors by kind if there is a ``penalty``, and the factors by width, fitted by turns.

    Raises:
        DeviceError: the line does not rise.
    """
    widths = ANY_WIDTH
    for _ in range(WIDTH_ROUNDS):
        scaled = observations.scaled(widths)
        line = _fitted(scaled, penalty, traits)
        widths = find_widths(line, observations, block)
    return line, widths


def _fitted(observations: Observations, penalty: float | None, traits: Traits) -> Line:
    line = fit_line(observations, traits)
    return line if penalty is None else add_factors(line, observations, penalty)


def _width_blocks(observations: Observations) -> list[int]:
    """Return the blocks by which there are enough networks of both sorts."""
    if observations.widths is None:
        return []
    aligned = {block: int((observations.widths % block == 0).sum()) for block in WIDTH_BLOCKS}
    total = len(observations.widths)
    return [block for block, count in aligned.items() if LEAST_NETWORKS <= count <= total - LEAST_NETWORKS]


def fit_best(observations: Observations, evaluated: Sequence[int]) -> Fitted:
    """Return the line, with factors by kind and by width only where they predict the ``evaluated`` networks better.

    Each of these networks is left out of the fit in turn.

    Raises:
        DeviceError: a line does not rise.
    """
    traits = choose_traits(observations, evaluated)
    plain, *shrunk = leave_one_out(observations, evaluated, (None, *PENALTIES), traits)
    errors = [float(np.abs(residuals).mean()) for residuals in shrunk]
    best = int(np.argmin(errors))
    told = {"affine": float(np.abs(plain).mean()), "ridge": errors[best]}
    line = fit_line(observations, traits)
    rich = add_factors(line, observations, PENALTIES[best])
    if told["ridge"] < GAIN * told["affine"] and _is_plausible(rich):
        return _with_widths(Fitted(rich, shrunk[best], told), observations, evaluated, PENALTIES[best])
    return _with_widths(Fitted(line, plain, told), observations, evaluated, None)


def _with_widths(
    fitted: Fitted, observations: Observations, evaluated: Sequence[int], penalty: float | None
) -> Fitted:
    """Return ``fitted`` with the factors by width that predict the ``evaluated`` networks best, if any do."""
    traits = fitted.line.traits
    tried = {
        block: _width_residuals(observations, evaluated, block, penalty, traits)
        for block in _width_blocks(observations)
    }
    if not tried:
        return fitted
    errors = {block: float(np.abs(residuals).mean()) for block, residuals in tried.items()}
    best = min(errors, key=lambda block: errors[block])
    told = {**fitted.left_out_error, "widths": errors[best]}
    if errors[best] >= GAIN * float(np.abs(fitted.residuals).mean()):
        return fitted._replace(left_out_error=told)
    line, widths = fit_widths(observations, best, penalty, traits)
    if not _is_plausible(line):
        return fitted._replace(left_out_error=told)
    return Fitted(line, tried[best], told, widths)


def _is_plausible(line: Line) -> bool:
    """Return whether all factors are positive: an operation of a negative or no latency is a fit to noise."""
    return line.factors is None or float(line.factors.min()) > 0


def _width_residuals(
    observations: Observations, left_out: Sequence[int], block: int, penalty: float | None, traits: Traits
) -> FloatArray:
    """Return what :func:`leave_one_out` does, with factors by width."""
    residuals = []
    for network in left_out:
        line, widths = fit_widths(observations.without(network), block, penalty, traits)
        predicted = line.predict(observations.scaled(widths))[network]
        residuals.append(observations.measured[network] / predicted - 1)
    return np.array(residuals)


def leave_one_out(
    observations: Observations,
    left_out: Sequence[int],
    penalties: Sequence[float | None],
    traits: Traits = PLAIN,
) -> list[FloatArray]:
    """Return, for each of ``penalties``, how far the networks ``left_out`` exceed their predictions by all others.

    As fractions of these predictions, each of shape (len(left_out),). Without a penalty there are no factors.

    Raises:
        DeviceError: a line does not rise.
    """
    residuals = np.empty((len(penalties), len(left_out)))
    for position, network in enumerate(left_out):
        others = observations.without(network)
        line = fit_line(others, traits)
        for row, penalty in enumerate(penalties):
            fitted = line if penalty is None else add_factors(line, others, penalty)
            residuals[row, position] = observations.measured[network] / fitted.predict(observations)[network] - 1
    return list(residuals)
