from __future__ import annotations

import pytest

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Sample
from cars_hw.devices.host.session_worker import low_quantile
from cars_hw.measurement.statistics import has_drifted, needs_session, outliers, summarize

PLAN = MeasurePlan(sessions=5, max_extra_sessions=3, tolerance=0.05)


def samples(*times: float) -> list[Sample]:
    return [Sample(ms) for ms in times]


@pytest.mark.parametrize(("quantile", "expected"), [(0, 1), (0.05, 1), (0.1, 2), (0.11, 3), (0.5, 10), (1, 20)])
def test_a_low_quantile_is_one_of_the_runs(quantile: float, expected: int) -> None:
    runs = [*range(20, 10, -1), *range(1, 11)]
    assert low_quantile(runs, quantile) == expected


def test_a_single_run_is_its_own_quantile() -> None:
    assert low_quantile([7.0], 0.1) == 7.0


def test_figure_and_spread_by_hand() -> None:
    # The median is 2; the distances from it are 1, 1, 0, 8, 0 with the median 1, half of 2.
    measured = summarize(samples(3.0, 1.0, 2.0, 10.0, 2.0), PLAN)
    assert (measured.ms, measured.spread) == (2.0, 0.5)
    assert measured.samples == tuple(samples(3.0, 1.0, 2.0, 10.0, 2.0))
    assert measured.sessions == 5


@pytest.mark.parametrize(
    ("times", "off"),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.0], []),
        ([1.0, 1.04, 1.0, 0.96, 1.0], []),
        ([1.0, 1.0, 1.06, 1.0, 0.9], [2, 4]),
        # The first is 4.8% from the median of all three and 5.2% from that of the others.
        ([1.0, 1.05, 1.06], [0]),
        ([1.0], []),
    ],
)
def test_a_session_is_off_against_the_median_of_the_others(times: list[float], off: list[int]) -> None:
    assert outliers(times, 0.05) == off


@pytest.mark.parametrize(
    ("times", "more"),
    [
        ([], True),
        ([1.0] * 4, True),
        ([1.0] * 5, False),
        ([1.0] * 4 + [1.2], True),
        ([1.0] * 4 + [1.2, 1.0], False),
        ([1.0] * 4 + [1.2, 1.2], True),
        ([1.0, 2.0] * 4, False),
    ],
)
def test_when_a_model_is_measured_again(times: list[float], more: bool) -> None:
    assert needs_session(samples(*times), PLAN) is more


def test_drift_by_hand() -> None:
    plan = MeasurePlan(sessions=3, drift_tolerance=0.03)
    taken = [
        Sample(ms, reference_ms=around) for ms, around in ((1.0, 10.0), (1.1, 10.29), (1.5, 10.31), (9.0, 9.6))
    ]
    assert [has_drifted(sample, plan, 10.0) for sample in taken] == [False, False, True, True]
    assert not any(has_drifted(sample, plan, None) for sample in taken)
    # Two of three that were asked for are enough to do without the drifted ones; one is not.
    assert summarize(taken, plan, 10.0).ms == pytest.approx(1.05)
    assert summarize(taken[1:], plan, 10.0).ms == 1.5
    # Two that are steady are not three; three that agree would be, if the machine had not drifted.
    agreeing = [sample._replace(ms=1.0) for sample in taken]
    assert needs_session(agreeing, plan, 10.0)
    assert not needs_session(agreeing, plan, None)
