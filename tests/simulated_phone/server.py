"""Runs TFLite models as benchmark_model does, and prints what it prints: python server.py FOLDER SLOWER.

LiteRT is loaded once, and every run is a fork: on a phone the tool starts in a few milliseconds, and Python does
not.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

KNOWN = {
    "graph": "",
    "num_threads": "1",
    "num_runs": "50",
    "min_secs": "1.0",
    "max_secs": "150.0",
    "warmup_runs": "1",
    "warmup_min_secs": "0.5",
    "use_xnnpack": "false",
    "use_gpu": "false",
    "gpu_precision_loss_allowed": "true",
    "use_nnapi": "false",
}
Log = Callable[[str], None]


def main(folder: str, slower: float) -> None:
    """Serve until killed."""
    os.chdir(folder)
    if os.path.exists("runner"):  # noqa: PTH110
        os.unlink("runner")  # noqa: PTH108
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("runner")
    listener.listen(16)
    print("ready", flush=True)
    while True:
        connected, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            answer(connected, slower)
        connected.close()


def answer(connected: socket.socket, slower: float) -> None:
    """Run what is asked and end."""
    with connected:
        asked = json.loads(connected.makefile().readline())
        os.sched_setaffinity(0, asked["cores"])
        os.chdir(asked["folder"])

        def log(line: str) -> None:
            connected.sendall(line.encode() + b"\n")

        try:
            status = run(asked["arguments"], slower, log)
        except BrokenPipeError:
            os._exit(1)
        connected.sendall(b"\0%d" % status)
    os._exit(0)


def run(arguments: list[str], slower: float, log: Log) -> int:
    """Run a model as the flags say, print the tool's lines, and return its exit status."""
    flags = dict(KNOWN)
    unknown = []
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if name in KNOWN:
            flags[name] = value
        else:
            unknown.append(argument)
    if unknown:
        log(f"WARNING: Unconsumed cmdline flags: {' '.join(unknown)}")
    log("INFO: STARTING!")
    log(f"INFO: Graph: [{flags['graph']}]")
    began = micros()
    try:
        loaded = Interpreter(model_path=flags["graph"], num_threads=int(flags["num_threads"]))
        loaded.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        log(f"ERROR: {error}")
        log(f"ERROR: Failed to load model {flags['graph']}")
        return 1
    log(f"INFO: Loaded model {flags['graph']}")
    for delegate in ("gpu", "nnapi"):
        if flags[f"use_{delegate}"] == "true":
            named = delegate.upper()
            log(
                f"INFO: Though {named} delegate is explicitly applied, the model graph will not be executed by "
                "the delegate."
            )
    if flags["use_xnnpack"] == "true":
        log(
            "INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the "
            "delegate."
        )
    rng = np.random.default_rng()
    for detail in loaded.get_input_details():
        loaded.set_tensor(detail["index"], drawn(detail, rng))
    initialised = micros() - began
    log(f"INFO: Initialized session in {initialised / 1e3:g}ms.")
    first = timed(loaded.invoke, slower)
    times = [first, *several(loaded, flags, "warmup_runs", "warmup_min_secs", slower, first)]
    log(f"INFO: {line(times)}")
    warm = float(np.mean(times))
    times = several(loaded, flags, "num_runs", "min_secs", slower, 0)
    log(f"INFO: {line(times)}")
    log(
        f"INFO: Inference timings in us: Init: {initialised}, First inference: {first}, "
        f"Warmup (avg): {warm:.6g}, Inference (avg): {np.mean(times):.6g}"
    )
    return 0


def drawn(detail: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Return random input of a tensor's type."""
    if detail["dtype"] == np.float32:
        return rng.standard_normal(detail["shape"], np.float32)
    limits = np.iinfo(detail["dtype"])
    return rng.integers(limits.min, limits.max, detail["shape"], detail["dtype"], endpoint=True)


def several(  # noqa: PLR0917
    loaded: Interpreter,
    flags: dict[str, str],
    runs: str,
    seconds: str,
    slower: float,
    taken: int,
) -> list[int]:
    """Return the times of so many runs, over so long."""
    least, floor = int(flags[runs]) - (1 if taken else 0), float(flags[seconds]) * 1e6
    ceiling = float(flags["max_secs"]) * 1e6
    began = micros()
    times: list[int] = []
    while (len(times) < least or micros() - began < floor) and micros() - began < ceiling:
        times.append(timed(loaded.invoke, slower))
    return times


def timed(invoke: Callable[[], object], slower: float) -> int:
    """Return the microseconds of a run, stretched as the phone is slower."""
    began = micros()
    invoke()
    took = micros() - began
    if slower > 1:
        until = began + round(took * slower)
        while micros() < until:
            pass
        took = micros() - began
    return took


def micros() -> int:
    """Return the time in whole microseconds, as the tool reads it."""
    return time.perf_counter_ns() // 1000


def line(times: list[int]) -> str:
    """Return the statistics as the tool prints them."""
    if len(set(times)) == 1:
        return f"count={len(times)} curr={times[-1]}" + (" (all same)" if len(times) > 1 else "")
    p5, median, p95 = (sorted(times)[min(int(share * len(times)), len(times) - 1)] for share in (0.05, 0.5, 0.95))
    return (
        f"count={len(times)} first={times[0]} curr={times[-1]} min={min(times)} max={max(times)} "
        f"avg={np.mean(times):.6g} std={np.std(times):.0f} p5={p5} median={median} p95={p95}"
    )


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
