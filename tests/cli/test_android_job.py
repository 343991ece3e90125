"""From two phones on the cable to models that were measured on both again, by commands alone."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from device_jobs import ONCE, QUICK, SMALL, write_images, write_once
from long_runs import amount
from simulated_phone import Adbd, Phone

from cars_hw.cli.main import main
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android.adb import make_key
from cars_hw.latency import LatencyTable


@pytest.fixture
def once(tmp_path: Path) -> Path:
    """Settings of one session a model."""
    return write_once(tmp_path / "once.toml")


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output + result.stderr
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One session a model when the front is confirmed, a key that is made here, and no stored tool."""
    monkeypatch.setattr("cars_hw.pipeline.confirm_front.MeasurePlan", partial(MeasurePlan, **ONCE))
    make_key(tmp_path / "keys" / "adbkey")
    monkeypatch.setattr("cars_hw.devices.android.adb.KEYS", tmp_path / "keys")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_two_phones_are_profiled_side_by_side_and_one_search_keeps_to_both(
    tmp_path: Path, folder: Path, once: Path
) -> None:
    fast, slow = Phone(tmp_path / "fast"), Phone(tmp_path / "slow", serial="SIM0002", slower=4.0)
    for phone in (fast, slow):
        phone.install()
    with Adbd(fast) as first, Adbd(slow) as second:
        names = [f"android:127.0.0.1:{adbd.port}" for adbd in (first, second)]
        devices = [word for name in names for word in ("--device", name)]
        summaries = json.loads(
            run(
                "profile",
                *devices,
                *SMALL,
                "--calibration",
                "6",
                "--config",
                once,
                "--out",
                tmp_path / "phones.json",
                "--json",
            ).stdout
        )
        paths = [tmp_path / f"phones-android-127.0.0.1-{adbd.port}.json" for adbd in (first, second)]
        assert [Path(summary["table"]) for summary in summaries] == paths
        tables = [LatencyTable.read(path) for path in paths]
        assert [table.device for table in tables] == names
        assert "SIM0002" in tables[1].conditions["processor"]
        slower = [
            tables[1].entries[key].ms / tables[0].entries[key].ms for key in tables[0].entries if "conv" in str(key)
        ]
        assert 1.5 < np.median(slower) < 10

        # What these tiny models take is mostly noise; three times the slowest is safe from it.
        budgets = [f"{3 * summary['slowest_ms']}ms" for summary in summaries]
        asked = [
            word
            for path, budget in zip(paths, budgets, strict=True)
            for word in ("--table", str(path), "--latency", budget)
        ]
        out = tmp_path / "run"
        run("search", "--data", folder, *asked, "--out", out, *QUICK, "--json")
        front = json.loads((out / "front.json").read_text())["networks"]
        for network in front:
            for estimate, name in zip(network["latency_estimates"], names, strict=True):
                assert estimate["device"] == name
                assert 0 < estimate["measured_ms"] <= estimate["limit_ms"]
        run("train", out, "--top", "1", "--epochs", "1", "--jobs", "1", "--on", "cpu", "--json")
        run("export", out, "--format", "tflite", "--json")
        for name in names:
            (row,) = json.loads(run("verify", out, "--device", name, "--config", once, "--json").stdout)
            assert row["device"] == name
            assert row["within_budget"]
        run("validate", "--table", paths[0], "--sample", "2", "--config", once)
    for phone in (fast, slow):
        assert not (phone.tmp / "cars-hw").exists()
        assert phone.setting("stay_on_while_plugged_in") is None


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_one_phone_that_fails_stops_the_others_and_all_can_be_resumed(tmp_path: Path, once: Path) -> None:
    good, bad = Phone(tmp_path / "good"), Phone(tmp_path / "bad", serial="SIM0002")
    good.install()
    bad.install("exit 1")
    with Adbd(good) as first, Adbd(bad) as second:
        arguments = [
            *(word for adbd in (first, second) for word in ("--device", f"android:127.0.0.1:{adbd.port}")),
            *SMALL,
            "--calibration",
            "4",
            "--config",
            str(once),
            "--out",
            str(tmp_path / "t.json"),
        ]
        result = CliRunner().invoke(main, ["profile", *arguments])
        assert result.exit_code == 1
        # What it was, and not the file in a folder that has gone.
        assert "benchmark_model cannot run the reference network CARS_A" in result.output + result.stderr
        assert not (tmp_path / f"t-android-127.0.0.1-{first.port}.json").exists()
        bad.install()
        assert len(json.loads(run("profile", *arguments, "--resume", "--json").stdout)) == 2
