"""Processes that run together: two that are started here, and those that torchrun has started."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from forked import FORKS


def run_two(command: Sequence[str]) -> list[str]:
    """Run ``command`` twice, told where they are as torchrun tells its own; return what each of the two has said.

    Without the launcher, which takes longer to load than most tests to run.
    """
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **told},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for told in _told_by_launcher()
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, words in zip(processes, said, strict=True):
        assert process.returncode == 0, words[-3000:]
    return said


def _told_by_launcher() -> list[dict[str, str]]:
    """Return the variables by which torchrun tells each of two processes where it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


def _work(main: Callable[[Path], None], folder: Path, told: dict[str, str]) -> None:
    os.environ.update(told)
    with (folder / f"{told['RANK']}.errors").open("w") as kept:
        os.dup2(kept.fileno(), 2)
        main(folder)


def work_of_two(main: Callable[[Path], None], folder: Path) -> None:
    """Let two processes call ``main`` with ``folder``."""
    processes = [FORKS.Process(target=_work, args=(main, folder, told)) for told in _told_by_launcher()]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
    finally:
        for process in processes:
            process.kill()
    for rank, process in enumerate(processes):
        assert process.exitcode == 0, (folder / f"{rank}.errors").read_text()[-3000:]


def run_by_two(main: Callable[[Path], None], folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let two processes call ``main`` with ``folder``, and return what they have saved there."""
    work_of_two(main, folder)
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2))
    return first, second


def workers(launcher: int) -> list[int]:
    """Return the processes that the launcher has started, by number."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            arguments = (process / "cmdline").read_bytes()
        except OSError:
            # It has ended meanwhile.
            continue
        if parent == launcher and b"cars_hw" in arguments:
            found.append(int(process.name))
    return sorted(found)
