"""How much sooner two processes are done with a generation than one, each on one thread.

::

    .venv/bin/python benchmarks/ranks.py [--population 16] [--architectures 2] [--json PATH]

A generation of the SuperNet of the paper (16 channels, 8 cells) on embedded images: a population and as many
offspring judged, and a number of steps. Both ways take turns, and find the same accuracies.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cars_hw.config.files import write_json

RANKS_ENV = "CARS_HW_BENCHMARK_OUT"


def generation(arguments: argparse.Namespace) -> None:
    """Run one generation, in as many processes as there are, and let the first write down how long it took."""
    import numpy as np
    import torch

    from cars_hw.config.training import SharedTraining
    from cars_hw.data import load_data
    from cars_hw.nn.supernet import SuperNet
    from cars_hw.space.architecture import Architecture
    from cars_hw.space.network_spec import NetworkSpec
    from cars_hw.space.search_space import SearchSpace
    from cars_hw.training.memory import keep_freed_memory
    from cars_hw.training.process_group import joined
    from cars_hw.training.shared_weights import SuperNetWeights

    torch.set_num_threads(1)
    keep_freed_memory()
    settings = SharedTraining(
        batch_size=64, architectures=arguments.architectures, evaluation_images=500, evaluation_batch=250, threads=1
    )
    with joined("cpu") as process_group:
        torch.manual_seed(0)
        supernet = SuperNet(NetworkSpec(16, 8, (28, 28), 1))
        weights = SuperNetWeights(
            supernet, load_data("fashion-mini"), settings, epochs=10, seed=0, process_group=process_group
        )
        space, rng = SearchSpace(), np.random.default_rng(0)
        people = [Architecture(space.sample(rng), supernet.spec) for _ in range(2 * arguments.population)]
        batches = weights.batches.epoch(weights.generator)
        first = next(batches)
        weights.step(*first, people[: arguments.architectures])
        took = {}
        began = time.perf_counter()
        accuracies = weights.accuracies(people)
        took["judging"] = time.perf_counter() - began
        began = time.perf_counter()
        for _, (images, labels) in zip(range(arguments.steps), batches, strict=False):
            chosen = rng.choice(len(people), arguments.architectures, replace=False)
            weights.step(images, labels, [people[int(index)] for index in chosen])
        took["training"] = time.perf_counter() - began
        if process_group.leads:
            write_json(Path(os.environ[RANKS_ENV]), {**took, "accuracies": accuracies})


def run(processes: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of a generation in so many processes."""
    own = [str(Path(__file__).resolve()), "--part", "--population", str(arguments.population)]
    own += ["--architectures", str(arguments.architectures), "--steps", str(arguments.steps)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "took.json"
        environment = {**os.environ, RANKS_ENV: str(out), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *(launcher if processes > 1 else []), *own]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        took: dict[str, float] = json.loads(out.read_text())
    return took


def main() -> None:
    """Take turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--architectures", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.part:
        generation(arguments)
        return
    turns = [(run(1, arguments), run(2, arguments)) for _ in range(arguments.rounds)]
    record = {}
    for part in ("judging", "training"):
        ratios = [one[part] / two[part] for one, two in turns]
        standalone, together = (statistics.median(turn[place][part] for turn in turns) for place in (0, 1))
        record[part] = {"alone_s": standalone, "together_s": together, "ratios": ratios}
        print(
            f"{part}: one process {standalone:.2f} s, two processes {together:.2f} s, "
            f"{statistics.median(ratios):.2f} times as fast"
        )
    whole = [sum(one[p] for p in record) / sum(two[p] for p in record) for one, two in turns]
    print(f"a generation: {statistics.median(whole):.2f} times as fast ({min(whole):.2f} to {max(whole):.2f})")
    assert all(one["accuracies"] == two["accuracies"] for one, two in turns)
    if arguments.json is not None:
        write_json(arguments.json, {**record, "generation": whole})


if __name__ == "__main__":
    main()
