"""From a board over ssh to models that were measured on it again, by commands alone."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from device_jobs import ONCE, QUICK, SMALL, write_images, write_once
from long_runs import amount
from ssh_server import Server, needs_sshd

from cars_hw.cli.main import main
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.board.ssh import SshShell
from cars_hw.latency import LatencyTable


@needs_sshd
@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_a_board_is_profiled_searched_for_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path / "sshd")
    server.install()
    monkeypatch.setattr("cars_hw.devices.board.device.SshShell", partial(SshShell, options=server.options))
    monkeypatch.setattr("cars_hw.pipeline.confirm_front.MeasurePlan", partial(MeasurePlan, **ONCE))
    once, images = write_once(tmp_path / "once.toml"), write_images(tmp_path / "images")

    def run(*arguments: object) -> Any:  # noqa: ANN401 -- what a command prints
        result = CliRunner().invoke(main, [str(argument) for argument in (*arguments, "--json")])
        assert result.exit_code == 0, result.output + result.stderr
        return json.loads(result.stdout)

    try:
        table, out, board = tmp_path / "board.json", tmp_path / "run", f"ssh:{server.destination}"
        told = run("profile", "--device", board, *SMALL, "--calibration", 6, "--config", once, "--out", table)
        assert LatencyTable.read(table).conditions["runtime"].startswith("benchmark_model ")
        limit = f"{3 * told['slowest_ms']}ms"
        run("search", "--data", images, "--table", table, "--latency", limit, "--out", out, *QUICK)
        run("train", out, "--top", 1, "--epochs", 1, "--jobs", 1, "--on", "cpu")
        run("export", out, "--format", "tflite")
        (row,) = run("verify", out, "--device", board, "--config", once)
        (model,) = out.rglob("*.tflite")
        # The tool of the board takes as many microseconds as a model has bytes.
        assert row["measured_ms"] == pytest.approx(model.stat().st_size / 1e3)
        assert row["device"] == board
        assert row["within_budget"]
        assert not Path("/tmp/cars-hw").exists()
    finally:
        server.stop()
