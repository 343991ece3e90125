"""The process that ONNX Runtime is timed in; started by :mod:`cars_hw.devices.ort`, a fresh one a block.

Only onnxruntime, numpy and the standard library are imported, so that it is up in a third of a second. A model
that cannot be run ends the process: its traceback's last line is what the other side reports.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from typing import Any

from cars_hw.devices.conditions import Watch
from cars_hw.devices.rounds import low_quantile


def main(arguments: list[str]) -> None:
    """Say hello, then answer a line of JSON ``{"ms": ..., "runs": ...}`` for each request, until input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cores", type=json.loads, required=True)
    options = parser.parse_args(arguments)
    # Before the runtime is loaded: its threads inherit the cores of the process.
    if options.cores is not None:
        os.sched_setaffinity(0, options.cores)
    import onnxruntime

    _say({"runtime": f"onnxruntime {onnxruntime.__version__}"})
    for line in sys.stdin:
        _say(measure(json.loads(line), options.threads))


def measure(request: dict[str, Any], threads: int) -> dict[str, Any]:
    """Return the low quantile (milliseconds) of a model's runs in a fresh session, how many, and the conditions."""
    import numpy as np

    session = _open(request["model"], threads)
    rng = np.random.default_rng(request["seed"])
    feeds = {
        node.name: rng.standard_normal([size if isinstance(size, int) else 1 for size in node.shape], np.float32)
        for node in session.get_inputs()
    }
    watch = Watch()
    for _ in range(request["warmup_runs"]):
        session.run(None, feeds)
    gc.collect()
    gc.disable()
    try:
        runs = _time(lambda: session.run(None, feeds), request)
    finally:
        gc.enable()
    return {"ms": low_quantile(runs, request["quantile"]) / 1e6, "runs": len(runs), **watch.conditions()}


def _open(model: str, threads: int) -> Any:  # noqa: ANN401 -- onnxruntime has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # With one thread there is nobody to wait for; with several, spinning is what a deployed session does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _time(run: Any, request: dict[str, Any]) -> list[int]:  # noqa: ANN401 -- a callable whose result is dropped
    """Return the runs' times in nanoseconds: enough of them, over enough time, but not for ever."""
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


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
