"""The energy as a second budget: from the table through search, training, export and measurement to the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from long_runs import amount
from phone_stand import WAITS
from simulated_phone import Adbd, Battery, Maker, Phone, truth_mj

from cars_hw.cli.main import main
from cars_hw.config.data import DataSource
from cars_hw.config.measurement import EnergyPlan, MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.training import Recipe
from cars_hw.devices import FakeDevice
from cars_hw.devices.android.adb import AdbShell, Address, make_key
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.errors import BudgetError, InputError, RunError
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.latency.measure_energy import EnergyPredictor, measure_table_energy
from cars_hw.pipeline.export import export_run
from cars_hw.pipeline.latency_target import LatencyTarget, energy_target
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.pipeline.verify import verify_run
from cars_hw.progress import silent
from cars_hw.report.page import write_report
from cars_hw.space.network_spec import NetworkSpec

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)
PRESET = replace(
    PRESETS["quick"],
    evolution=EvolutionSettings(4, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size"),
    training=replace(PRESETS["quick"].training, batch_size=64, evaluation_images=16),
    recipe=Recipe(epochs=1, batch_size=64, learning_rate=0.1, crop_padding=0),
    final=FinalSettings(0),
)


def plan(images: Path, target: LatencyTarget, *costs: str) -> SearchPlan:
    return SearchPlan(DataSource(str(images)), SPEC, PRESET, (target,), costs=costs)


def test_a_table_without_energy_says_what_to_do(tiny_table: Path, images: Path, tmp_path: Path) -> None:
    target = LatencyTarget(LatencyTable.read(tiny_table))
    with pytest.raises(InputError, match="the cost energy needs a latency table that has the energy") as told:
        plan(images, target, "energy=1")
    assert told.value.remedy == "measure-energy"
    metered = LatencyTarget(measure_table_energy(target.table, FakeDevice(), progress=silent))
    with pytest.raises(InputError, match="the energy is that of one device, and the tables of fake, fake have it"):
        energy_target([metered, target, metered])
    with pytest.raises(BudgetError, match=r"energy: limit 0\.001 mJ, possible 0\.\d+ mJ"):
        run_search(plan(images, metered, "energy=0.001"), tmp_path / "none")


def keeps_its_energy(run: RunFolder, kept: str) -> None:
    """Measure the models again without their energy: it stays, and is said to be of an earlier time."""
    before = run.verified()
    again = CliRunner().invoke(main, ["verify", str(run.path), "--device", "fake", "--sessions", "1"])
    assert again.exit_code == 0, again.output
    assert kept in again.stdout
    assert "of an earlier verification: this one did not measure the energy (--energy)" in again.stdout
    assert [row.energy for row in run.verified()] == [row.energy for row in before]


def test_the_energy_goes_from_the_table_to_the_report(tiny_table: Path, images: Path, tmp_path: Path) -> None:
    table_path = tmp_path / "table.json"
    table_path.write_bytes(tiny_table.read_bytes())
    said = CliRunner().invoke(main, ["energy", "--table", str(table_path), "--networks", "6"])
    assert said.exit_code == 0, said.output
    assert "Energy on fake, by none, powers are computed" in said.stdout
    assert "has the energy now" in said.stdout
    shown = CliRunner().invoke(main, ["table", "show", str(table_path)])
    assert "beyond rest, by none, powers are computed; 6 networks" in shown.stdout
    table = LatencyTable.read(table_path)
    predictor = EnergyPredictor(table)
    known = sorted(predictor.predict(one).bound_mj for one in table.calibrated)
    # Half of the networks of the table are over this limit.
    limit = round(known[len(known) // 2], 4)

    run = run_search(plan(images, LatencyTarget(table, 1e3), f"energy={limit}"), tmp_path / "run")
    front = run.front()
    for network in front:
        mj, bound_mj = predictor.predict(network.architecture)
        assert network.costs["energy"] == pytest.approx(mj)
        assert bound_mj <= limit
    run = RunFolder.open(run.path)
    train_run(run, TrainSettings(top=1, jobs=1), progress=silent)
    export_run(run, data=DataSource(str(images)), formats=["onnx"])
    verified = CliRunner().invoke(
        main, ["verify", str(run.path), "--device", "fake", "--sessions", "1", "--energy"]
    )
    assert verified.exit_code == 0, verified.output
    assert f"{limit:.3g} mJ kept" in verified.stdout
    (row,) = run.verified()
    assert row.energy is not None
    assert (row.limit_mj, row.within_energy) == (limit, True)
    assert row.predicted_mj == pytest.approx(row.energy.mj, rel=0.15)
    assert "of an earlier verification" not in verified.stdout
    keeps_its_energy(run, f"{limit:.3g} mJ kept")
    page = write_report(run).read_text(encoding="utf-8")
    assert "energy, mJ" in page
    assert "Energy of a run" in page
    assert "6 networks by none, powers are computed" in page

    # A limit that a measurement exceeds is told.
    run.write_verified([replace(row, limit_mj=row.energy.mj / 2)])
    assert run.verified()[0].within_energy is False
    assert "missed" in write_report(run).read_text(encoding="utf-8")

    said = CliRunner().invoke(main, ["verify", str(run.path), "--device", "fake", "--energy", "--meter", "charge"])
    assert said.exit_code == 1
    assert "fake has no choice of a meter" in said.stderr

    # Its energy measured again, a search that was interrupted does not mix the two.
    again = LatencyTarget(measure_table_energy(table, FakeDevice(), EnergyPlan(networks=4), progress=silent), 1e3)
    (run.path / "front.json").rename(tmp_path / "front.json")
    with pytest.raises(RunError, match="was started with other energies than those of the table of fake"):
        run_search(plan(images, again, f"energy={limit}"), run.path, resume=True)
    (tmp_path / "front.json").rename(run.path / "front.json")

    # The limit is that of the device whose table has the energy, and of no other.
    replace(table, energy=None).write(run.table_path(0))
    short = MeasurePlan(sessions=1, patience_seconds=0)
    (row,) = verify_run(run, FakeDevice(), plan=short, energy=EnergyPlan(), progress=silent)
    assert row.energy is not None
    assert (row.limit_mj, row.within_energy) == (None, None)


@pytest.mark.skipif(amount(1, 0) == 1, reason="profile, energy and search on a phone take a minute: pytest --long")
def test_a_search_keeps_to_the_energy_of_the_simulated_phone(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_key(tmp_path / "adbkey")
    phone = Phone(tmp_path / "phone")
    # Large models take more power, and so more than in proportion to their time.
    gauge = Battery(
        phone, Maker(unit=1e-3, volt=1e-3, sign=-1, files=("current_now", "voltage_now")), watts="2 + us / 50000"
    )
    with Adbd(phone) as adbd:
        shell = AdbShell(Address("127.0.0.1", adbd.port), keys=tmp_path, connect_s=5.0)
        device = AndroidDevice(shell, "android:sim", log=lambda _: None, waits=WAITS)
        gauge.meters(False)
        short = MeasurePlan(sessions=1, patience_seconds=0)
        table = profile_device(device, SPEC, calibration=6, plan=short, progress=silent)
        gauge.meters(True)
        coarse = EnergyPlan(networks=5, seconds=24, max_error=0.4)
        table = measure_table_energy(table, device, coarse, progress=silent)
        predictor = EnergyPredictor(table)
        limit = sorted(predictor.predict(one).bound_mj for one in table.calibrated)[3]
        run = run_search(plan(images, LatencyTarget(table, 1e3), f"energy={limit:.4f}"), tmp_path / "run")
        assert all(network.costs["energy"] * (1 + predictor.margin) <= limit for network in run.front())
        train_run(run, TrainSettings(top=1, jobs=1), progress=silent)
        export_run(run, data=DataSource(str(images)), formats=["tflite"])
        gauge.meters(False)
        verify_run(run, device, plan=short, progress=silent)
        gauge.meters(True)
        (model,) = (run.path / "models").glob("*.tflite")
        watts = 2 + model.stat().st_size / 50000
        busy, rest = device.spend(model, 40), device.spend(None, 40)
        beyond = 1e3 * (busy.watts - rest.watts) * busy.run_seconds
        assert beyond == pytest.approx(truth_mj(model, watts), rel=0.04)
        assert run.verified()[0].predicted_mj == pytest.approx(beyond, rel=0.3)
        shell.close()
