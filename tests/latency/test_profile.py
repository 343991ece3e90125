from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from long_runs import amount
from published_schemas import require_file

from cars_hw.config.codec import unstructure
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device, FakeDevice, ModelFormat, Sample
from cars_hw.devices.protocol import SessionCounter
from cars_hw.errors import DeviceError, InputError, TableError
from cars_hw.latency import (
    LatencyTable,
    Predictor,
    fresh_genotypes,
    measure_genotypes,
    profile_device,
    spec_keys,
    validate_table,
)
from cars_hw.latency.calibration import spread_genotypes
from cars_hw.latency.validation import PASSES
from cars_hw.measurement.journal import PARTIAL, partial_path
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo

SPEC = NetworkSpec(channels=4, layers=3, resolution=(8, 8), in_channels=1)
FEW = SearchSpace(("none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"))
PLAN = MeasurePlan(sessions=3)
# A table whose quiet state is not to be had is waited for.
IMPATIENT = MeasurePlan(sessions=3, patience_seconds=0.5)
WAITING = "waiting for the quiet state"


class Counting:
    """A device that counts its model sessions, and gives up after so many blocks."""

    def __init__(self, device: Device, blocks: int | None = None) -> None:
        self.device = device
        self.name: str = device.name
        self.model_format: ModelFormat = device.model_format
        self.blocks = blocks
        self.sessions = 0

    def release(self) -> None: ...

    def conditions(self) -> dict[str, Any]:
        return self.device.conditions()

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        if self.blocks == 0:
            raise KeyboardInterrupt
        if self.blocks is not None:
            self.blocks -= 1
        measured = self.device.run(models, plan, seed, on_session)
        self.sessions += len(measured)
        return measured


class Single(SearchSpace):
    """A space that proposes one genotype only."""

    def sample(self, rng: np.random.Generator) -> Genotype:
        return zoo()["CARS_A"].genotype


def noisy() -> Counting:
    return Counting(FakeDevice(noise=0.01))


