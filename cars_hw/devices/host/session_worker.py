"""The common part of the worker processes that time a runtime: requests, timing, answers.

It imports only numpy and the standard library, so that a process starts in a third of a second. A model that fails
ends the process, and the device reports the last line of the traceback.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cars_hw.devices.host.conditions import Watch
from cars_hw.devices.session import low_quantile, time_runs, warm_up

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Session(NamedTuple):
    """A loaded model: ``run`` runs it once and waits for its result, and ``told`` goes into the answer."""

    run: Callable[[], object]
    told: Mapping[str, Any] = NOTHING


OpenSession = Callable[[str, int, int], Session]
"""Load a model (path, threads, seed of the inputs)."""


def serve(arguments: list[str], prepare: Callable[[], tuple[Mapping[str, Any], OpenSession]]) -> None:
    """Answer each request, a line of JSON, with ``{"ms": ..., "runs": ...}`` until the input ends.

    ``prepare`` loads the runtime and returns the first line of the output, which names the runtime, and the
    function that opens a session.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cores", type=json.loads, required=True)
    options = parser.parse_args(arguments)
    # Before the runtime is loaded: its threads inherit the cores of the process.
    if options.cores is not None:
        os.sched_setaffinity(0, options.cores)
    hello, open_session = prepare()
    _log(hello)
    warm = False
    for line in sys.stdin:
        request = json.loads(line)
        if "spend_seconds" in request:
            _log(spend(request, options.threads, open_session))
        else:
            _log(measure(request, options.threads, open_session, warm=warm))
        warm = True


def measure(
    request: dict[str, Any], threads: int, open_session: OpenSession, *, warm: bool = True
) -> dict[str, Any]:
    """Return the low quantile of the runs of a fresh session in milliseconds, their number, and the conditions.

    If the processor is not ``warm``, the model first runs until its latency is steady.
    """
    run, told = open_session(request["model"], threads, request["seed"])
    if not warm:
        warm_up(run, request["warmup_seconds"])
    watch = Watch()
    for _ in range(request["warmup_runs"]):
        run()
    gc.collect()
    gc.disable()
    try:
        runs = time_runs(run, request)
    finally:
        gc.enable()
    return {"ms": low_quantile(runs, request["quantile"]) / 1e6, "runs": len(runs), **watch.conditions(), **told}


def spend(request: dict[str, Any], threads: int, open_session: OpenSession) -> dict[str, Any]:
    """Run the model for ``spend_seconds`` without a pause; return runs, begin, end and conditions.

    Times are those of ``time.monotonic``, in seconds, which all processes of a machine share on Linux.
    """
    run, told = open_session(request["model"], threads, request["seed"])
    warm_up(run, request["warmup_seconds"])
    watch, runs = Watch(), 0
    began = ended = time.monotonic()
    while ended - began < request["spend_seconds"]:
        run()
        runs += 1
        ended = time.monotonic()
    return {"runs": runs, "began": began, "ended": ended, **watch.conditions(), **told}


def _log(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(dict(answer)) + "\n")
    sys.stdout.flush()
