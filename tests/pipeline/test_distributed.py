"""A search by two processes: the front of one, and also if one of the two is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from long_runs import amount
from processes import work_of_two, workers

from cars_hw.cli.main import main

SEARCH = ("--population", "4", "--epochs", "5", "--warmup-epochs", "1", "--epochs-per-generation", "1")
TRAIN = ("--batch-size", "8", "--architectures", "2", "--on", "cpu", "--seed", "3", "--final", "0.2", "--jobs", "1")
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def given(table: Path, images: Path, out: Path) -> list[str]:
    """Return the arguments of the search."""
    where = ["--data", str(images), "--table", str(table), "--out", str(out), "--no-measure"]
    return ["search", *where, *SEARCH, *TRAIN]


@pytest.fixture(scope="module")
def standalone(tiny_table: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The front that one process finds."""
    out = tmp_path_factory.mktemp("alone") / "run"
    done = CliRunner().invoke(main, given(tiny_table, images, out))
    assert done.exit_code == 0, done.output
    return (out / "front.json").read_text()


def command(arguments: list[str], folder: Path) -> None:
    """Run cars-hw in one of two processes; keep in ``folder`` what it prints."""
    with (folder / f"{os.environ['RANK']}.printed").open("w") as printed:
        os.dup2(printed.fileno(), 1)
        main(arguments, standalone_mode=False)


def test_two_processes_find_the_front_of_one(
    standalone: str, tiny_table: Path, images: Path, tmp_path: Path
) -> None:
    # Forked, without the launcher: four programs that load torch take longer than the searches.
    out = tmp_path / "run"
    work_of_two(partial(command, given(tiny_table, images, out)), tmp_path)
    assert (out / "front.json").read_text() == standalone
    printed = [(tmp_path / f"{rank}.printed").read_text() for rank in range(2)]
    assert "".join(printed).count("Pareto front") == 1


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_the_launcher_of_torch_starts_the_two(
    standalone: str, tiny_table: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [*LAUNCHER, "-m", "cars_hw", *given(tiny_table, images, out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (out / "front.json").read_text() == standalone
    assert done.stdout.count("Pareto front") == 1


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_when_one_of_two_is_killed_both_go_on_from_the_checkpoint(
    standalone: str, tiny_table: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*LAUNCHER, "--max-restarts", "1", "-m", "cars_hw", *given(tiny_table, images, out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    history = out / "history.jsonl"
    deadline = time.monotonic() + 200
    # In the middle: after the first generation and before the last.
    while not (history.exists() and len(history.read_text().splitlines()) > 1):
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed = workers(process.pid)
    os.kill(killed[-1], signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    assert (out / "front.json").read_text() == standalone
