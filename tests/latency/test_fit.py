from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from cars_hw.errors import DeviceError, InputError
from cars_hw.latency import fit
from cars_hw.latency.conformal import conformal_margin
from cars_hw.latency.fit import GAIN, add_factors, choose_traits, find_widths, fit_best, fit_line, leave_one_out
from cars_hw.latency.line import ANY_WIDTH, PLAIN, FloatArray, Line, Observations, Traits, Widths, net_costs

KINDS = np.array([0, 1, 1, 2, 2, 3])


def seen(
    counts: FloatArray, costs: FloatArray, elements: FloatArray, kinds: np.ndarray, measured: FloatArray
) -> Observations:
    """Return observations of operations that have 16 channels and no weights."""
    size = len(costs)
    return Observations(counts, costs, elements, kinds, measured, np.full(size, 16), np.zeros(size))


def observations(
    slope: float, intercept: float, conversion_ns: float, *, networks: int = 20, seed: int = 0
) -> Observations:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (networks, 6)).astype(float)
    # Three operations that are half conversion, two that are not, and one without any.
    elements = np.array([1e5, 2e5, 4e5, 1e4, 1e4, 0.0])
    costs = np.array([0.1, 0.2, 0.4, 0.3, 0.2, 0.1])
    measured = slope * counts @ net_costs(costs, elements, conversion_ns) + intercept
    return seen(counts, costs, elements, KINDS, measured)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.6, 0.5), (2.5, 0.01)])
def test_a_line_without_conversion_is_found_exactly(slope: float, intercept: float) -> None:
    line = fit_line(observations(slope, intercept, 0.0))
    assert line.conversion_ns == 0.0
    assert line.slope == pytest.approx(slope)
    assert line.intercept_ms == pytest.approx(intercept, abs=1e-9)


def test_a_conversion_is_found() -> None:
    # The median of 1, 1, 1, 30 and 20 ns is 1: half of it is one of the values that are tried.
    line = fit_line(observations(0.9, 0.05, 0.5))
    assert line.conversion_ns == pytest.approx(0.5)
    assert line.slope == pytest.approx(0.9)
    assert line.intercept_ms == pytest.approx(0.05)


def test_a_tenth_of_a_cost_remains_at_least() -> None:
    net = net_costs(np.array([0.1, 0.1, 0.1]), np.array([0.0, 1e5, 3e5]), 0.5)
    assert net.tolist() == pytest.approx([0.1, 0.05, 0.01])


def test_an_intercept_is_not_negative() -> None:
    # The best line is 2 x - 1; the best line through the origin has the slope sum(x / y) / sum(x^2 / y^2).
    counts = np.array([[1.0], [2.0], [3.0]])
    measured = np.array([1.0, 3.0, 5.0])
    line = fit_line(seen(counts, np.array([1.0]), np.array([0.0]), np.array([0]), measured))
    assert line.intercept_ms == 0.0
    assert line.slope == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / (1 / 1 + 4 / 9 + 9 / 25))


