"""What benchmark_model prints becomes the right number or an error, and never another number."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_runs import amount

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android.benchmark_model import failure_reason, flags, parse, unknown_flags
from cars_hw.errors import RunnerError

OLD = """\
STARTING!
Log parameter values verbosely: [0]
Graph: [/data/local/tmp/net.tflite]
Loaded model /data/local/tmp/net.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
The input model file size (MB): 3.2
Initialized session in 16.772ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=67 first=8781 curr=7433 min=7301 max=8781 avg=7514.93 std=215

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=133 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256

Inference timings in us: Init: 16772, First inference: 8781, Warmup (avg): 7514.93, Inference (avg): 7454.97
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory.
Memory footprint delta from the start of the tool (MB): init=5.9 overall=9.8
"""
NEW = OLD.replace("std=215", "std=215 p5=7310 median=7500 p95=7900").replace(
    "std=256", "std=256 p5=6400 median=7450 p95=7770"
)
LOGGED = "".join(f"I tflite  : {line}\n" if line else "\n" for line in NEW.splitlines())
INFO = "".join(f"INFO: {line}\n" if line else "\n" for line in OLD.splitlines())
LITERT = re.sub(r"Inference timings in us.*", "Inference (avg):  7.45 ms (133 runs)", NEW)
SCIENTIFIC = OLD.replace(
    "count=133 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256",
    "count=5 first=2950000 curr=2950500 min=2.9e+06 max=2.99e+06 avg=2.95034e+06 std=9000",
).replace("Inference (avg): 7454.97", "Inference (avg): 2.95034e+06")
ONE = OLD.replace(
    "count=133 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256", "count=1 curr=3512391"
).replace("Inference (avg): 7454.97", "Inference (avg): 3.51239e+06")
SAME = OLD.replace(
    "count=133 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256", "count=80 curr=311 (all same)"
).replace("Inference (avg): 7454.97", "Inference (avg): 311")
SMALL = OLD.replace(
    "count=133 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256",
    "count=9000 first=4 curr=3 min=2 max=90 avg=3.25172 std=1",
).replace("Inference (avg): 7454.97", "Inference (avg): 3.25172")

COUNT = "count=133 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256"


def newer(line: str, average: str) -> str:
    """Return the output with another line of the measurement and another average in the summary."""
    return OLD.replace(COUNT, line).replace("Inference (avg): 7454.97", f"Inference (avg): {average}")


PUBLISHED = {
    "newer, equal runs": (newer("count=3 curr=2(all same) p5=2 median=2 p95=2", "2"), 2.0, 3),
    "newer, one run": (
        newer("count=1 curr=3512391 p5=3512391 median=3512391 p95=3512391", "3.51239e+06"),
        3512391.0,
        1,
    ),
    "newer, one run, rounded": (
        newer("count=1 curr=3512391 p5=3.51239e+06 median=3.51239e+06 p95=3.51239e+06", "3.51239e+06"),
        3.51239e6,
        1,
    ),
    # Whole numbers have all digits, percentiles six: the 5th percentile is below the fastest run.
    "newer, rounded": (
        newer(
            "count=5 first=2950344 curr=2950500 min=2950344 max=2990011 avg=2.95034e+06 std=9000 p5=2.95034e+06 "
            "median=2.9504e+06 p95=2.99001e+06",
            "2.95034e+06",
        ),
        2.95034e6,
        5,
    ),
    "other notations": (
        newer("count=2 first=+30 curr=5.E1 min=3E+01 max=.5e2 avg=4e+01 std=inf", "40.0"),
        30.0,
        2,
    ),
    "old": (OLD, 6373.0, 133),
    "new": (NEW, 6400.0, 133),
    "logged": (LOGGED, 6400.0, 133),
    "info": (INFO, 6373.0, 133),
    "litert": (LITERT, 6400.0, 133),
    "scientific": (SCIENTIFIC, 2.9e6, 5),
    "one run": (ONE, 3512391.0, 1),
    "all the same": (SAME, 311.0, 80),
    "too small for its clock": (SMALL, 3.25172, 9000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_format_is_read(name: str) -> None:
    output, us, runs = PUBLISHED[name]
    timed = parse(output)
    assert (timed.us, timed.runs, timed.delegated) == (us, runs, None)
    # A terminal's line ends are no different.
    assert parse(output.replace("\n", "\r\n")) == timed


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", "no measurement"),
        ("CANNOT LINK EXECUTABLE", "no measurement"),
        (OLD[: OLD.index("count=133")], "no measurement"),
        (OLD[: OLD.index("Inference timings")], "before its summary"),
        (OLD.replace("Inference (avg): 7454.97", "Inference (avg): 745"), "7454.97 us in one line and 745 us"),
        (OLD + "count=3 first=1 curr=2 min=1 max=2 avg=1.5 std=0\n", "measured twice"),
        (OLD.replace("min=6373", "min=8373"), "contradict"),
        (NEW.replace("p5=6400", "p5=7460"), "contradict"),
        (OLD.replace("avg=7454.97", "avg=nan"), "no measurement"),
        (ONE.replace("count=1 ", "count=0 "), "did not run the model"),
        (ONE.replace("curr=3512391", "curr=0").replace("3.51239e+06", "0"), "latency of 0 us"),
        (SAME.replace(" (all same)", ""), "incomplete"),
        (newer("count=3 curr=2 p5=2 median=2 p95=2", "2"), "incomplete"),
        (newer("count=3 curr=200(all same) p5=150 median=200 p95=200", "200"), "contradict"),
        (newer("count=3 curr=2(all same) p5=2 median=2", "2"), "no measurement"),
    ],
)
def test_what_is_no_measurement_is_an_error(output: str, said: str) -> None:
    with pytest.raises(RunnerError, match=re.escape(said)):
        parse(output)


def test_what_a_delegate_took_is_told() -> None:
    for words, delegated in (
        (
            "Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.",
            "all",
        ),
        (
            "Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 3 "
            "delegate kernels.",
            "part",
        ),
        (
            "Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.",
            "none",
        ),
    ):
        assert parse(f"INFO: {words}\n{NEW}").delegated == delegated


def test_the_flags_are_the_plan_and_the_delegate() -> None:
    plan = MeasurePlan(min_runs=7, min_seconds=0.25, max_seconds=9, warmup_runs=0)
    said = flags("m.tflite", plan, 2, "cpu")
    assert {"--graph=m.tflite", "--num_threads=2", "--num_runs=7", "--min_secs=0.25", "--max_secs=9"} <= set(said)
    assert {"--warmup_runs=1", "--use_xnnpack=true"} <= set(said)
    # The tool's limit is also that of its warm-up, which must not be cut short.
    assert "--max_secs=12" in flags("m", replace(plan, warmup_seconds=12.0), 1, "cpu")
    assert "--use_gpu=true" in flags("m", plan, 1, "gpu")
    assert "--use_xnnpack=false" in flags("m", plan, 1, "gpu")
    assert "--use_nnapi=true" in flags("m", plan, 1, "nnapi")


def test_unknown_flags_and_exit_statuses_are_told_in_words() -> None:
    assert unknown_flags("WARNING: Unconsumed cmdline flags: --use_nnapi=true") == ["--use_nnapi=true"]
    several = "WARNING: Unconsumed cmdline flags: --warmup_min_secs=0.1 --x=1\nERROR: Unknown flag: --y\n"
    assert unknown_flags(several) == ["--warmup_min_secs=0.1", "--x=1", "--y"]
    assert unknown_flags(NEW) == []
    assert "signal 11" in failure_reason("", 139)
    assert "arm64" in failure_reason("sh: benchmark_model: not executable: 64-bit ELF file", 1)
    assert "no room" in failure_reason("write: No space left on device", 1)


GARBAGE = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=("Cs",)), max_size=40)


@st.composite
def outputs(draw: st.DrawFn) -> tuple[str, float]:
    """Return what a run prints, with noise between its lines and perhaps cut off, and its low figure."""
    times = draw(st.lists(st.integers(1, 10**7), min_size=1, max_size=60))
    newer = draw(st.booleans())

    def line(values: list[int]) -> str:
        if len(set(values)) == 1:
            same = f"{draw(st.sampled_from(['', ' ']))}(all same)" if len(values) > 1 else ""
            return f"count={len(values)} curr={values[0]}{same}" + (" p5={0} median={0} p95={0}" * newer).format(
                values[0]
            )
        ranked = sorted(values)
        p5, median, p95 = (ranked[min(int(share * len(ranked)), len(ranked) - 1)] for share in (0.05, 0.5, 0.95))
        tail = f" p5={p5:g} median={median:g} p95={p95:g}" if newer else ""
        mean = sum(values) / len(values)
        return (
            f"count={len(values)} first={values[0]} curr={values[-1]} min={ranked[0]} max={ranked[-1]} "
            f"avg={mean:.6g} std={ranked[-1] - ranked[0]}{tail}"
        )

    average = sum(times) / len(times)
    low = sorted(times)[min(int(0.05 * len(times)), len(times) - 1)] if newer else min(times)
    low = float(f"{low:g}") if newer and len(set(times)) > 1 else low
    expected = low if low >= 20 or len(set(times)) == 1 else float(f"{average:.6g}")
    prefix = draw(st.sampled_from(["", "INFO: ", "I tflite  : "]))
    warm = draw(st.lists(st.integers(1, 10**7), min_size=1, max_size=5))
    lines = [
        "STARTING!",
        line(warm),
        line(times),
        f"Inference timings in us: Init: 3, First inference: {times[0]}, Warmup (avg): 1, Inference (avg): "
        f"{average:.6g}",
    ]
    said = []
    for each in lines:
        said += [*draw(st.lists(GARBAGE.filter(lambda text: "count=" not in text), max_size=2)), prefix + each]
    output = "\n".join(said) + "\n"
    if draw(st.booleans()):
        output = output[: draw(st.integers(0, len(output)))]
    return output, expected


@settings(max_examples=amount(200, 10_000), deadline=None)
@given(outputs())
def test_whatever_is_printed_gives_the_right_number_or_an_error(case: tuple[str, float]) -> None:
    output, expected = case
    try:
        timed = parse(output)
    except RunnerError:
        return
    assert timed.us == pytest.approx(expected, rel=1e-9)


@settings(max_examples=amount(150, 10_000), deadline=None)
@given(st.text(max_size=300))
def test_garbage_is_an_error(text: str) -> None:
    with pytest.raises(RunnerError):
        parse(text)
