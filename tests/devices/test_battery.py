"""The energy of models by the battery of a phone, whose counters, units and signs are those of several makers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from long_runs import amount
from phone_stand import WAITS
from simulated_phone import Adbd, Battery, Maker, Phone, truth_mj

from cars_hw.config.measurement import EnergyPlan, Meter
from cars_hw.devices.android import battery
from cars_hw.devices.android.adb import AdbShell, Address
from cars_hw.devices.android.battery import Row, meter_of, parse_rows, readings_of, require_power
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.errors import ConnectionLostError, DeviceError, DeviceStateError
from cars_hw.measurement.energy import measure_energy

WATTS = 2.5
MAKERS = {
    "microampere-hours, a falling charge": Maker(step=20, gauge_s=1.0),
    "milliamperes, a positive current": Maker(unit=1e-3, volt=1e-3, sign=-1, files=("current_now", "voltage_now")),
    "negative milliampere-hours, in large steps": Maker(
        unit=1e-3, volt=1e-3, sign=-1, step=1, gauge_s=2.0, files=("charge_counter", "voltage_now")
    ),
    "the battery service only": Maker(step=500, files=()),
}


@pytest.fixture
def make(phone: Phone, adbd: Adbd, keys: Path, said: list[str]) -> Callable[..., tuple[Battery, AndroidDevice]]:
    def made(maker: Maker) -> tuple[Battery, AndroidDevice]:
        gauge = Battery(phone, maker, idle_watts=0.7, watts=str(WATTS))
        shell = AdbShell(Address("127.0.0.1", adbd.port), keys=keys, connect_s=5.0)
        return gauge, AndroidDevice(shell, "android:sim", log=said.append, waits=WAITS)

    return made


@pytest.mark.parametrize("name", list(MAKERS)[:2])
def test_the_power_beyond_rest_is_right(
    name: str, make: Callable[..., tuple[Battery, AndroidDevice]], models: list[Path]
) -> None:
    _, device = make(MAKERS[name])
    busy, rest = device.spend(models[0], 20), device.spend(None, 16)
    assert busy.watts - rest.watts == pytest.approx(WATTS, rel=0.04)
    assert busy.run_seconds == pytest.approx(models[0].stat().st_size / 1e6)
    device.release()


@pytest.mark.skipif(amount(1, 0) == 1, reason="four measurements take half a minute: pytest --long")
@pytest.mark.parametrize("name", MAKERS)
def test_the_energy_is_right_in_the_units_and_signs_of_every_maker(
    name: str, make: Callable[..., tuple[Battery, AndroidDevice]], models: list[Path]
) -> None:
    gauge, device = make(MAKERS[name])
    plan = EnergyPlan(seconds=24, max_seconds=600, max_error=0.1)
    before = gauge.joules()
    (found,) = measure_energy(device, models[:1], plan)
    assert found.mj == pytest.approx(truth_mj(models[0], WATTS), rel=0.04)
    # The error is the largest that there can be.
    assert abs(found.mj / truth_mj(models[0], WATTS) - 1) <= found.error <= 0.1
    assert found.idle_watts == pytest.approx(0.7, rel=0.05)
    assert found.run_ms == pytest.approx(models[0].stat().st_size / 1e3)
    # The battery gave all of it, and more: the tool started, and the phone rested.
    assert gauge.joules() - before > found.watts * found.seconds


def row(second: float, **told: int | None) -> Row:
    """A look at a phone that is unplugged and 80% full."""
    return Row(second, None, None, None, None, 80, False)._replace(**told)


def test_joules_by_hand() -> None:
    # 3.2 Ah and 4 V: 1 mAh is 14.4 J; 250 mA at 4 V are 1 W; 1000 uWh are 3.6 J.
    micro = [row(0, charge=3_200_000, voltage=4_000_000), row(10, charge=3_199_000, voltage=4_000_000)]
    assert readings_of(micro, "charge", "it") == [(0, 0), (10, pytest.approx(14.4))]
    milli = [row(0, charge=-3200, voltage=4000), row(10, charge=-3201, voltage=4000)]
    assert readings_of(milli, "charge", "it") == [(0, 0), (10, pytest.approx(14.4))]
    for current, volts in ((250_000, 4_000_000), (-250_000, 4_000_000), (250, 4000), (-250, 4_000_000)):
        told = [row(second, current=current, voltage=volts) for second in (0, 2, 5)]
        assert [one.joules for one in readings_of(told, "current", "it")] == pytest.approx([0, 2, 5])
    told = [row(0, energy=9_000_000), row(4, energy=8_999_000)]
    assert readings_of(told, "energy", "it") == [(0, 0), (4, pytest.approx(3.6))]


@pytest.mark.parametrize(
    ("rows", "meter", "words"),
    [
        ([row(0, charge=120, voltage=4000)], "charge", "tells a charge of 120 at 80%, which is of no phone"),
        ([row(0, charge=3200, voltage=4000, level=0)], "charge", "does not tell how full"),
        ([row(0, charge=3200, voltage=400)], "charge", "tells a voltage of 400, which is of no battery"),
        ([row(0, current=3, voltage=4000)], "current", "tells a current of 3, which is of no phone"),
        ([row(0, current=12_000, voltage=4000)], "current", "tells a current of 12000, which is of no phone"),
        ([row(0, current=300, voltage=4000), row(2, current=-9, voltage=4000)], "current", "changed its direction"),
        ([row(0, charge=3200, voltage=4000), row(2, voltage=4000)], "charge", "did not tell the charge"),
        (
            [row(0, energy=900), row(2, energy=890), row(4, energy=895), row(6, energy=800)],
            "energy",
            "lost and gained meanwhile",
        ),
        # 400 mA for 100 s are 160 J, and the charge says 4 mAh, 57.6 J.
        (
            [
                row(20.0 * place, current=400, voltage=4000, charge=charge)
                for place, charge in enumerate((3200, 3199, 3198, 3197, 3196, 3196))
            ],
            "current",
            "which do not agree",
        ),
    ],
)
def test_figures_of_no_phone_are_refused(rows: list[Row], meter: Meter, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        readings_of(rows, meter, "it")


def test_a_power_of_no_phone_is_refused() -> None:
    require_power(3.0, "it")
    for watts in (0.001, 400.0):
        with pytest.raises(DeviceError, match="its units are not known"):
            require_power(watts, "it")


def test_the_meter_is_the_first_that_there_is_or_the_wanted_one() -> None:
    told = row(0, charge=3200, current=300, voltage=4000)
    assert meter_of([told], "auto", "it") == "charge"
    assert meter_of([told], "current", "it") == "current"
    with pytest.raises(DeviceError, match="does not tell the energy of its battery"):
        meter_of([told], "energy", "it")
    with pytest.raises(DeviceError, match="does not tell whether it is on a charger"):
        meter_of([told._replace(plugged=None)], "auto", "it")


def test_the_battery_service_tells_what_the_files_do_not() -> None:
    output = "@meter 12.50 /  /  /  /  /  / \n@service AC powered: false\n@service USB powered: false\n"
    told = "@service level: 80\n@service voltage: 4236\n@service Charge counter: 3058000\n"
    assert parse_rows(output + told, "it") == [Row(12.5, 3_058_000, None, 4236, None, 80, False)]
    with pytest.raises(DeviceStateError, match="on a charger"):
        parse_rows(output.replace("USB powered: false", "USB powered: true"), "it")
    with pytest.raises(DeviceStateError, match="was told to stop"):
        parse_rows(output + "@service   (UPDATES STOPPED -- use 'reset' to restart)\n", "it")


def test_a_phone_that_tells_nothing_or_sleeps_is_refused() -> None:
    with pytest.raises(DeviceError, match="it does not tell anything of its battery"):
        parse_rows("@meter  /  /  /  /  /  / 0\n", "it")
    told = "@meter 10.00 / 1 / 2 / 3 / 4 / 80 / 0\n@meter {} / 1 / 2 / 3 / 4 / 80 / 0\n"
    assert len(parse_rows(told.format("12.10"), "it")) == 2
    with pytest.raises(DeviceStateError, match="did not look at its battery for 50 s: it slept"):
        parse_rows(told.format("60.00"), "it")


@pytest.mark.parametrize(
    ("files", "plugged"),
    [
        ({"usb": "0", "ac": "0"}, "0"),
        ({"usb": "1", "ac": "0"}, "1"),
        # A charger whose voltage the phone chooses.
        ({"usb": "0", "ac": "2"}, "1"),
        # The battery's own file is no charger.
        ({"battery": "1", "usb": "0"}, "0"),
        ({"battery": "1"}, ""),
    ],
)
def test_a_row_tells_chargers_and_renews_the_lock(tmp_path: Path, files: dict[str, str], plugged: str) -> None:
    for supply, online in files.items():
        (tmp_path / supply).mkdir()
        (tmp_path / supply / "online").write_text(f"{online}\n")
    (tmp_path / "lock").mkdir()
    functions = battery.FUNCTIONS.replace(battery.SUPPLIES, str(tmp_path)).replace("HERE", str(tmp_path))
    text = f"uptime_s() {{ echo 77; }}\ndumpsys() {{ :; }}\n{functions}\nmeter_row"
    said = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout
    assert said.startswith("@meter ")
    assert said.strip().rpartition("/")[2].strip() == plugged
    assert (tmp_path / "lock" / "seen").read_text() == "77\n"


def test_a_window_begins_again_after_a_lost_connection(
    make: Callable[..., tuple[Battery, AndroidDevice]],
    models: list[Path],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, device = make(MAKERS["microampere-hours, a falling charge"])
    metered, lost = device._metered, [ConnectionLostError("the connection broke")]

    def cut(*arguments: object) -> tuple[str, tuple[int, float]]:
        if lost:
            raise lost.pop()
        return metered(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(device, "_metered", cut)
    assert device.spend(None, 16).watts == pytest.approx(0.7, rel=0.05)
    assert any("the connection broke; waiting" in line for line in said)
    monkeypatch.setattr(device, "_wait_for_return", said.append)
    lost += [ConnectionLostError("once more")] * 5
    with pytest.raises(ConnectionLostError, match="once more"):
        device.spend(None, 16)
    assert not lost
    device.release()


def test_a_phone_on_a_charger_is_refused_before_anything_runs(
    make: Callable[..., tuple[Battery, AndroidDevice]], models: list[Path]
) -> None:
    gauge, device = make(MAKERS["microampere-hours, a falling charge"])
    gauge.plug(True)
    with pytest.raises(DeviceStateError, match="is on a charger or a powered cable"):
        measure_energy(device, models[:1])
    assert gauge.joules() == 0


def test_a_counter_that_does_not_move_is_refused(
    make: Callable[..., tuple[Battery, AndroidDevice]], models: list[Path]
) -> None:
    # A charge in percent of the capacity: 40 mAh a step.
    _, device = make(Maker(step=40_000, files=("charge_counter", "voltage_now")))
    with pytest.raises(
        DeviceStateError, match=r"the energy counter did not move twice in 20 s while .* runs"
    ) as told:
        measure_energy(device, models[:1], EnergyPlan(seconds=10, max_seconds=20))
    assert told.value.remedy == "longer-energy"


def test_a_tool_whose_script_is_stopped_ends(tmp_path: Path) -> None:
    # The shell that waits for the tool is killed, and the tool must not go on for minutes.
    tool = subprocess.Popen(["sleep", "100"], cwd=tmp_path)
    (tmp_path / "metered").write_text(f"{tool.pid}\n")
    subprocess.run(["sh", "-c", battery.AFTER], cwd=tmp_path, check=True)
    assert tool.wait(10) == -9
    assert not (tmp_path / "metered").exists()
