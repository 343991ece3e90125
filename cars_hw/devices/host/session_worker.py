"""The common part of the worker processes that time a runtime: requests, timing, answers.

It imports only numpy and the standard library, so that a process starts in a third of a second. A model that fails
ends the process, and the device reports the last line of the traceback.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from cars_hw.devices.host.conditions import Watch

OpenSession = Callable[[str, int, int], Callable[[], object]]
"""Load a model (path, threads, seed of the inputs) and return a function that runs it once."""


def serve(arguments: list[str], prepare: Callable[[], tuple[str, OpenSession]]) -> None:
    """Answer each request, a line of JSON, with ``{"ms": ..., "runs": ...}`` until the input ends.

    The first line of the output names the runtime. ``prepare`` loads the runtime and returns its name with version,
    and the function that opens a session.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cores", type=json.loads, required=True)
    options = parser.parse_args(arguments)
    # Before the runtime is loaded: its threads inherit the cores of the process.
    if options.cores is not None:
        os.sched_setaffinity(0, options.cores)
    runtime, open_session = prepare()
    _log({"runtime": runtime})
    for line in sys.stdin:
        _log(measure(json.loads(line), options.threads, open_session))


def measure(request: dict[str, Any], threads: int, open_session: OpenSession) -> dict[str, Any]:
    """Return the low quantile of the runs of a fresh session in milliseconds, their number, and the conditions."""
    run = open_session(request["model"], threads, request["seed"])
    watch = Watch()
    for _ in range(request["warmup_runs"]):
        run()
    gc.collect()
    gc.disable()
    try:
        runs = time_runs(run, request)
    finally:
        gc.enable()
    return {"ms": low_quantile(runs, request["quantile"]) / 1e6, "runs": len(runs), **watch.conditions()}


def low_quantile(runs: Sequence[float], quantile: float) -> float:
    """Return the ``quantile`` (a fraction) of ``runs``: the smallest run that so many do not exceed.

    One of the runs, not a mixture of two: of 20 runs, the quantile 0.1 is the second fastest.
    """
    ranked = sorted(runs)
    rank = math.ceil(quantile * len(ranked) - 1e-9)
    return ranked[max(rank, 1) - 1]


def time_runs(run: Callable[[], object], request: dict[str, Any]) -> list[int]:
    """Return the times of the runs in nanoseconds, within the limits of ``request``; at least five."""
    floor, ceiling = request["min_seconds"] * 1e9, request["max_seconds"] * 1e9
    clock = time.perf_counter_ns
    runs: list[int] = []
    began = clock()
    while True:
        start = clock()
        run()
        stop = clock()
        runs.append(stop - start)
        elapsed = stop - began
        if len(runs) >= request["min_runs"] and elapsed >= floor:
            return runs
        if len(runs) >= 5 and elapsed >= ceiling:
            return runs


def _log(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