@pytest.mark.parametrize("penalty", [0.003, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_factors_leave_no_negative_intercept(penalty: float, seed: int) -> None:
    exact = observations(1.0, 0.0, 0.2, seed=seed)
    noise = np.random.default_rng(seed).normal(0, 0.05, len(exact.measured))
    noisy = replace(exact, measured=exact.measured * np.exp(noise))
    rich = add_factors(fit_line(noisy), noisy, penalty)
    assert rich.intercept_ms >= 0


def test_the_error_that_is_squared_is_relative() -> None:
    counts = np.array([[1.0], [1.0], [2.0], [2.0]])
    measured = np.array([6.0, 7.0, 10.0, 12.0])
    line = fit_line(seen(counts, np.array([1.0]), np.array([0.0]), np.array([0]), measured))
    low, high = line.slope + line.intercept_ms, 2 * line.slope + line.intercept_ms
    # At each point the least squared relative error is at (sum of 1/y) / (sum of 1/y^2).
    assert low == pytest.approx((1 / 6 + 1 / 7) / (1 / 36 + 1 / 49))
    assert high == pytest.approx((1 / 10 + 1 / 12) / (1 / 100 + 1 / 144))


def test_a_line_that_falls_is_refused() -> None:
    rising = observations(1.0, 0.1, 0.0)
    falling = replace(rising, measured=20 - rising.measured)
    with pytest.raises(DeviceError, match="not slower"):
        fit_line(falling)


def with_traits(block: int, cache_mb: float, noise: float = 0.0, *, networks: int = 40) -> Observations:
    """Networks of operations with 8 and with 16 channels, of 1.2 to 12 MB, on a runtime with these traits."""
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 6, (networks, 6)).astype(float) + rng.integers(1, 4, (networks, 1))
    plain = seen(
        counts,
        np.array([0.1, 0.2, 0.4, 0.3, 0.2, 0.1]),
        np.array([1e5, 0, 2e5, 1e5, 0, 2e5]),
        KINDS,
        np.ones(networks),
    )
    plain = replace(
        plain, channels=np.array([8, 8, 8, 16, 16, 16]), weights_mb=np.array([0.3, 0.1, 0.5, 0.02, 0.4, 0.2])
    )
    truth = Line(0.8, 0.1, 0.25, None, Traits(block, cache_mb), unaligned=1.5, spill_ms=0.3)
    return replace(plain, measured=truth.predict(plain) * np.exp(noise * rng.standard_normal(networks)))


@pytest.mark.parametrize(("block", "cache_mb"), [(16, math.inf), (1, 4.0), (16, 4.0)])
def test_the_traits_of_a_runtime_are_found_and_so_are_its_rates(block: int, cache_mb: float) -> None:
    runtime = with_traits(block, cache_mb, noise=1e-4)
    traits = choose_traits(runtime, range(40))
    assert traits == Traits(block, cache_mb)
    line = fit_line(runtime, traits)
    assert line.predict(runtime) == pytest.approx(runtime.measured, rel=5e-3)
    if block == 16:
        assert line.unaligned == pytest.approx(1.5, rel=0.02)
    if cache_mb == 4.0:
        assert line.spill_ms == pytest.approx(0.3, rel=0.05)


def test_nothing_is_assumed_of_a_runtime_without_traits() -> None:
    assert choose_traits(observations(0.8, 0.1, 0.2), range(20)) == PLAIN
    noisy = observations(0.8, 0.1, 0.2)
    noise = np.random.default_rng(1).normal(0, 0.03, len(noisy.measured))
    assert choose_traits(replace(noisy, measured=noisy.measured * np.exp(noise)), range(20)) == PLAIN


def test_weights_beyond_the_cache_take_their_time() -> None:
    # Two networks: 3 and 5 MB; a cache of 4 MB.
    runtime = replace(
        seen(np.array([[3.0], [5.0]]), np.array([2.0]), np.array([0.0]), np.array([0]), np.ones(2)),
        weights_mb=np.array([1.0]),
    )
    line = Line(0.5, 0.25, 0.0, None, Traits(1, 4.0), spill_ms=0.125)
    assert line.predict(runtime).tolist() == [0.5 * 6 + 0.25, 0.5 * 10 + 0.25 + 0.125]


def test_operations_that_are_not_aligned_have_a_slope_of_their_own_and_no_conversion() -> None:
    runtime = replace(
        seen(np.array([[1.0, 1.0]]), np.array([1.0, 1.0]), np.array([1e6, 1e6]), np.array([0, 1]), np.ones(1)),
        channels=np.array([8, 16]),
    )
    line = Line(2.0, 0.0, 0.25, None, Traits(16, math.inf), unaligned=1.5)
    # 16 channels: 1 ms less 0.25 ms of conversion, twice. 8 channels: 1 ms, three times.
    assert line.costs(runtime).tolist() == [3.0, 1.5]


def test_a_network_is_judged_by_the_others_alone() -> None:
    exact = observations(0.8, 0.2, 0.0, networks=8)
    measured = exact.measured.copy()
    measured[3] *= 1.5
    changed = replace(exact, measured=measured)
    # Without it the line is exact, so it stands out by all of its half.
    assert leave_one_out(changed, [3], [None])[0] == pytest.approx([0.5])
    (both,) = leave_one_out(changed, [3, 0], [None])
    assert both.shape == (2,)
    assert both[0] == pytest.approx(0.5)
    # The others are judged by a line that it has bent.
    assert abs(both[1]) > 0.001


def with_factors(factors: list[float], *, noise: float = 0.0, networks: int = 30) -> Observations:
    plain = observations(1.0, 0.0, 0.0, networks=networks)
    measured = plain.by_kind(0.0) @ np.array(factors) + 0.2
    rng = np.random.default_rng(7)
    return replace(plain, measured=measured * np.exp(noise * rng.standard_normal(networks)))


def test_the_parts_by_kind_are_the_parts_of_the_sum() -> None:
    seen = observations(1.0, 0.0, 0.0, networks=3)
    parts = seen.by_kind(0.5)
    assert parts.shape == (3, 4)
    assert parts.sum(axis=1) == pytest.approx(seen.sums(0.5))
    # Kind 1 is the second operation and the third, each half of it conversion.
    assert parts[:, 1] == pytest.approx(seen.counts[:, 1] * 0.1 + seen.counts[:, 2] * 0.2)


def test_factors_that_are_there_are_found() -> None:
    factors = [0.7, 1.1, 1.0, 1.4]
    seen = with_factors(factors)
    line = add_factors(fit_line(seen), seen, 1e-9)
    assert line.factors is not None
    assert line.slope * line.factors == pytest.approx(factors, abs=1e-3)
    assert line.predict(seen) == pytest.approx(seen.measured, rel=1e-4)


def test_ridge_by_its_normal_equations() -> None:
    seen = with_factors([0.7, 1.1, 1.0, 1.4], noise=0.02)
    line = Line(0.9, 0.1, 0.0)
    penalty = 0.05
    found = add_factors(line, seen, penalty)
    # Minimise sum(w * (t - X d - b)^2) + penalty * |d|^2 over d and b, with w = 1 / y^2.
    x = np.c_[0.9 * seen.by_kind(0.0), np.ones(30)]
    w = seen.measured**-2.0
    t = seen.measured - (0.9 * seen.sums(0.0) + 0.1)
    solution = np.linalg.solve(x.T @ (w[:, None] * x) + np.diag([penalty] * 4 + [0.0]), x.T @ (w * t))
    assert found.factors == pytest.approx(1 + solution[:4])
    assert found.intercept_ms == pytest.approx(0.1 + solution[4])


def test_factors_are_had_only_where_they_help_with_networks_that_are_left_out() -> None:
    bent = fit_best(with_factors([0.7, 1.1, 1.0, 1.4], noise=0.01), range(30))
    assert bent.line.factors is not None
    assert bent.left_out_error["ridge"] < GAIN * bent.left_out_error["affine"]
    assert float(np.abs(bent.residuals).mean()) == pytest.approx(bent.left_out_error["ridge"])
    straight = fit_best(with_factors([0.9] * 4, noise=0.02), range(30))
    assert straight.line.factors is None
    assert float(np.abs(straight.residuals).mean()) == pytest.approx(straight.left_out_error["affine"])


def of_widths(block: int, others: float, *, noise: float, networks: int = 40) -> Observations:
    """Return networks of four widths; what does not divide by ``block`` takes ``others`` times as long."""
    plain = observations(0.8, 0.1, 0.0, networks=networks)
    widths = np.resize([16, 24, 32, 40], networks)
    factors = np.where(widths % block == 0, 1.0, others)
    measured = 0.8 * plain.sums(0.0) * factors + 0.1
    rng = np.random.default_rng(5)
    return replace(plain, widths=widths, measured=measured * np.exp(noise * rng.standard_normal(networks)))


def test_networks_of_other_widths_than_multiples_have_a_factor_of_their_own() -> None:
    found = fit_best(of_widths(16, 1.2, noise=0.005), range(40))
    assert found.widths.block == 16
    # Twenty networks have the factor, and two without it are assumed.
    assert found.widths.others / found.widths.multiples == pytest.approx(1.2, rel=0.03)
    assert found.left_out_error["widths"] < 0.02 < found.left_out_error["affine"]
    assert float(np.abs(found.residuals).mean()) == pytest.approx(found.left_out_error["widths"])
    assert (found.widths.factor(48), found.widths.factor(56)) == found.widths[1:]


def test_widths_have_no_factor_where_it_does_not_help() -> None:
    found = fit_best(of_widths(16, 1.0, noise=0.02), range(40))
    assert found.widths == ANY_WIDTH
    assert found.widths.factor(24) == 1.0
    # All networks of one width, and too few of others, say nothing.
    alike = replace(of_widths(16, 1.2, noise=0.005), widths=np.full(40, 16))
    assert "widths" not in fit_best(alike, range(40)).left_out_error
    few = replace(alike, widths=np.array([24] * 3 + [16] * 37))
    assert "widths" not in fit_best(few, range(40)).left_out_error


def test_a_fit_to_noise_has_no_factors_by_width(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = of_widths(16, 1.2, noise=0.005)
    plain = fit_best(replace(seen, widths=None), range(40))
    whole = fit.fit_widths

    def negative(given: Observations, block: int, penalty: float | None, traits: Traits) -> tuple[Line, Widths]:
        line, widths = whole(given, block, penalty, traits)
        # Of all networks; a fit that leaves one out stays as it is.
        of_all = len(given.measured) == 40
        return replace(line, factors=np.array([1.0, -0.1, 1.0, 1.0]) if of_all else line.factors), widths

    monkeypatch.setattr(fit, "fit_widths", negative)
    found = fit_best(seen, range(40))
    assert (found.line, found.widths) == (plain.line, ANY_WIDTH)
    assert "widths" in found.left_out_error


def test_the_factor_of_a_width_is_a_mean_shrunk_by_two_networks() -> None:
    counts = np.ones((4, 1))
    seen = Observations(
        counts, np.array([1.0]), np.array([0.0]), np.array([0]), np.array([1.5, 1.5, 1.0, 1.0]), np.array([16]),
        np.zeros(1), widths=np.array([24, 24, 16, 16]),
    )  # fmt: skip
    # The operations take 1 ms by the line, and 1.5 ms twice: (1.5 + 1.5 + 2) / 4.
    assert find_widths(Line(1.0, 0.0, 0.0), seen, 16) == (16, 1.0, 1.25)
    # Without the intercept of 0.5 ms, they take 1 ms where the line says 0.5 ms: (2 + 2 + 2) / 4.
    assert find_widths(Line(0.5, 0.5, 0.0), seen, 16) == (16, 1.0, 1.5)


@pytest.mark.parametrize(
    ("count", "level", "rank", "reached"),
    [
        (19, 0.95, 19, 0.95),  # 20 * 0.95 = 19, which floating point must not make 20
        (24, 0.95, 24, 0.95),  # 25 * 0.95 = 23.75
        (39, 0.95, 38, 0.95),
        (24, 0.90, 23, 0.90),  # 25 * 0.90 = 22.5
        (24, 0.50, 13, 0.50),
        (10, 0.95, 10, 10 / 11),  # 11 * 0.95 = 10.45 is more than there are
        (1, 0.95, 1, 0.5),
    ],
)
def test_the_conformal_rank_by_hand(count: int, level: float, rank: int, reached: float) -> None:
    residuals = tuple(float(value) for value in np.random.default_rng(0).permutation(np.arange(1, count + 1)))
    margin, achieved = conformal_margin(residuals, level)
    assert margin == rank
    assert achieved == pytest.approx(reached)


def test_the_margin_with_an_error_of_measurement_by_hand() -> None:
    # Of one residual at the median, the distribution is normal around it.
    assert conformal_margin((0.1,), 0.5, 0.05)[0] == pytest.approx(0.1)
    # Far apart, the third of four residuals at 0.6: (3 - 0.5) / 4 = 0.625, half of the third.
    assert conformal_margin((0.1, 0.2, 0.3, 0.4), 0.6, 1e-3)[0] == pytest.approx(0.3, abs=1e-6)
    # All in one place: the quantile (23 - 0.5) / 24 of a normal distribution.
    margin, level = conformal_margin((0.0,) * 24, 0.9, 0.02)
    assert (margin, level) == (pytest.approx(0.02 * NormalDist().inv_cdf(22.5 / 24)), 0.9)


def test_an_error_that_a_later_measurement_shares_is_covered_too() -> None:
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(2000):
        residuals = 0.02 * rng.standard_normal(40)
        margin, _ = conformal_margin(tuple(residuals), 0.9, 0.03)
        covered.append(0.02 * rng.standard_normal() + 0.03 * rng.standard_normal() <= margin)
    assert 0.87 <= np.mean(covered) <= 0.95


def test_a_margin_is_never_negative() -> None:
    assert conformal_margin((-0.3, -0.2, -0.1), 0.5)[0] == 0.0


@pytest.mark.parametrize(("residuals", "level"), [((), 0.95), ((0.1,), 0.0), ((0.1,), 1.0), ((0.1,), float("nan"))])
def test_a_margin_of_nothing_is_refused(residuals: tuple[float, ...], level: float) -> None:
    with pytest.raises(InputError, match="upper bound"):
        conformal_margin(residuals, level)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_the_margin_covers_what_is_exchangeable(level: float) -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(4000):
        *calibration, fresh = rng.standard_cauchy(25)
        margin, _ = conformal_margin(tuple(abs(value) for value in calibration), level)
        covered.append(abs(fresh) <= margin)
    # At least the level, and not by more than the 1 / (n + 1) of theory and three standard errors.
    assert level - 0.018 <= np.mean(covered) <= level + 1 / 25 + 0.018
