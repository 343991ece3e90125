"""Runs a TFLite model with a Python runtime of a board, with the flags and the output of ``benchmark_model``.

The file is copied to the board and needs nothing of cars-hw there: only Python 3.8, NumPy, and one of
ai-edge-litert, tflite-runtime and TensorFlow. Without arguments it prints the runtime.
"""

from __future__ import annotations

import importlib
import sys
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MODULES = {
    "ai_edge_litert.interpreter": "ai-edge-litert",
    "tflite_runtime.interpreter": "tflite-runtime",
    "tensorflow.lite": "tensorflow",
}
"""The modules with an Interpreter, and their packages."""

KNOWN = (
    "graph",
    "num_threads",
    "num_runs",
    "min_secs",
    "max_secs",
    "warmup_runs",
    "warmup_min_secs",
    "use_xnnpack",
)


def runtime() -> tuple[Any, str]:
    """Return the first of the modules that is there, and its name and version."""
    for module, package in MODULES.items():
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            version = "of unknown version"
        return found, f"{package} {version}"
    sys.exit(f"no runtime: none of {', '.join(MODULES.values())} can be imported")


def several(invoke: Callable[[], object], least: int, seconds: float, longest: float) -> list[float]:
    """Return the times of the runs in microseconds: so many and for so long, at most ``longest`` seconds."""
    began = time.perf_counter()
    times: list[float] = []
    while True:
        start = time.perf_counter_ns()
        invoke()
        times.append((time.perf_counter_ns() - start) / 1e3)
        elapsed = time.perf_counter() - began
        if (len(times) >= least and elapsed >= seconds) or (len(times) >= 5 and elapsed >= longest):
            return times


def line(times: Sequence[float]) -> str:
    """Return the statistics as benchmark_model prints them, with fractions of microseconds."""
    ranked = sorted(times)
    mean = sum(times) / len(times)
    spread = (sum((each - mean) ** 2 for each in times) / len(times)) ** 0.5
    p5, median, p95 = (ranked[min(int(share * len(ranked)), len(ranked) - 1)] for share in (0.05, 0.5, 0.95))
    return (
        f"count={len(times)} first={times[0]:.3f} curr={times[-1]:.3f} min={ranked[0]:.3f} max={ranked[-1]:.3f} "
        f"avg={mean:.3f} std={spread:.3f} p5={p5:.3f} median={median:.3f} p95={p95:.3f}"
    )


def drawn(detail: dict[str, Any]) -> Any:  # noqa: ANN401 -- an array
    """Return random input of a tensor's shape and type."""
    import numpy as np

    rng = np.random.default_rng(0)
    if detail["dtype"] == np.float32:
        return rng.standard_normal(detail["shape"]).astype(np.float32)
    limits = np.iinfo(detail["dtype"])
    return rng.integers(limits.min, limits.max, detail["shape"], detail["dtype"], endpoint=True)


def main(arguments: Sequence[str]) -> None:
    """Run the model that the flags name."""
    module, told = runtime()
    if not arguments:
        print(f"RUNTIME: {told}")
        return
    flags = dict(argument[2:].split("=", 1) for argument in arguments)
    unknown = [f"--{name}={value}" for name, value in flags.items() if name not in KNOWN]
    if unknown:
        print(f"WARNING: Unconsumed cmdline flags: {' '.join(unknown)}")
    loaded = module.Interpreter(model_path=flags["graph"], num_threads=int(flags["num_threads"]))
    loaded.allocate_tensors()
    for detail in loaded.get_input_details():
        loaded.set_tensor(detail["index"], drawn(detail))
    longest = float(flags["max_secs"])
    warm = several(loaded.invoke, int(flags["warmup_runs"]), float(flags["warmup_min_secs"]), longest)
    times = several(loaded.invoke, int(flags["num_runs"]), float(flags["min_secs"]), longest)
    print(line(warm))
    print(line(times))
    print(
        f"Inference timings in us: Init: 0, First inference: {warm[0]:.3f}, Warmup (avg): "
        f"{sum(warm) / len(warm):.3f}, Inference (avg): {sum(times) / len(times):.3f}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
