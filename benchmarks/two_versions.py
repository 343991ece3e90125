"""Is this version as fast as another one? Both run in turns, so that the machine slows both down alike.

    git worktree add ../other COMMIT
    python benchmarks/two_versions.py --other ../other [--rounds 10] [--only step,loaded,evaluate]

Two processes have the SuperNet of ``speed.py``, one from each source tree: training steps on a batch that is there
(``step``), steps with the loading of their images (``loaded``), and the evaluation of architectures (``evaluate``).
In each round one runs after the other, and the order changes from round to round. A ratio is the time of this
version divided by that of the other one in the same round; below 1, this version is faster. Nothing else should
run meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles, stdev

PARTS = ("step", "loaded", "evaluate")
THIS, OTHER = "this", "other"
MANY = 4
"""Steps, and architectures, of one turn."""


def serve() -> None:
    """Do the parts whose names come on standard input, and print their seconds."""
    # Those of the source tree in which this process runs.
    sys.path.insert(0, str(Path.cwd() / "benchmarks"))
    import speed

    from cars_hw.space.architecture import Architecture

    bench = speed.Bench("cpu", 1)
    weights = bench.weights
    architectures = [Architecture(genotype, speed.SPEC) for genotype in bench.genotypes[:MANY]]

    def step() -> None:
        for one in architectures:
            weights.step(bench.pixels_last, bench.labels, [one])

    def loaded() -> None:
        batches = weights.batches.epoch(weights.generator)
        for (images, labels), one in zip(itertools.islice(batches, MANY), architectures, strict=True):
            weights.step(images, labels, [one])

    def evaluate() -> None:
        weights.counts(architectures)

    parts: dict[str, Callable[[], None]] = dict(zip(PARTS, (step, loaded, evaluate), strict=True))
    for run in parts.values():
        run()
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        parts[line.strip()]()
        print(time.perf_counter() - began, flush=True)


def start(tree: Path) -> subprocess.Popen[str]:
    """Start the process of the source tree ``tree``."""
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--serve"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    """Return the next line of ``process``."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"Error: the process of {process.args} ended; see above")
    return line.strip()


def seconds(process: subprocess.Popen[str], part: str) -> float:
    """Return the seconds of one turn of ``part``."""
    assert process.stdin is not None
    process.stdin.write(f"{part}\n")
    process.stdin.flush()
    return float(said(process))


def row(part: str, this: Sequence[float], other: Sequence[float]) -> str:
    """Return the line of ``part``, whose times of each round are ``this`` and ``other``, in seconds."""
    ratios = [own / its for own, its in zip(this, other, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    logs = [math.log(one) for one in ratios]
    error = stdev(logs) / math.sqrt(len(logs))
    mean = math.exp(sum(logs) / len(logs))
    return (
        f"{part:10}{median(this):8.3f} s{median(other):10.3f} s   ratio {middle:.3f} ({low:.3f} to {high:.3f}), "
        f"mean {mean:.3f} ± {mean * error:.3f}"
    )


def main() -> None:
    """Compare this version with another one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="the source tree of the other version")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    parts = args.only.split(",")
    if args.other is None or not (args.other / "benchmarks/speed.py").is_file():
        parser.error("give --other, a source tree with benchmarks/speed.py")
    if args.rounds < 2 or not set(parts) <= set(PARTS):
        parser.error(f"--rounds is at least 2, and --only names some of {','.join(PARTS)}")
    trees = {THIS: Path(__file__).resolve().parents[1], OTHER: args.other.resolve()}
    processes = {name: start(tree) for name, tree in trees.items()}
    for process in processes.values():
        said(process)
    print(f"{'':10}{'this':>10}{'other':>12}   the median of {args.rounds} rounds (and quartiles), geometric mean")
    for part in parts:
        times: dict[str, list[float]] = {name: [] for name in processes}
        for number in range(args.rounds):
            for name in sorted(processes, reverse=number % 2 == 0):
                times[name].append(seconds(processes[name], part))
        print(row(part, times[THIS], times[OTHER]), flush=True)
    for process in processes.values():
        process.communicate()


if __name__ == "__main__":
    main()
