from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cars_hw.measurement.statistics import has_drifted

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import ModelFormat, Sample
from cars_hw.devices.protocol import SessionCounter
from cars_hw.errors import InputError
from cars_hw.measurement.schedule import MAX_PROBES, Measured, Series, measure

PLAN = MeasurePlan(sessions=5, max_extra_sessions=3, tolerance=0.05)
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


def test_only_what_is_off_is_measured_again_and_not_for_ever() -> None:
    script = played([1.0] * 9, [2.0, 2.0, 2.0, 2.5, 2.0, 2.0, 9.0], [3.0, 4.0] * 5)
    steady, once_off, hopeless = measure(script, paths(3), PLAN).models
    assert steady.samples == tuple(map(Sample, [1.0] * 5))
    assert once_off.samples == tuple(map(Sample, [2.0, 2.0, 2.0, 2.5, 2.0, 2.0]))
    assert once_off.ms == 2.0
    assert hopeless.sessions == 8
    assert hopeless.spread > 0.1
    assert [sorted(block) for block in script.blocks] == [["0", "1", "2"]] * 5 + [["1", "2"], ["2"], ["2"]]


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
    assert (steps[0], steps[-1]) == (("measuring", 0, 20), ("measuring", 20, 20))


def test_a_sample_knows_what_the_reference_took_at_its_place() -> None:
    # The machine becomes slower while the block runs: from 10 to 12 over the five steps from end to end.
    measured = measure(
        Script(lambda name, number, _: 10.0 + 2.0 * number if name == REFERENCE.name else 1.0),
        paths(4),
        MeasurePlan(sessions=1, max_extra_sessions=0),
        reference=REFERENCE,
    )
    around = sorted(measurement.samples[0].reference_ms or 0.0 for measurement in measured.models)
    assert around == pytest.approx([10.4, 10.8, 11.2, 11.6])


def test_sessions_while_the_machine_was_slower_are_taken_again_and_outvoted() -> None:
    # In the third and fourth of five rounds everything takes 9% longer, the reference too.
    class Slowing(Script):
        def run(
            self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
        ) -> list[Sample]:
            factor = 1.09 if len(self.blocks) in (2, 3) else 1.0
            return [
                sample._replace(ms=sample.ms * factor) for sample in super().run(models, plan, seed, on_session)
            ]

    script = Slowing(lambda name, *_: 5.0 if name == REFERENCE.name else 1.0)
    measured = measure(script, paths(3), PLAN, reference=REFERENCE)
    assert len(script.blocks) == 7
    for measurement in measured.models:
        assert [sample.ms for sample in measurement.samples] == [1.0, 1.0, 1.09, 1.09, 1.0, 1.0, 1.0]
        assert [has_drifted(sample, PLAN, 5.0) for sample in measurement.samples] == [
            ms == 1.09 for ms in (1.0, 1.0, 1.09, 1.09, 1.0, 1.0, 1.0)
        ]
        assert (measurement.ms, measurement.spread) == (1.0, 0.0)


def test_a_machine_that_stays_slower_than_it_used_to_be_is_measured_as_it_is() -> None:
    script = Script(lambda name, *_: 5.3 if name == REFERENCE.name else 1.06)
    measured = measure(script, paths(2), PLAN, reference=REFERENCE, usual_ms=5.0)
    # To wait for what it was would be in vain, so no session is spent on it.
    assert [measurement.sessions for measurement in measured.models] == [5, 5]
    assert [measurement.ms for measurement in measured.models] == [1.06, 1.06]


@pytest.mark.parametrize("lasts", [4, 1000])
def test_a_disturbed_machine_is_waited_for_but_not_for_ever(lasts: int) -> None:
    def play(name: str, _number: int, _seed: int) -> float:
        slow = 1.3 if len(script.blocks) <= lasts else 1.0
        return slow * (5.0 if name == REFERENCE.name else 1.0)

    script = Script(play)
    measured = measure(script, paths(2), PLAN, reference=REFERENCE, usual_ms=5.0)
    probes = [block for block in script.blocks if block == [REFERENCE.name]]
    if lasts == 4:
        # Four probes of a slow machine, a fifth that finds it as usual, and nothing was measured in between.
        assert len(probes) == 5
        assert [measurement.sessions for measurement in measured.models] == [5, 5]
        assert [measurement.ms for measurement in measured.models] == [1.0, 1.0]
    else:
        assert len(probes) == 1 + MAX_PROBES
        # In the end it is measured as it is, and as often as allowed.
        assert [measurement.sessions for measurement in measured.models] == [8, 8]
        assert [measurement.ms for measurement in measured.models] == [1.3, 1.3]


def test_a_machine_that_is_as_it_used_to_be_for_most_of_the_time_is_measured_then() -> None:
    # Round 1 is 4% slower than usual. By its own median, 10.2, only that would be out of the tolerance of 3%;
    # by the usual 10.0 the same: but the last round, 3.5% above 10.0 and 1.5% above 10.2, is told by it alone.
    # The first run is of the reference alone, to see whether the machine is disturbed.
    factors = [1.0, 1.04, 1.02, 1.02, 1.02, 1.035, 1.0, 1.0, 1.0]

    class Wandering(Script):
        def run(
            self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
        ) -> list[Sample]:
            factor = factors[len(self.blocks)]
            return [
                sample._replace(ms=sample.ms * factor) for sample in super().run(models, plan, seed, on_session)
            ]

    script = Wandering(lambda name, *_: 10.0 if name == REFERENCE.name else 1.0)
    (model,) = measure(script, paths(1), PLAN, reference=REFERENCE, usual_ms=10.0).models
    assert [sample.ms for sample in model.samples] == pytest.approx(factors[1:8])
    assert model.ms == pytest.approx(1.02)


def noisy(name: str, _number: int, seed: int) -> float:
    return 1.0 + (seed * (len(name) + ord(name[-1]) + 3) % 17) / 100


def copied(series: Series) -> Series:
    return Series([list(one) for one in series.models], list(series.reference), list(series.rounds))


@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_going_on_after_any_block_ends_where_it_would_have_ended(reference: Path | None) -> None:
    plan = MeasurePlan(sessions=5, max_extra_sessions=3, tolerance=0.05, block=4)
    whole: list[Series] = []

    def run(**options: Any) -> Measured:  # noqa: ANN401
        return measure(Script(noisy), paths(10), plan, reference=reference, **options)

    expected = run(on_block=lambda series: whole.append(copied(series)))
    assert len(whole) > 15
    for stop, kept in enumerate(whole):
        further: list[int] = []
        assert run(series=copied(kept), on_block=lambda _, further=further: further.append(1)) == expected
        assert len(further) == len(whole) - stop - 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"sessions": 0},
        {"min_runs": 0},
        {"quantile": 1.5},
        {"tolerance": 0.0},
        {"drift_tolerance": 0.0},
        {"block": 0},
        {"max_seconds": 0.0},
        {"seed": -1},
        {"max_extra_sessions": -1},
    ],
)
def test_a_plan_that_measures_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        MeasurePlan(**wrong)  # type: ignore[arg-type]
