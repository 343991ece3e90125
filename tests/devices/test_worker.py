from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import OrtDevice
from cars_hw.devices.host.session_worker import time_runs
from cars_hw.devices.host.worker import Worker
from cars_hw.errors import DeviceError

PLAN = MeasurePlan(sessions=1)
HELLO = "import json, sys, time; print(json.dumps({'runtime': 'stub'}), flush=True); "


def stub(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def measure(code: str, tmp_path: Path, time_limit_s: float = 20.0) -> float:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"")
    device = OrtDevice(worker=stub(code), time_limit_s=time_limit_s)
    return device.run([model], PLAN, 0)[0].ms


def test_an_answer_is_the_measurement(tmp_path: Path) -> None:
    answering = HELLO + "[print(json.dumps({'ms': 1.5, 'runs': 9}), flush=True) for _ in sys.stdin]"
    assert measure(answering, tmp_path) == 1.5


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            HELLO + "sys.stdin.readline(); sys.exit('out of memory')",
            r"model\.onnx.*exit status 1.*: out of memory$",
        ),
        (HELLO + "sys.stdin.readline(); import os; os.abort()", r"model\.onnx.*exit status -6.*no output"),
        ("raise SystemExit('no runtime here')", r"starting.*no runtime here$"),
        (
            HELLO + "sys.stdin.readline(); print('Segmentation fault', flush=True)",
            r"invalid answer.*Segmentation fault",
        ),
        (HELLO + "sys.stdin.readline(); print('[1]', flush=True)", "invalid answer"),
        (HELLO + "sys.stdin.readline(); print('{\"ms\": 0.0}', flush=True)", r"no latency for .*model\.onnx"),
        (HELLO + "sys.stdin.readline(); print('{}', flush=True)", r"no latency for .*model\.onnx"),
    ],
)
def test_a_worker_that_fails_is_an_error_in_one_line(code: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=message) as raised:
        measure(code, tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("code", [HELLO + "time.sleep(60)", "import time; time.sleep(60)"])
def test_a_worker_that_hangs_is_an_error_after_the_time_limit(code: str, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(DeviceError, match=r"no answer within 0\.5 s"):
        measure(code, tmp_path, time_limit_s=0.5)
    assert time.monotonic() - began < 15


def test_a_worker_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(DeviceError, match="does not start"),
        Worker([str(tmp_path / "nothing")], device_name="stub", time_limit_s=1),
    ):
        pass


def test_a_worker_that_says_much_to_stderr_does_not_block(tmp_path: Path) -> None:
    chatty = HELLO + "sys.stderr.write('x' * 1_000_000); [print('{\"ms\": 2.0}', flush=True) for _ in sys.stdin]"
    assert measure(chatty, tmp_path) == 2.0


def test_an_interrupted_measurement_leaves_no_worker_behind(tmp_path: Path) -> None:
    code = HELLO + "import os; [print(json.dumps({'ms': float(os.getpid())}), flush=True) for _ in sys.stdin]"
    models = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for model in models:
        model.write_bytes(b"")
    workers: list[int] = []

    def interrupt(done: int) -> None:
        # The stub is still running; it sits in a loop over its input.
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        if not children.exists():
            pytest.skip("this system does not list a process's children")
        workers.extend(map(int, children.read_text().split()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        OrtDevice(worker=stub(code)).run(models, PLAN, 0, interrupt)
    assert workers
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.parametrize(
    ("limits", "runs"),
    [
        ({"min_runs": 7, "min_seconds": 0.0, "max_seconds": 60.0}, 7),
        # Each run takes 2 ms: the floor of 30 ms asks for 15 of them, the ceiling of 1 ms still gets its five.
        ({"min_runs": 1, "min_seconds": 0.03, "max_seconds": 60.0}, 15),
        ({"min_runs": 1000, "min_seconds": 0.0, "max_seconds": 0.001}, 5),
    ],
)
def test_how_often_a_model_is_run(limits: dict[str, float], runs: int) -> None:
    taken = time_runs(lambda: time.sleep(0.002), limits)
    assert runs / 3 <= len(taken) <= runs
    assert min(taken) >= 2_000_000


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process")
def test_a_core_that_went_away_is_an_error_and_no_other_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"never loaded")
    device = OrtDevice()
    gone = SimpleNamespace(cores=[100_000])
    monkeypatch.setattr("cars_hw.devices.host.runtimes.pin", lambda _: gone)
    with pytest.raises(DeviceError, match=r"the worker failed for starting .*OSError"):
        device.run([model], MeasurePlan(), 0)