def run(device: Device, out: Path | None = None, **options: Any) -> LatencyTable:  # noqa: ANN401
    return profile_device(device, SPEC, **{"calibration": 8, "plan": PLAN, "out": out, "space": FEW, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[LatencyTable, Path, int]:
    out = tmp_path_factory.mktemp("profile") / "table.json"
    device = noisy()
    return run(device, out), out, device.sessions


def test_a_profile_holds_all_that_there_is(finished: tuple[LatencyTable, Path, int]) -> None:
    table, out, sessions = finished
    assert list(table.entries) == [str(key) for key in spec_keys(SPEC)]
    assert len(table.calibration) == 8
    assert LatencyTable.read(out) == table
    assert not out.with_name("table.json.partial").exists()
    everything = [table.overhead, *table.entries.values(), *(network.measured for network in table.calibration)]
    assert table.reference is not None
    beside = table.reference.measured.sessions
    assert sessions == beside + sum(measurement.sessions for measurement in everything)
    assert all(sample.factor is not None for measurement in everything for sample in measurement.samples)
    # Two rounds of the operations, two of both.
    assert {measurement.sessions for measurement in table.entries.values()} <= {4, 5, 6, 7}
    assert {network.measured.sessions for network in table.calibration} <= {2, 3, 4, 5}
    assert all(measurement.quiet_sessions >= 3 for measurement in everything)
    assert table.machine.quiet_share == 1
    assert 0 < table.standard_error < 0.01
    assert (table.device, table.threads, table.plan["sessions"]) == ("fake", 1, 3)
    assert 0 < table.noise < 0.02


def test_predictions_hold_on_networks_that_took_no_part() -> None:
    device = FakeDevice(noise=0.01)
    table = profile_device(device, SPEC, calibration=16, plan=MeasurePlan(sessions=3))
    fresh = fresh_genotypes(table, 40, np.random.default_rng(8))
    result = validate_table(
        table, device, [*fresh, zoo()["SNAS_aggressive"].genotype], plan=MeasurePlan(sessions=3)
    )
    accuracy = result.accuracy
    assert accuracy.mean_error < 0.05
    assert accuracy.kendall_tau is not None
    assert accuracy.kendall_tau > 0.85
    assert result.coverage >= 0.85
    assert accuracy.within_10 >= 0.95
    assert result.noise_floor is not None
    assert 0 < result.noise_floor < 0.02
    assert set(result.baselines) == {"multiply-adds", "table sum", "operation counts"}
    assert all(baseline.mean_error > accuracy.mean_error for baseline in result.baselines.values())
    assert 0 < result.noise < 0.02
    assert len(result.rows) == 41
    assert json.loads(json.dumps(unstructure(result)))["rows"][0]["measured_ms"] == result.rows[0].measured_ms


def test_a_machine_that_has_become_slower_is_told_from_a_predictor_that_is_off() -> None:
    table = profile_device(FakeDevice(), SPEC, calibration=8, plan=PLAN, space=FEW)
    steps: list[tuple[str, int, int]] = []
    fresh = fresh_genotypes(table, 4, np.random.default_rng(0))
    slower = validate_table(
        table, FakeDevice(speed=0.8), fresh, plan=IMPATIENT, progress=lambda *step: steps.append(step)
    )
    assert slower.drift == pytest.approx(0.25, abs=1e-4)
    assert slower.then_and_now == pytest.approx(0.25, abs=1e-4)
    assert slower.noise_floor == pytest.approx(0.0, abs=1e-9)
    assert slower.accuracy.bias == pytest.approx(-0.2, abs=0.03)
    # Four networks, and six of the table's.
    assert list(dict.fromkeys(step for step in steps if step[1] == step[2])) == [
        (f"pass {number} of {PASSES}: {stage}", count, count)
        for number in (1, 2)
        for stage, count in (("writing models", 10), ("measuring", 10 * PLAN.sessions), (WAITING, 10))
    ]
    assert validate_table(table, FakeDevice(), fresh, plan=PLAN).drift == pytest.approx(0.0, abs=1e-6)


def test_what_took_part_in_the_calibration_does_not_validate(finished: tuple[LatencyTable, Path, int]) -> None:
    table = finished[0]
    known = table.calibration[2].genotype
    # The same network, written in another order.
    swapped = replace(known, normal=tuple((second, first) for first, second in known.normal))
    for genotype in (known, swapped):
        with pytest.raises(InputError, match="1 of 2 genotypes took part"):
            validate_table(table, FakeDevice(), [genotype, zoo()["CARS_A"].genotype])
    with pytest.raises(InputError, match="nothing to validate"):
        validate_table(table, FakeDevice(), [])


def test_another_device_does_not_validate(finished: tuple[LatencyTable, Path, int]) -> None:
    with pytest.raises(TableError, match="for device fake"):
        validate_table(finished[0], FakeDevice(name="other"), [zoo()["CARS_A"].genotype])


def test_fresh_genotypes_are_all_different_and_no_calibration(finished: tuple[LatencyTable, Path, int]) -> None:
    table = finished[0]
    drawn = fresh_genotypes(table, 50, np.random.default_rng(0))
    taken = {network.genotype.key() for network in table.calibration}
    assert len({genotype.key() for genotype in drawn} - taken) == 50
    with pytest.raises(InputError, match="only 1 of 3"):
        fresh_genotypes(table, 3, np.random.default_rng(0), Single())


# Operations have two rounds of four blocks, both together two rounds of five, then there are further ones.
@pytest.mark.parametrize("blocks", [0, 1, 5, 8, 11, 16])
def test_an_interrupted_profile_goes_on_where_it_was(
    blocks: int, finished: tuple[LatencyTable, Path, int], tmp_path: Path
) -> None:
    table, _, sessions = finished
    out = tmp_path / "table.json"
    first, second = Counting(FakeDevice(noise=0.01), blocks), noisy()
    try:
        run(first, out)
    except KeyboardInterrupt:
        assert not out.exists()
    else:
        pytest.fail("the profile has fewer blocks than the test interrupts it after")
    partial = out.with_name("table.json.partial")
    assert partial.exists() == (blocks > 0)
    assert blocks == 0 or require_file(partial) == "partial-profile"
    assert run(second, out, resume=True) == table
    assert LatencyTable.read(out) == table
    assert first.sessions + second.sessions == sessions
    assert list(tmp_path.iterdir()) == [out]


COMMAND = "profile --device fake --channels 4 --layers 3 --resolution 8 --in-channels 1 --calibration 6 --resume"


@pytest.mark.parametrize("seed", range(3, 3 + amount(1, 12)))
def test_killed_at_any_moment_a_profile_resumes_and_measures_everything_as_often_as_it_should(
    tmp_path: Path, seed: int
) -> None:
    errors = tmp_path / "errors"

    def start(out: Path) -> ForkServerProcess:
        return forked.start([*COMMAND.split(), "--out", str(out)], errors)

    whole, broken = tmp_path / "whole.json", tmp_path / "broken.json"
    partial = broken.with_name("broken.json.partial")
    forked.finish(start(whole), errors)
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(amount(1, 3)):
        process = start(broken)
        size = partial.stat().st_size if partial.exists() else 0
        while (partial.stat().st_size if partial.exists() else 0) == size and process.is_alive():
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.1)))
        process.kill()
        process.join()
        seen.append(partial.exists())
    assert seen[0]
    # The last of the killed processes may have written the whole table before the signal; then none is needed.
    if partial.exists():
        forked.finish(start(broken), errors)
    finished, expected = LatencyTable.read(broken), LatencyTable.read(whole)
    assert finished.entries == expected.entries
    assert {entry.sessions for entry in finished.entries.values()} == {finished.plan["sessions"] + 1}
    assert (finished.calibration, finished.predictor) == (expected.calibration, expected.predictor)
    assert not partial.exists()


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        run(Counting(FakeDevice(noise=0.01), 1), tmp_path / "table.json")
    return tmp_path / "table.json"


