"""From a board over ssh to models that were measured on it again, by commands alone."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from long_runs import amount
from PIL import Image
from ssh_server import Server, needs_sshd

from cars_hw.cli.main import main
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.board.ssh import SshShell
from cars_hw.latency import LatencyTable

SMALL = ("--channels", "4", "--layers", "3", "--resolution", "8", "--classes", "2")
QUICK = ("--population", "4", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8", "--on", "cpu")
ONCE: dict[str, Any] = {
    "sessions": 1,
    "min_runs": 5,
    "min_seconds": 0.0,
    "warmup_seconds": 0.0,
    "patience_seconds": 0,
}


@needs_sshd
@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_a_board_is_profiled_searched_for_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path / "sshd")
    server.install()
    monkeypatch.setattr("cars_hw.devices.board.device.SshShell", partial(SshShell, options=server.options))
    monkeypatch.setattr("cars_hw.pipeline.confirm_front.MeasurePlan", partial(MeasurePlan, **ONCE))
    once = tmp_path / "once.toml"
    once.write_text("[measurement]\n" + "".join(f"{name} = {value}\n" for name, value in ONCE.items()))
    rng = np.random.default_rng(0)
    for name, shade in (("dark", 20), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(shade, shade + 50, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")

    def run(*arguments: object) -> Any:  # noqa: ANN401 -- what a command prints
        result = CliRunner().invoke(main, [str(argument) for argument in (*arguments, "--json")])
        assert result.exit_code == 0, result.output + result.stderr
        return json.loads(result.stdout)

    try:
        table, out, board = tmp_path / "board.json", tmp_path / "run", f"ssh:{server.destination}"
        told = run("profile", "--device", board, *SMALL, "--calibration", 6, "--config", once, "--out", table)
        assert LatencyTable.read(table).conditions["runtime"].startswith("benchmark_model ")
        limit = f"{3 * told['slowest_ms']}ms"
        run("search", "--data", tmp_path / "images", "--table", table, "--latency", limit, "--out", out, *QUICK)
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
