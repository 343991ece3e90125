"""Processes that run together: two that are started here, and those that torchrun has started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def run_two(command: Sequence[str]) -> list[str]:
    """Run ``command`` twice, told where they are as torchrun tells its own; return what each of the two has said.

    Without the launcher, which takes longer to load than most tests to run.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
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


def run_by_two(script: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let two run ``script``, and return what they have saved in ``folder``."""
    run_two([sys.executable, str(script), str(folder)])
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
