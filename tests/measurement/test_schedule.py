from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from long_runs import amount

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import ModelFormat, Sample
from cars_hw.devices.protocol import SessionCounter
from cars_hw.errors import DeviceError, InputError
from cars_hw.measurement.schedule import PROBE_PAUSE_S, Clock, Event, Measured, Schedule, Series, measure

PLAN = MeasurePlan(sessions=5)
REFERENCE = Path("reference")


class Script:
    """A device that plays prepared times and keeps what was asked of it."""

    name = "script"
    model_format: ModelFormat = "onnx"

    def __init__(self, play: Callable[[str, int, int], float]) -> None:
        """Play the time of a model, its how many-th session, and the block's seed."""
        self.play = play
        self.taken: dict[str, int] = {}
        self.blocks: list[list[str]] = []

    def release(self) -> None: ...

    def conditions(self) -> dict[str, Any]:
        return {}

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        assert plan.sessions
        names = [model.name for model in models]
        self.blocks.append(names)
        found = []
        for done, name in enumerate(names, start=1):
            number = self.taken[name] = self.taken.get(name, -1) + 1
            found.append(Sample(self.play(name, number, seed)))
            if on_session is not None:
                on_session(done)
        return found


def paths(count: int) -> list[Path]:
    return [Path(str(index)) for index in range(count)]


def played(*models: list[float]) -> Script:
    return Script(lambda name, number, _: models[int(name)][number])


def test_a_session_that_is_off_stays_in_the_record_and_changes_nothing() -> None:
    script = played([1.0] * 9, [2.0, 2.0, 2.0, 2.5, 2.0, 2.0, 9.0], [3.0] * 9)
    steady, once_off, other = measure(script, paths(3), PLAN).models
    assert steady.samples == tuple(Sample(1.0, factor=1.0) for _ in range(5))
    assert [sample.ms for sample in once_off.samples] == [2.0, 2.0, 2.0, 2.5, 2.0]
    assert (once_off.ms, once_off.quiet_sessions) == (pytest.approx(2.0, rel=2e-3), 4)
    assert (other.ms, other.spread) == (3.0, 0.0)


@pytest.mark.parametrize("ms", [0.0, -1.0, math.nan, math.inf])
def test_a_latency_that_is_none_is_an_error_and_no_figure(ms: float) -> None:
    """A device may be of a package, or read the output of a tool."""
    with pytest.raises(DeviceError, match=rf"^script reports a latency of {ms} ms for 1$"):
        measure(played([1.0] * 9, [1.0, 1.0, ms, *[1.0] * 9]), paths(2), PLAN)


def test_a_device_that_returns_too_few_samples_is_an_error() -> None:
    script = played([1.0] * 9, [1.0] * 9)
    run = script.run
    script.run = lambda *args, **named: run(*args, **named)[1:]  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match=r"^script returned 1 samples for 2 sessions$"):
        measure(script, paths(2), PLAN)


def test_a_model_that_scatters_has_further_sessions_and_not_for_ever() -> None:
    script = played([1.0] * 20, [2.0] * 20, [1.5] * 20, [3.0, 3.4, 3.1, 3.3, 3.2] * 4)
    *steady, scattered = measure(script, paths(4), PLAN).models
    assert [one.sessions for one in steady] == [5, 5, 5]
    assert 10 <= scattered.sessions <= 20
    assert 0.005 < scattered.standard_error < 0.02
    assert [sorted(block) for block in script.blocks][5:] == [["3"]] * (scattered.sessions - 5)


def test_the_order_is_drawn_anew_each_round_and_follows_the_seed() -> None:
    def orders(seed: int) -> list[list[str]]:
        script = Script(lambda *_: 1.0)
        measure(script, paths(12), MeasurePlan(seed=seed))
        return script.blocks

    assert orders(0) == orders(0) != orders(1)
    assert len({tuple(order) for order in orders(0)}) == 5


def test_a_sample_belongs_to_its_model_whatever_the_order() -> None:
    measured = measure(Script(lambda name, *_: 1.0 + int(name)), paths(20), PLAN)
    assert [measurement.ms for measurement in measured.models] == [1.0 + index for index in range(20)]
    assert measured.reference is None


