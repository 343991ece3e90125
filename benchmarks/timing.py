"""Measuring that the benchmarks share: what the machine is, repeats that take turns, medians."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Return what a figure must be read with: the processor, the software, the threads, the load of others."""
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "logical_cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def cpu_name() -> str:
    """Return the processor's name as Linux knows it, elsewhere as Python does."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def seconds(run: Callable[[], object], wait: Callable[[], object] = lambda: None) -> float:
    """Return how long one call takes, in seconds of wall time; ``wait`` waits until a GPU has done it."""
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    progress: Callable[[str], None],
    wait: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return every contender's seconds, one value a round.

    A machine that slows down or has a guest for a while does so to neighbours in time alike, so all run once
    before any runs again, and figures of one round may be compared.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            progress(f"round {number + 1} of {rounds}: {name}")
            taken[name].append(seconds(run, wait))
    progress("")
    return taken


def ratios(slow: Sequence[float], fast: Sequence[Sequence[float]]) -> list[float]:
    """Return ``slow`` over each of ``fast``, round by round, all in one list."""
    return [before / after for series in fast for before, after in zip(slow, series, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the extremes."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


class Progress:
    """One line of progress that is kept up to date on a terminal; in a log, a line every ten seconds."""

    def __init__(self) -> None:
        self._written = time.perf_counter()

    def __call__(self, text: str) -> None:
        """Show ``text``; the empty text ends the line."""
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif text and time.perf_counter() - self._written > 10:
            self._written = time.perf_counter()
            print(text, file=sys.stderr, flush=True)
