"""A profile that also measures after minutes of load: the sustained state of the table, and who uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from loaded_device import Loaded, hurried

from cars_hw.config.measurement import MeasurePlan, SustainedPlan
from cars_hw.devices import FakeDevice, Measurement, Sample
from cars_hw.errors import InputError, TableError
from cars_hw.latency import LatencyTable, Predictor, profile_device
from cars_hw.latency.sustained import LoadedNetwork, SustainedState
from cars_hw.measurement.sustained import Sustained
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo

MakeTable = Callable[..., LatencyTable]

SPEC = NetworkSpec(channels=4, layers=3, resolution=(8, 8), in_channels=1)
FEW = SearchSpace(("none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"))
PLAN = MeasurePlan(sessions=2)
LOAD = SustainedPlan(load_seconds=60, window_seconds=60)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cars_hw.measurement.sustained.Clock", hurried)


def profiled(
    device: FakeDevice, out: Path, *, resume: bool = False, load: SustainedPlan | None = LOAD
) -> LatencyTable:
    return profile_device(device, SPEC, calibration=6, out=out, resume=resume, plan=PLAN, space=FEW, sustained=load)


def loaded(quiet_ms: float, factor: float, **about: bool) -> LoadedNetwork:
    ms = quiet_ms * factor
    found = Sustained(quiet_ms, ms, ms, 1.1 * ms, 240.0, 60.0, 500, **about)
    return LoadedNetwork(zoo()["CARS_A"].genotype, 4, 5, (9, 8), quiet_ms, found)


def test_the_table_has_the_sustained_state_of_three_networks(tmp_path: Path) -> None:
    device = Loaded()
    table = profiled(device, tmp_path / "table.json")
    assert LatencyTable.read(tmp_path / "table.json") == table
    state = table.sustained
    assert state is not None
    ranked = sorted((one for one in table.calibration if not one.anchor), key=lambda one: one.measured.ms)
    assert [one.genotype for one in state.networks] == [
        zoo()["CARS_A"].genotype,
        ranked[0].genotype,
        ranked[-1].genotype,
    ]
    assert [one.quiet_ms for one in state.networks[1:]] == [ranked[0].measured.ms, ranked[-1].measured.ms]
    assert (state.p50_factor, state.p90_factor) == (pytest.approx(1.5, rel=0.01), pytest.approx(1.8, rel=0.01))
    assert state.facts() == "clock 1800 MHz, case 41 C, thermal status 1"
    assert (state.warnings(), table.sustained_warnings()) == ([], [])
    # The load changes nothing else of the table.
    plain = profiled(FakeDevice(), tmp_path / "plain.json", load=None)
    assert "sustained" not in (tmp_path / "plain.json").read_text()
    assert replace(table, sustained=None, created=plain.created, conditions=plain.conditions) == plain


def test_an_interrupted_load_goes_on_with_the_next_network(tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    broken = Loaded(stops_at=1)
    warned = {"warnings": ["the clock reached 1800 of 2840 MHz"], "clock_reached_mhz": 1800}
    conditions = broken.conditions
    broken.conditions = lambda: {**conditions(), **warned}  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        profiled(broken, out)
    assert not out.exists()
    with pytest.raises(TableError, match=r"other settings \(sustained\)"):
        profiled(Loaded(), out, resume=True, load=None)
    rest = Loaded()
    table = profiled(rest, out, resume=True)
    whole = Loaded()
    again = profiled(whole, tmp_path / "whole.json")
    assert {name: table.conditions[name] for name in warned} == warned
    assert table.sustained is not None
    assert again.sustained is not None
    assert [one.genotype for one in table.sustained.networks] == [one.genotype for one in again.sustained.networks]
    # The reference ran before the interruption, and does not run again.
    assert len(whole.loaded) == 3
    assert [*broken.loaded, *rest.loaded] == whole.loaded


@pytest.mark.parametrize("load", [None, replace(LOAD, load_seconds=90), replace(LOAD, cool_seconds=1)])
def test_a_finished_table_of_another_load_is_not_taken(load: SustainedPlan | None, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    table = profiled(Loaded(), out)
    assert table.sustained is not None
    assert table.sustained.load == LOAD
    written = out.read_bytes()
    device = Loaded()
    with pytest.raises(TableError, match=r"exists, with other settings \(sustained\); write to another file"):
        profiled(device, out, resume=True, load=load)
    assert profiled(device, out, resume=True) == table
    assert (device.loaded, out.read_bytes()) == ([], written)
    # A table of an earlier version does not tell the load, and is taken if it has the state.
    replace(table, sustained=replace(table.sustained, load=None)).write(out)
    if load is None:
        with pytest.raises(TableError, match=r"other settings \(sustained\)"):
            profiled(device, out, resume=True, load=load)
    else:
        assert profiled(device, out, resume=True, load=load) == LatencyTable.read(out)


def test_a_device_without_it_is_an_error_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the sustained state is measured on phones and boards only"):
        profiled(FakeDevice(), tmp_path / "table.json")
    assert not list(tmp_path.iterdir())


def test_predictions_and_bounds_of_the_sustained_state(make_table: MakeTable, genotypes: list[Genotype]) -> None:
    table = make_table(noise=0.02, networks=24)
    even = replace(table, sustained=SustainedState((loaded(10.0, 1.5), loaded(2.0, 1.5), loaded(20.0, 1.5))))
    quiet, hot = Predictor(table), Predictor(even, state="sustained")
    assert hot.predict(genotypes[0]).ms == pytest.approx(1.65 * quiet.predict(genotypes[0]).ms)
    assert hot.margin == pytest.approx(quiet.margin)
    # The bound covers the network that slows down the most: 1.62 instead of 1.5.
    uneven = replace(table, sustained=SustainedState((loaded(10.0, 1.5), loaded(2.0, 1.4), loaded(20.0, 1.62))))
    wider = Predictor(uneven, state="sustained")
    assert wider.predict(genotypes[0]).ms == pytest.approx(1.65 * quiet.predict(genotypes[0]).ms)
    assert 1 + wider.margin == pytest.approx(1.08 * (1 + quiet.margin), rel=0.005)
    assert uneven.sustained_warnings() == [
        "the sustained state: networks slow down under load by factors from 1.40 to 1.62; measure a network of "
        "interest by itself"
    ]
    # How much a network slows down beside others says nothing of heat.
    taken = Measurement(4.0, (Sample(4.0),), 0.0, sensitivity=0.5)
    assert LatencyTarget(even, state="sustained").in_state(taken) == pytest.approx(1.65 * 4.0)


def test_what_is_not_settled_is_said_of_this_state_alone(make_table: MakeTable) -> None:
    table = replace(make_table(networks=8), sustained=SustainedState((loaded(10.0, 1.5, cooled=False),)))
    told = "the sustained state: the device had not cooled down when the load began"
    assert table.quality_warnings() == []
    assert LatencyTarget(table).quality_warnings == ()
    assert LatencyTarget(table, state="sustained").quality_warnings == (told,)


def test_a_table_without_the_sustained_state_does_not_guess_it(make_table: MakeTable) -> None:
    with pytest.raises(InputError, match="does not have the sustained state") as raised:
        Predictor(make_table(networks=8), state="sustained")
    assert raised.value.remedy == "profile-sustained"
    with pytest.raises(InputError, match="does not have the sustained state"):
        LatencyTarget(make_table(networks=8), 1.0, state="sustained")