def test_the_reference_stands_at_both_ends_of_every_block_and_in_no_model_s_figures() -> None:
    script = Script(lambda name, *_: 7.0 if name == REFERENCE.name else 1.0)
    steps: list[tuple[str, int, int]] = []
    plan = MeasurePlan(sessions=2, block=4)
    measured = measure(script, paths(10), plan, reference=REFERENCE, progress=lambda *step: steps.append(step))
    assert [len(block) for block in script.blocks] == [6, 6, 4] * 2
    for block in script.blocks:
        assert [place for place, name in enumerate(block) if name == REFERENCE.name] == [0, len(block) - 1]
    assert all(measurement.ms == 1.0 for measurement in measured.models)
    assert measured.reference is not None
    assert (measured.reference.ms, measured.reference.sessions) == (7.0, 12)
    assert steps == sorted(steps)
    assert (steps[0], steps[-2]) == (("measuring", 0, 20), ("measuring", 20, 20))
    assert steps[-1] == ("waiting for the quiet state", 10, 10)


@dataclass
class Time:
    """A clock that stands still but for sleep."""

    second: float = 0.0

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.second, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.second += seconds


@pytest.mark.parametrize("lasts", [4, 1000])
def test_a_machine_slower_than_the_table_is_waited_for_but_not_for_ever(
    lasts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cars_hw.measurement.schedule.PROBE_PAUSE_S", PROBE_PAUSE_S)

    def play(name: str, _number: int, _seed: int) -> float:
        slow = 1.3 if len(script.blocks) <= 5 + lasts else 1.0
        return slow * (5.0 if name == REFERENCE.name else 1.0)

    script, time = Script(play), Time()
    plan = MeasurePlan(sessions=5, patience_seconds=40 * PROBE_PAUSE_S)
    measured = measure(script, paths(2), plan, reference=REFERENCE, expected_ms=5.0, clock=time.clock)
    probes = [block for block in script.blocks if block == [REFERENCE.name]]
    if lasts == 4:
        assert len(probes) < 12
        assert [measurement.ms for measurement in measured.models] == pytest.approx([1.0, 1.0], rel=1e-3)
        assert measured.machine.slower_than_expected == pytest.approx(1.0, rel=1e-3)
    else:
        assert len(probes) in (40, 41)
        assert [measurement.ms for measurement in measured.models] == [1.3, 1.3]
        assert measured.machine.slower_than_expected == pytest.approx(1.3)


def noisy(name: str, _number: int, seed: int) -> float:
    return 1.0 + (seed * (len(name) + ord(name[-1]) + 3) % 17) / 100


def copied(series: Series) -> Series:
    return replace(series, events=list(series.events), rounds=[list(one) for one in series.rounds])


@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_going_on_after_any_block_ends_where_it_would_have_ended(reference: Path | None) -> None:
    plan = MeasurePlan(sessions=3, block=4)
    names = [str(number) for number in range(10)]
    whole: list[Series] = []

    def run(series: Series, on_block: Callable[[Series], None]) -> Measured:
        schedule = Schedule(
            Script(noisy), plan, reference=reference, series=series, on_block=on_block, clock=Time().clock
        )
        schedule.add({name: Path(name) for name in names})
        schedule.rounds(names[:6], 2)
        schedule.rounds(names, 3)
        schedule.until_quiet(names)
        return schedule.measured(names)

    expected = run(Series(), lambda series: whole.append(copied(series)))
    assert len(whole) > 15
    for stop, kept in list(enumerate(whole))[:: amount(16, 1)]:
        further: list[int] = []
        assert run(copied(kept), lambda _, further=further: further.append(1)) == expected  # type: ignore[misc]
        assert len(further) == len(whole) - stop - 1


def test_events_keep_the_order_in_which_they_ran() -> None:
    series = Series([Event("a", Sample(1.0)), Event("b", Sample(2.0)), Event("a", Sample(1.0))])
    assert series.sessions() == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"sessions": 0},
        {"min_runs": 0},
        {"quantile": 1.5},
        {"max_standard_error": 0.0},
        {"warmup_seconds": -1},
        {"block": 0},
        {"max_seconds": 0.0},
        {"seed": -1},
        {"patience_seconds": -1},
    ],
)
def test_a_plan_that_measures_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        MeasurePlan(**wrong)  # type: ignore[arg-type]