def test_an_interrupted_profile_is_not_overwritten_by_accident(interrupted: Path) -> None:
    with pytest.raises(TableError, match=r"table\.json\.partial holds an interrupted profile$"):
        run(noisy(), interrupted)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"seed": 1}, "plan"),
        ({"space": SearchSpace(("skip_connect", "sep_conv_3x3"))}, "operations"),
    ],
)
def test_it_does_not_go_on_with_other_settings(options: dict[str, Any], field: str, interrupted: Path) -> None:
    with pytest.raises(TableError, match=rf"of a profile with other settings \({field}\)"):
        run(noisy(), interrupted, resume=True, **options)


def test_it_does_not_go_on_on_another_device(interrupted: Path) -> None:
    with pytest.raises(TableError, match=r"other settings \(runtime\)"):
        run(FakeDevice(noise=0.02), interrupted, resume=True)
    with pytest.raises(TableError, match=r"other settings \(device\)"):
        run(FakeDevice(noise=0.01, name="other"), interrupted, resume=True)


def test_a_profile_of_a_version_without_further_operations_goes_on(
    interrupted: Path, finished: tuple[LatencyTable, Path, int]
) -> None:
    content = PARTIAL.read(partial_path(interrupted))
    assert content.pop("further") == []
    PARTIAL.write(partial_path(interrupted), content)
    assert run(noisy(), interrupted, resume=True) == finished[0]


def test_damaged_samples_are_not_gone_on_with(interrupted: Path) -> None:
    partial = interrupted.with_name("table.json.partial")
    partial.write_text(partial.read_text().replace("0.0", "0.1", 1))
    with pytest.raises(TableError, match="changed or damaged") as raised:
        run(noisy(), interrupted, resume=True)
    assert raised.value.remedy == "profile-again"


