"""A profile that is resumed although it has ended, and what a device has told before it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cars_hw.config.codec import unstructure
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice, Sample
from cars_hw.devices.protocol import SessionCounter
from cars_hw.errors import DeviceError, InputError, TableError
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.latency.finished import require_same
from cars_hw.latency.side_by_side import profile_all
from cars_hw.measurement.journal import Journal, partial_path
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.space_of import space_of

SPEC = NetworkSpec(channels=4, layers=3, resolution=(8, 8), in_channels=1)
OPTIONS = {"calibration": 6, "plan": MeasurePlan(sessions=1), "space": SearchSpace(("none", "sep_conv_3x3"))}


class Telling(FakeDevice):
    """A device that has something to tell after its first session, and fails after so many blocks."""

    def __init__(self, learns: dict[str, Any], blocks: int = 1000, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self.learns, self.blocks, self.sessions = learns, blocks, 0

    def learnt(self) -> dict[str, Any]:
        return self.learns if self.sessions else {}

    def conditions(self) -> dict[str, Any]:
        return {**super().conditions(), **self.learnt()}

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        if self.blocks == 0:
            raise DeviceError("the cable came out")
        self.blocks -= 1
        self.sessions += len(models)
        return super().run(models, plan, seed, on_session)


FIRST = {
    "warnings": ["the battery saver is on"],
    "warmest_c": {"battery": 36.5, "case": 35.0},
    "clock_reached_mhz": 2000.0,
    "fixed_performance": True,
}
LATER = {
    "warnings": ["the phone runs on its battery"],
    "warmest_c": {"battery": 31.0, "processor": 50.0},
    "clock_reached_mhz": 1800.0,
    "fixed_performance": None,
}


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_what_a_device_told_before_an_interruption_is_in_the_table(blocks: int, tmp_path: Path) -> None:
    """At whichever stage that was: the device of the profile that resumes knows nothing of it."""
    out = tmp_path / "table.json"
    with pytest.raises(DeviceError, match="the cable came out"):
        profile_device(Telling(FIRST, blocks), SPEC, out=out, **OPTIONS)
    assert partial_path(out).exists()
    table = profile_device(Telling(LATER), SPEC, out=out, resume=True, **OPTIONS)
    assert table.conditions["warnings"] == ["the battery saver is on", "the phone runs on its battery"]
    assert table.conditions["warmest_c"] == {"battery": 36.5, "case": 35.0, "processor": 50.0}
    assert (table.conditions["clock_reached_mhz"], table.conditions["fixed_performance"]) == (2000.0, True)
    assert "the battery saver is on" in LatencyTable.read(out).quality_warnings()


def test_cores_are_told_in_their_order_after_an_interruption(tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    with pytest.raises(DeviceError, match="the cable came out"):
        profile_device(Telling({"app_cores": [4, 7]}, 1), SPEC, out=out, **OPTIONS)
    table = profile_device(Telling({"app_cores": [2, 7]}), SPEC, out=out, resume=True, **OPTIONS)
    assert table.conditions["app_cores"] == [2, 4, 7]


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return profile_device(FakeDevice(), SPEC, **OPTIONS)


def left_behind(table: LatencyTable, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profile into ``out``, killed after the table was written."""
    monkeypatch.setattr(Journal, "remove", lambda _: None)
    assert profile_device(FakeDevice(), SPEC, out=out, **OPTIONS).entries == table.entries
    monkeypatch.undo()
    assert partial_path(out).exists()


def test_killed_after_the_table_was_written_a_profile_that_resumes_is_finished(
    table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table.json"
    left_behind(table, out, monkeypatch)
    written = out.read_bytes()
    device = Telling({}, 0)
    with pytest.raises(TableError, match=r"of a profile with other settings \(plan\)"):
        profile_device(device, SPEC, out=out, resume=True, **{**OPTIONS, "seed": 1})
    assert profile_device(device, SPEC, out=out, resume=True, **OPTIONS) == LatencyTable.read(out)
    assert (device.sessions, out.read_bytes(), list(tmp_path.iterdir())) == (0, written, [out])


def test_samples_of_another_profile_beside_a_table_finish_nothing(
    table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table.json"
    left_behind(table, out, monkeypatch)
    replace(table, created="2001-01-01T00:00:00+00:00").write(out)
    with pytest.raises(TableError, match="exists; write to another file"):
        profile_device(FakeDevice(), SPEC, out=out, resume=True, **OPTIONS)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"seed": 1}, "plan"),
        ({"calibration": 7}, "calibration"),
        ({"precision": "int8"}, "precision"),
        ({"space": SearchSpace(("none", "sep_conv_3x3", "skip_connect"))}, "operations"),
        ({"space": SearchSpace()}, "operations"),
    ],
)
def test_a_finished_table_of_other_settings_is_not_taken(
    changes: dict[str, Any], names: str, table: LatencyTable, tmp_path: Path
) -> None:
    out = tmp_path / "table.json"
    table.write(out)
    with pytest.raises(TableError, match=rf"exists, with other settings \({names}\); write to another file"):
        profile_device(FakeDevice(), SPEC, out=out, resume=True, **{**OPTIONS, **changes})
    with pytest.raises(TableError, match=r"other settings \(network\)"):
        profile_device(FakeDevice(), SPEC.with_changes(channels=6), out=out, resume=True, **OPTIONS)
    with pytest.raises(TableError, match="exists; write to another file"):
        profile_device(FakeDevice(), SPEC, out=out, **OPTIONS)


@pytest.mark.parametrize("asked", [(), ("skip", "k3_e3")])
@pytest.mark.parametrize("has", [(), ("skip", "k3_e3")])
def test_a_finished_table_of_blocks_has_their_choices(
    has: tuple[str, ...], asked: tuple[str, ...], table: LatencyTable
) -> None:
    spec = NetworkSpec(4, 5, (9, 9), 1, classes=3, family="mobile")
    # Only what is compared is that of blocks, whose profile takes seconds. Other settings differ, too.
    with pytest.raises(TableError, match="with other settings") as error:
        require_same(
            Path("t.json"),
            replace(table, spec=spec, operations=has),
            {"operations": list(space_of(spec, asked).operations), "network": unstructure(spec)},
        )
    assert ("operations" in str(error.value)) == (has != asked)
    assert "network" not in str(error.value)


def test_of_several_devices_those_that_have_ended_need_not_be_measured_again(
    table: LatencyTable, tmp_path: Path
) -> None:
    paths = [tmp_path / "first.json", tmp_path / "second.json"]
    table.write(paths[0])
    ended, other = Telling({}, 0), FakeDevice(name="other")
    tables = profile_all([ended, other], SPEC, paths, resume=True, **OPTIONS)
    assert tables[0] == table
    assert tables[1].device == "other"


def test_one_phone_under_two_addresses_is_named_once(tmp_path: Path) -> None:
    class Phone(FakeDevice):
        def conditions(self) -> dict[str, Any]:
            return {**super().conditions(), "device_identity": "android:SIM0001"}

    devices = [Phone(name="android:SIM0001"), Phone(name="android:192.168.1.20:5555")]
    with pytest.raises(InputError, match=r"SIM0001 and android:192\.168\.1\.20:5555 are the same device .*SIM0001"):
        profile_all(devices, SPEC, [tmp_path / "a.json", tmp_path / "b.json"], **OPTIONS)
