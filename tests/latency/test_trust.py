"""What a table says of the machine that it was made on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cars_hw.devices import Measurement, Sample
from cars_hw.errors import InputError
from cars_hw.latency import LatencyTable, Predictor, Reference
from cars_hw.measurement.states import Machine, MachineState
from cars_hw.space.genotype import Genotype
from cars_hw.space.zoo import zoo

MakeTable = Callable[..., LatencyTable]


TWO_STATES = Machine(
    (MachineState("quiet", 0.6, 1.0), MachineState("1.50 times slower", 0.4, 1.5)), (1.0, 1.0, 1.5), 0.01
)


def reference(*times: float) -> Reference:
    taken = Measurement(sorted(times)[len(times) // 2], tuple(Sample(ms) for ms in times), 0.01)
    return Reference(zoo()["CARS_A"].genotype, taken)


def slowing_down(table: LatencyTable, *sensitivities: float) -> LatencyTable:
    """Return ``table`` with networks of these sensitivities, in turns, on a machine of two states."""
    networks = tuple(
        replace(network, measured=replace(network.measured, sensitivity=sensitivities[number % len(sensitivities)]))
        for number, network in enumerate(table.calibration)
    )
    return replace(table, calibration=networks, machine=TWO_STATES)


def test_the_bound_is_that_of_the_state(make_table: MakeTable, genotypes: list[Genotype]) -> None:
    table = make_table(noise=0.02, networks=24)
    steady, common = Predictor(table), slowing_down(table, 1.0)
    quiet_ms = steady.predict(genotypes[0]).ms
    assert Predictor(common).predict(genotypes[0]) == steady.predict(genotypes[0])
    # The median moment is quiet. Three quarters of the time the factor is below 1.25, the mean of 1 and 1.5.
    assert Predictor(common, state="usual").predict(genotypes[0]) == steady.predict(genotypes[0])
    for state, factor in (("0.75", 1.25), ("1", 1.5)):
        slower = Predictor(common, state=state)
        assert slower.predict(genotypes[0]).ms == pytest.approx(factor * quiet_ms)
        # All networks slow down by the same factor: the error of the predictor stays what it is.
        assert slower.margin == pytest.approx(steady.margin)
    # Networks of sensitivity 0.8 and 1.2 take 1.38 and 1.63 times as long; the margin has to cover both.
    spread = Predictor(slowing_down(table, 0.8, 1.2), state="1")
    assert spread.predict(genotypes[0]).ms == pytest.approx((1.5**0.8 + 1.5**1.2) / 2 * quiet_ms)
    assert spread.margin > steady.margin + 0.05
    with pytest.raises(InputError, match="'busy' is no state; use quiet, usual, sustained, or a quantile"):
        Predictor(common, state="busy")


def test_a_breakdown_of_another_state_adds_up(make_table: MakeTable, genotypes: list[Genotype]) -> None:
    predictor = Predictor(slowing_down(make_table(networks=24), 1.0), state="1")
    found = predictor.breakdown(genotypes[0])
    assert found.stem + sum(found.cells) + found.head + found.other == pytest.approx(found.ms)
    assert sum(found.operations.values()) + found.other == pytest.approx(found.ms)


def test_a_table_says_with_figures_why_it_is_unreliable(make_table: MakeTable) -> None:
    quiet = make_table(networks=8)
    assert quiet.quality_warnings() == []

    def with_networks(**figures: float) -> list[str]:
        networks = tuple(
            replace(network, measured=replace(network.measured, **figures))  # type: ignore[arg-type]
            for network in quiet.calibration
        )
        return replace(quiet, calibration=networks).quality_warnings()

    assert with_networks(spread=0.029, standard_error=0.029) == []
    assert with_networks(spread=0.045) == ["repeated sessions differ by 4.5%, more than 3%"]
    count = len(quiet.entries) + 8
    assert with_networks(standard_error=0.031) == [
        f"8 of {count} models have a standard error above 3%: too few of their sessions ran in the quiet state"
    ]
    assert replace(quiet, standard_error=0.021).quality_warnings() == [
        "predicted networks have a standard error of 2.1%, more than 1.5%"
    ]
    assert replace(quiet, machine=replace(TWO_STATES, faster_before=1.6)).quality_warnings() == [
        "the machine was 1.60 times faster before and did not return to that state"
    ]
    apart = replace(reference(10.0), operations_ms=10.0, networks_ms=10.4)
    assert replace(quiet, reference=apart).quality_warnings() == [
        "the quiet state changed by +4.0% between the operations and the networks, more than 3%"
    ]
    # A neighbour that comes and goes is a state, and no reason for doubt.
    assert replace(quiet, machine=TWO_STATES).quality_warnings() == []


def test_the_reference_and_all_conditions_survive_the_file(make_table: MakeTable, tmp_path: Path) -> None:
    sample = Sample(1.5, "2000-01-01T00:00:00+00:00", 0.25, None, 0.1, 10.5)
    table = make_table(noise=0.02)
    table = replace(
        table,
        overhead=Measurement(1.5, (sample, sample._replace(load=None)), 0.0, 0.01, 1.2, 2),
        reference=replace(reference(10.0, 10.5, 11.0), operations_ms=10.0),
        machine=TWO_STATES,
        standard_error=0.004,
    )
    table.write(tmp_path / "table.json")
    assert LatencyTable.read(tmp_path / "table.json") == table
