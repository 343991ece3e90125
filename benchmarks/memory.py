"""The memory for activations that a search predicted, beside what the runtimes take for the exported models.

::

    .venv/bin/python benchmarks/memory.py RUN

The search of RUN must have had the costs ``peak-memory`` and ``peak-memory-ort``; its networks must have been
trained and exported in both formats.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cars_hw.export import ort_memory, tflite_memory
from cars_hw.pipeline.run_folder import RunFolder

RUNTIMES = {
    "peak-memory": (".tflite", "LiteRT", tflite_memory.runtime_activation_bytes),
    "peak-memory-ort": (".onnx", "ONNX Runtime", ort_memory.runtime_activation_bytes),
}


def rows(run: RunFolder) -> list[tuple[str, str, float, float]]:
    """Return network, runtime, predicted and taken megabytes of each exported model."""
    found = []
    for network in run.front():
        for cost, (suffix, runtime, measure) in RUNTIMES.items():
            model = run.path / "models" / f"{network.name}{suffix}"
            if model.is_file() and cost in network.costs:
                found.append((network.name, runtime, network.costs[cost], measure(model) / 1e6))
    return found


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    run = RunFolder.open(parser.parse_args().run)
    print(f"{'network':10} {'runtime':14} {'predicted':>10} {'taken':>10} {'off by':>8}")
    for name, runtime, predicted, taken in rows(run):
        print(f"{name:10} {runtime:14} {predicted:7.4f} MB {taken:7.4f} MB {predicted / taken - 1:+8.1%}")


if __name__ == "__main__":
    main()
