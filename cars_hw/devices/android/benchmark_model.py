"""``benchmark_model``, the tool of TensorFlow Lite and LiteRT: its flags and its output.

The tool prints two lines like ``count=50 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256``, one for the
warm-up and one for the measurement, in microseconds. A line of one run, or of equal runs, is
``count=3 curr=2(all same)``. Newer builds add ``p5= median= p95=`` to every line. Numbers that are not whole have
six digits, in any notation of C++. A summary with the same averages follows. A run that ended early has no summary,
so that a figure is valid only if the summary agrees with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from cars_hw.config.measurement import MeasurePlan
from cars_hw.errors import RunnerError

Delegate = Literal["cpu", "gpu", "nnapi"]

COARSE_US: Final = 20
"""The tool counts whole microseconds; below this latency the average is more precise than the fastest run."""

_NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_COUNT: Final = re.compile(
    rf"count=(?P<count>\d+)"
    rf"(?: first=(?P<first>{_NUMBER}))? curr=(?P<curr>{_NUMBER})"
    rf"(?:(?P<same> ?\(all same\))"
    rf"| min=(?P<min>{_NUMBER}) max=(?P<max>{_NUMBER}) avg=(?P<avg>{_NUMBER}) std=(?P<std>{_NUMBER}|-?nan|-?inf))?"
    rf"(?: p5=(?P<p5>{_NUMBER}) median=(?P<median>{_NUMBER}) p95=(?P<p95>{_NUMBER}))?\s*"
)
_SUMMARY: Final = (
    (re.compile(rf"Inference timings in us:.*, Inference \(avg\): (?P<avg>{_NUMBER})\s*"), 1.0),
    (re.compile(rf"Inference \(avg\): +(?P<avg>{_NUMBER}) ms \(\d+ runs\)\s*"), 1e3),
)
_EXECUTED: Final = {"will be completely executed": "all", "will be partially executed": "part"}
_NOT_EXECUTED: Final = "will not be executed by the delegate"


class Timed(NamedTuple):
    """The result of one run of the tool.

    Attributes:
        us: the latency in microseconds: the 5th percentile of the runs if it is reported, else the fastest run;
            below :data:`COARSE_US` the average.
        runs: the number of runs.
        delegated: how much of the model the delegate ran; None if the tool does not report it.
        quantiles: shares of the runs, and the latencies in microseconds that so many do not exceed; the average
            alone if the tool does not report percentiles.
        has_percentiles: whether it reports them.
        mean_us: the average of the runs in microseconds.
    """

    us: float
    runs: int
    delegated: Literal["all", "part", "none"] | None
    quantiles: tuple[tuple[float, float], ...]
    has_percentiles: bool
    mean_us: float


def flags(model: str, plan: MeasurePlan, threads: int, delegate: Delegate) -> list[str]:
    """Return the tool's flags for one session of ``model``."""
    return [
        f"--graph={model}",
        f"--num_threads={threads}",
        f"--num_runs={plan.min_runs}",
        f"--min_secs={plan.min_seconds:g}",
        # The limit is also that of the warm-up, and a warm-up that is cut short measures a clock that still rises.
        f"--max_secs={max(plan.max_seconds, plan.warmup_seconds):g}",
        # Without a warm-up run the first of the two lines is missing.
        f"--warmup_runs={max(plan.warmup_runs, 1)}",
        f"--warmup_min_secs={plan.warmup_seconds:g}",
        f"--use_xnnpack={'true' if delegate == 'cpu' else 'false'}",
        *(("--use_gpu=true", "--gpu_precision_loss_allowed=true") if delegate == "gpu" else ()),
        *(("--use_nnapi=true",) if delegate == "nnapi" else ()),
    ]


def parse(output: str) -> Timed:
    """Return the result in the output of the tool.

    Raises:
        RunnerError: the output has no measurement, or its summary disagrees with it.
    """
    counts: list[re.Match[str]] = []
    average, decimals = None, 0.0
    for line in output.splitlines():
        place = line.find("count=")
        found = _COUNT.fullmatch(line, place) if place >= 0 else None
        if found is not None:
            counts.append(found)
            continue
        for pattern, microseconds in _SUMMARY:
            summary = pattern.search(line)
            # The figure must end the line: half a figure would be a different one.
            if summary is not None and summary.end() == len(line) and len(counts) >= 2:
                average = float(summary["avg"]) * microseconds
                decimals = _step(summary["avg"]) * microseconds
    if len(counts) != 2:
        raise RunnerError("there is no measurement in its output" if len(counts) < 2 else "it measured twice")
    if average is None:
        raise RunnerError("it ended before its summary")
    us, own, quantiles = _figure(counts[1])
    if not abs(average - own) <= max(decimals, 1e-4 * own):
        raise RunnerError(f"its average is {own:g} us in one line and {average:g} us in another")
    return Timed(us, int(counts[1]["count"]), _delegated(output), quantiles, len(quantiles) > 1, own)


def _figure(found: re.Match[str]) -> tuple[float, float, tuple[tuple[float, float], ...]]:
    """Return the low figure, the average and the known quantiles, in microseconds."""
    values = {name: float(text) for name, text in found.groupdict().items() if text and name != "same"}
    if values["count"] < 1:
        raise RunnerError("it did not run the model")
    if "avg" not in values:
        if values["count"] > 1 and found["same"] is None:
            raise RunnerError("its line of times is incomplete")
        values |= dict.fromkeys(("min", "max", "avg"), values["curr"])
    low = values.get("p5", values["min"])
    ordered = [values["min"], low, values.get("median", low), values.get("p95", values["max"]), values["max"]]
    # Percentiles and averages are rounded to six digits, and then may be outside of the range of the runs.
    margin = 1e-5 * abs(values["max"]) + 1e-6
    if any(later < earlier - margin for earlier, later in pairwise(ordered)) or not (
        values["min"] - 10 * margin <= values["avg"] <= values["max"] + 10 * margin
    ):
        raise RunnerError("its figures contradict each other")
    us = low if low >= COARSE_US else values["avg"]
    if not (math.isfinite(us) and us > 0):
        raise RunnerError(f"it reports a latency of {us:g} us")
    if "median" not in values and values["min"] < values["max"]:
        return us, values["avg"], ((0.5, values["avg"]),)
    named = zip((0.0, 0.05, 0.5, 0.95, 1.0), ordered, strict=True)
    return us, values["avg"], tuple(named)


def _step(number: str) -> float:
    """Return the value of one unit in the last digit of ``number``."""
    digits, _, exponent = number.lower().partition("e")
    _, _, decimals = digits.partition(".")
    step: float = 10.0 ** (int(exponent or 0) - len(decimals))
    return step


def _delegated(output: str) -> Literal["all", "part", "none"] | None:
    if _NOT_EXECUTED in output:
        return "none"
    values = {how for words, how in _EXECUTED.items() if words in output}
    return "part" if "part" in values else "all" if values else None


def failure_reason(output: str, status: int) -> str:
    """Return the reason why the tool ended with ``status``."""
    if status in (126, 127) or "not executable" in output:
        return "it does not start; it must be built for the processor of the device (arm64 for almost all phones)"
    if "No space left" in output:
        return "there is no room on the device"
    if status > 128:
        return f"it crashed (signal {status - 128})"
    return f"exit status {status}"


def unknown_flags(output: str) -> Sequence[str]:
    """Return the flags in ``output`` that the tool does not know."""
    lines = re.findall(r"(?:Unconsumed cmdline flags|[Uu]nknown flags?)\b(.*)", output)
    return [flag for line in lines for flag in re.findall(r"--[\w=.]+", line)]
