"""Work in several processes: nobody works on for a caller who is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cars_hw.executors import workers
from cars_hw.progress import Log, Progress

SLEEPERS = """
import sys
from pathlib import Path
from test_workers import sleep
from cars_hw.executors.workers import side_by_side
if __name__ == "__main__":
    side_by_side(sleep, [Path(sys.argv[1]), Path(sys.argv[2])], 2, print, print)
"""


def test_processes_are_one_for_each_gpu_which_each_of_them_sees_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [workers.default_jobs("cuda", tasks) for tasks in (2, 8)] == [2, 3]
    assert workers.default_jobs("cuda:1", 8) == 1
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert workers._cards(3) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5,6")
    assert workers._cards(3) == ["4", "GPU-5", "6"]
    assert workers._cards(1) == []
    seen: list[str | None] = []

    class Started:
        def __init__(self, threads: int, card: str | None) -> None:
            seen.append(card)

        def end(self) -> None:
            pass

    monkeypatch.setattr(workers, "Worker", Started)
    with workers._workers(4, 1, ["4", "GPU-5", "6"]), workers._workers(1, 1, []):
        assert seen == ["4", "GPU-5", "6", "4", None]


def test_a_process_is_told_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    environments: list[dict[str, str]] = []
    monkeypatch.setattr(workers.subprocess, "Popen", lambda *_given, env, **_named: environments.append(env))
    for card in ("7", None):
        workers.Worker(1, card).connection.close()
    assert environments[0]["CUDA_VISIBLE_DEVICES"] == "7"
    assert environments[1].get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


def sleep(path: Path, progress: Progress, log: Log) -> None:
    """Say who works, and work for longer than any test."""
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    time.sleep(600)


def test_workers_end_with_who_began_them(tmp_path: Path) -> None:
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    paths = [tmp_path / "one", tmp_path / "two"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    caller = subprocess.Popen([sys.executable, str(script), *map(str, paths)], env=environment)
    deadline = time.monotonic() + 200
    while not all(path.exists() for path in paths):
        assert caller.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = _children(caller.pid)
    caller.kill()
    caller.wait()
    working = {int(path.read_text()) for path in paths}
    assert not children or working <= children
    while any(_runs(pid) for pid in working | children):
        assert time.monotonic() < deadline, "they work on"
        time.sleep(0.05)


def _children(pid: int) -> set[int]:
    """Return who was begun by ``pid``, where the system tells."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rsplit(")", 1)[1].split()[1]
        except OSError:
            continue
        if int(parent) == pid:
            found.add(int(path.parent.name))
    return found


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Who has ended is there until somebody asks how it did.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")
