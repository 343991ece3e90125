"""What a phone warns of while a command measures: said once, in the results, and refused with --strict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_jobs import SMALL, write_once
from invoked import done, fails, run
from throttling_stand import Stand, throttling_phone

from cars_hw.devices.android.adb import make_key

SAVER = "the battery saver is on"


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    make_key(tmp_path / "keys" / "adbkey")
    with throttling_phone(tmp_path, tmp_path / "keys") as made:
        yield made


@pytest.fixture
def command(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | Path]:
    """The begin of a command that measures one network."""
    monkeypatch.setattr("cars_hw.devices.open_device", lambda *_: stand.device)
    # The load goes by the clock of the phone, however slow this machine is.
    monkeypatch.setattr("cars_hw.measurement.sustained.Clock", lambda: stand.throttling.clock)
    write_once(tmp_path / "once.toml")
    with (tmp_path / "once.toml").open("a") as file:
        file.write("[load]\nload_seconds = 30\nwindow_seconds = 20\nsession_seconds = 10\n")
    return ["measure", "--device", "android:sim", *SMALL, "--config", tmp_path / "once.toml", "CARS_A"]


def test_a_warning_of_the_phone_is_in_the_results_and_refused_with_strict(
    stand: Stand, command: list[str | Path]
) -> None:
    stand.phone.set("low_power", "1")
    (row,) = json.loads(done(*command, "--json").stdout)
    assert row["warnings"] == [SAVER]
    fails(run(*command, "--strict"), 3, "unreliable, and --strict is given", SAVER)
    stand.phone.set("low_power", "0")


def test_a_machine_that_slowed_down_is_said_and_refused_with_strict(
    stand: Stand, command: list[str | Path]
) -> None:
    stand.throttling.phase(stand.throttling.clock.now() + 1.0, 1.6, 1.6)
    result = run(*command, "--sessions", "8", "--strict")
    fails(result, 3, "times faster before and did not return")
    assert result.stderr.count("Warning:") == 1


def test_the_sustained_state_is_printed_and_kept(stand: Stand, command: list[str | Path]) -> None:
    stand.throttling.heats(0.5, 20.0)
    shown = done(*command, "--sustained")
    assert "sustained, median run" in shown.stdout
    (row,) = json.loads(done(*command, "--sustained", "--json").stdout)
    assert row["sustained"]["fresh_ms"] < row["sustained"]["p50_ms"] <= row["sustained"]["p90_ms"]
    (row,) = json.loads(done(*command, "--json").stdout)
    assert "sustained" not in row


def test_a_device_without_a_sustained_state_is_an_error_at_once() -> None:
    result = run("measure", "--device", "fake", "--sustained", "CARS_A")
    fails(result, 1, "fake: the sustained state is measured on phones and boards only")
