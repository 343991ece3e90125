"""The energy of networks by a table: fits whose coefficients are known, and predictions for other networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cars_hw.config.measurement import EnergyPlan, MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.devices.energy import PowerWindow
from cars_hw.devices.fake import ARITHMETIC_WATTS, OTHER_WATTS, model_parts
from cars_hw.errors import DeviceError, InputError, TableError
from cars_hw.export.write import build_network
from cars_hw.latency import LatencyTable, fresh_genotypes, profile_device
from cars_hw.latency.energy import fit_energy, spread
from cars_hw.latency.measure_energy import EnergyPredictor, measure_table_energy, require_same_device
from cars_hw.progress import silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    plan = MeasurePlan(sessions=1, patience_seconds=0)
    return profile_device(FakeDevice(), SPEC, calibration=10, plan=plan, progress=silent)


def test_a_power_is_found_by_hand() -> None:
    # 2 W for 1, 2, 4 and 8 ms.
    fit = fit_energy([1, 2, 4, 8], [5e6, 1e6, 7e6, 2e6], [2, 4, 8, 16])
    assert fit.watts == pytest.approx(2.0)
    assert fit.mj_per_million == 0
    assert fit.residuals == (0, 0, 0, 0)


def test_multiply_adds_count_where_they_explain_the_rest() -> None:
    # 2 W, and 0.3 mJ for a million.
    times, millions = [1, 2, 4, 8, 3], [5, 1, 7, 2, 9]
    energies = [2 * ms + 0.3 * adds for ms, adds in zip(times, millions, strict=True)]
    fit = fit_energy(times, [1e6 * one for one in millions], energies)
    assert (fit.watts, fit.mj_per_million) == (pytest.approx(2.0), pytest.approx(0.3))
    rng = np.random.default_rng(0)
    noisy = fit_energy(
        times,
        rng.uniform(1e6, 9e6, 5).tolist(),
        [2 * ms * f for ms, f in zip(times, (1, 1.1, 0.9, 1, 1), strict=True)],
    )
    assert noisy.watts == pytest.approx(2.0, rel=0.06)


def test_energies_that_nothing_explains_are_refused() -> None:
    with pytest.raises(InputError, match="at least 4 networks"):
        fit_energy([1, 2, 3], [1, 1, 1], [1, 2, 3])
    # Multiply-adds alone may tell it.
    by_adds = fit_energy([1, 1, 1, 1, 1], [1e6, 2e6, 4e6, 8e6, 3e6], [1, 2, 4, 8, 3])
    assert (by_adds.watts, by_adds.mj_per_million) == (pytest.approx(0, abs=1e-9), pytest.approx(1.0))
    with pytest.raises(DeviceError, match="neither the latency nor the multiply-adds tell the energy"):
        fit_energy([1, 2, 4, 8, 3], [1e6, 2e6, 4e6, 8e6, 3e6], [9, 1, 7, 0.5, 4])


def test_networks_are_spread_from_the_smallest_to_the_largest() -> None:
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0], 3) == [1, 2, 0]
    assert spread([5.0, 1.0], 8) == [1, 0]


def test_the_energy_of_other_networks_is_predicted(table: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the table of fake does not have the energy") as told:
        EnergyPredictor(table)
    assert told.value.remedy == "measure-energy"
    measured = measure_table_energy(table, FakeDevice(), EnergyPlan(networks=6), progress=silent)
    measured.write(tmp_path / "table.json")
    assert LatencyTable.read(tmp_path / "table.json") == measured
    assert measured.energy is not None
    assert len(measured.energy.networks) == 6
    assert measured.energy.meter == "none, powers are computed"
    assert measured.energy.idle_watts == pytest.approx(1.0)
    predictor = EnergyPredictor(measured)
    # Six residuals allow no more.
    assert predictor.level == pytest.approx(6 / 7)
    for number, genotype in enumerate(fresh_genotypes(measured, 4, np.random.default_rng(3))):
        path = tmp_path / f"{number}.onnx"
        build_network(SPEC, genotype, path, "onnx", "fp32")
        arithmetic, rest = model_parts(path)
        truth = ARITHMETIC_WATTS * arithmetic + OTHER_WATTS * (rest + 0.01)
        mj, bound_mj = predictor.predict(Architecture(genotype, SPEC))
        assert mj == pytest.approx(truth, rel=0.1)
        assert bound_mj == pytest.approx(mj * (1 + predictor.margin))


def test_the_bound_has_the_error_of_latencies_that_were_not_fitted(table: LatencyTable) -> None:
    assert table.predictor is not None
    plan = EnergyPlan(networks=10)
    exact = measure_table_energy(table, FakeDevice(), plan, progress=silent)
    # The same line, which predicts networks that are left out 20% too high or too low.
    wrong = tuple(0.2 if place % 2 else -0.2 for place in range(len(table.predictor.residuals)))
    rough = replace(table, predictor=replace(table.predictor, residuals=wrong))
    measured = measure_table_energy(rough, FakeDevice(), plan, progress=silent)
    assert exact.energy is not None
    assert measured.energy is not None
    assert exact.energy.margin(0.95)[0] < 0.1
    assert measured.energy.margin(0.95)[0] > 0.15


def test_another_machine_with_a_device_of_this_name_is_refused(table: LatencyTable) -> None:
    elsewhere = replace(table, conditions={**table.conditions, "processor": "another one"})
    with pytest.raises(TableError, match="the table is for the processor another one, not for none, latencies"):
        measure_table_energy(elsewhere, FakeDevice(), progress=silent)


def test_another_device_is_refused_and_a_phone_by_another_address_is_not(table: LatencyTable) -> None:
    with pytest.raises(TableError, match=r"the table is for the runtime fake seed 0 .*, not for fake seed 1"):
        require_same_device(table, FakeDevice(seed=1))

    class Phone(FakeDevice):
        """The same phone, at an address."""

        def conditions(self) -> dict[str, object]:
            """Return the serial number, too."""
            return {**super().conditions(), "device_identity": "android:SIM"}

    by_cable = replace(
        table, device="android:SIM", conditions={**table.conditions, "device_identity": "android:SIM"}
    )
    require_same_device(by_cable, Phone("android:10.0.0.2:5555"))
    with pytest.raises(TableError, match="the table is for the device android:SIM, not for fake"):
        require_same_device(by_cable, FakeDevice())


def test_an_interrupted_measurement_goes_on_and_ends_as_it_would_have(table: LatencyTable, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Counted(FakeDevice):
        """The fake device, which is killed before its window number ``dies``."""

        def __init__(self, dies: int = 10**9) -> None:
            super().__init__()
            self.dies, self.windows = dies, 0

        def spend(self, model: Path | None, seconds: float) -> PowerWindow:
            """Count the windows."""
            if self.windows == self.dies:
                raise Killed
            self.windows += 1
            return super().spend(model, seconds)

    plan, path, said = EnergyPlan(networks=4), tmp_path / "table.json", list[str]()
    partial = tmp_path / "table.json.energy.partial"
    table.write(path)
    whole = Counted()
    expected = measure_table_energy(table, whole, plan, progress=silent).energy
    with pytest.raises(Killed):
        measure_table_energy(table, Counted(8), plan, out=path, progress=silent, log=said.append)
    assert (LatencyTable.read(path), said) == (table, [])
    with pytest.raises(TableError, match=r"with other settings \(networks\); go on with"):
        measure_table_energy(table, FakeDevice(), EnergyPlan(networks=5), out=path, progress=silent)
    again = Counted()
    found = measure_table_energy(table, again, plan, out=path, progress=silent, log=said.append)
    # A look and a rest, and three models with a rest each.
    assert said == [f"goes on after 3 measurements of networks, which {partial} has"]
    assert again.windows == whole.windows - 6
    assert found.energy is not None
    assert expected is not None
    assert replace(found.energy, measured="") == replace(expected, measured="")
    assert LatencyTable.read(path) == found
    assert not partial.exists()
    # A table that has energy already is the same table.
    with pytest.raises(Killed):
        measure_table_energy(found, Counted(8), plan, out=path, progress=silent)
    measure_table_energy(table, FakeDevice(), plan, out=path, progress=silent, log=said.append)
    assert len(said) == 2