def test_a_table_is_not_overwritten_by_accident(finished: tuple[LatencyTable, Path, int], tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    out.write_text("mine")
    for resume in (False, True):
        with pytest.raises(TableError, match="exists"):
            run(noisy(), out, resume=resume)
    with pytest.raises(InputError, match="exists and is not a cars-hw latency table"):
        run(noisy(), out, overwrite=True)
    assert out.read_text() == "mine"
    replace(finished[0], device="another").write(out)
    assert run(noisy(), out, overwrite=True) == LatencyTable.read(out) == finished[0]


def test_wrong_settings_are_refused_before_anything_is_measured() -> None:
    device = noisy()
    with pytest.raises(InputError, match="no precision 'int4'; known: fp32, int8"):
        run(device, precision="int4")
    with pytest.raises(InputError, match="at least 4"):
        profile_device(device, SPEC, calibration=3)
    assert device.sessions == 0


def test_progress_runs_through_both_stages() -> None:
    seen: list[tuple[str, int, int]] = []
    run(FakeDevice(), progress=lambda *step: seen.append(step))
    operations = len(spec_keys(SPEC)) + 1
    everything = operations + 8
    assert list(dict.fromkeys(step for step in seen if step[1] == step[2])) == [
        ("operations: writing models", operations, operations),
        ("operations: measuring", 2 * operations, 2 * operations),
        ("networks: writing models", 8, 8),
        ("networks: measuring", 2 * everything, 2 * everything),
        ("networks: waiting for the quiet state", everything, everything),
    ]
    stages = [stage for stage, _ in itertools.groupby(seen, key=lambda step: step[0])]
    assert len(stages) == len(set(stages))
    for stage in stages:
        done = [step[1] for step in seen if step[0] == stage]
        assert done == sorted(done)
        assert done[0] == 0 or "waiting" in stage


def test_samples_that_no_predictor_can_be_made_of_are_not_kept(tmp_path: Path) -> None:
    class Backwards(Counting):
        def run(
            self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
        ) -> list[Sample]:
            measured = super().run(models, plan, seed, on_session)
            sizes = [model.stat().st_size for model in models]
            # A network is larger than any operation. The reference is one, and keeps its latency.
            return [
                sample._replace(ms=1 / sample.ms) if size > 10_000 and "reference" not in model.name else sample
                for model, sample, size in zip(models, measured, sizes, strict=True)
            ]

    with pytest.raises(DeviceError, match="not slower"):
        run(Backwards(FakeDevice()), tmp_path / "table.json")
    assert list(tmp_path.iterdir()) == []


def test_calibration_networks_are_drawn_and_spread(finished: tuple[LatencyTable, Path, int]) -> None:
    latency = Predictor(finished[0]).bound
    chosen = spread_genotypes(SearchSpace(), latency, 21, np.random.default_rng(0))
    assert len({genotype.key() for genotype in chosen}) == 21
    times = np.array([latency(genotype) for genotype in chosen])
    assert (np.diff(times) >= 0).all()
    rng = np.random.default_rng(1)
    uniform = np.array([latency(SearchSpace().sample(rng)) for _ in range(200)])
    assert times[0] < uniform.min()
    # Ten are drawn and eleven are a tenth of the range apart, so that no gap is much larger than a tenth.
    assert np.diff(times).max() < 0.2 * (times[-1] - times[0])
    assert chosen == spread_genotypes(SearchSpace(), latency, 21, np.random.default_rng(0))
    with pytest.raises(InputError, match="too few"):
        spread_genotypes(Single(("skip_connect",)), latency, 20, np.random.default_rng(0))


def test_whole_networks_are_measured_in_their_order() -> None:
    rng = np.random.default_rng(0)
    heavy, light = (SearchSpace((operation,)).sample(rng) for operation in ("sep_conv_5x5", "skip_connect"))
    first = measure_genotypes(FakeDevice(), SPEC, [heavy, light], PLAN).models
    second = measure_genotypes(FakeDevice(), SPEC, [light, heavy], PLAN).models
    assert first == second[::-1]
    assert first[0].ms > first[1].ms
