"""Trained fronts of several ways to find networks, at equal cost and over several seeds.

    python benchmarks/fronts.py --data FOLDER --table TABLE --out fronts.json --work DIR [--ways both cells ...]
    python benchmarks/fronts.py --out fronts.json --summary [--beside OTHER.json ...]

A search over cells and size is compared with searches that vary one of them, with other strategies, and with
random networks; ``front_ways.py`` has them. ``--table`` is a latency table over sizes, and FOLDER has the parts
``train``, ``val`` and ``test`` (``tools/make_small_images.py`` makes such a folder, smaller ones too).

**Cost.** A training step on an image is one pass, and its evaluation a third of a pass. The search over cells and
size is the first of every seed, and its passes are the budget of the others. Ways with a SuperNet have the same
epochs, evaluations and share of the final stage; ways without one train as many networks from scratch as the budget
pays for, by successive halving. The summary has each way's passes relative to that search.

**Choice.** Every choice is made on the images of ``val``. ``--front`` networks of each front are then trained with
one recipe, and the test images score them: at each budget the most accurate network so far, and others that are
spread over log latency. At a budget, the network with the highest
accuracy on ``val`` after this training counts. Nothing is measured on a device: latencies are the table's
predictions.

The trainings run one after the other. All ways are run with the first seed before any with the second. Each
finished way is written at once, and the same command again resumes after the last finished epoch. ``--work`` keeps
the run folders and checkpoints.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import front_figures
import torch
from front_figures import FORMAT, OWN
from front_parts import OPTIONS, Candidate, Part, Settings, Task, accuracies_of, fresh, latencies_of
from front_ways import FIRST, WAYS
from timing import machine

from cars_hw.config.data import DataSource
from cars_hw.config.lock import locked
from cars_hw.config.training import EvaluatedClassifier
from cars_hw.config.units import format_latency
from cars_hw.data import load_source
from cars_hw.errors import CarsHwError, InputError
from cars_hw.latency import LatencyTable
from cars_hw.pipeline.run_data import require_fit
from cars_hw.progress import silent
from cars_hw.training.standalone import train_network
from cars_hw.training.threads import torch_threads


def offered(front: Sequence[Candidate], count: int, budgets: Sequence[float] = ()) -> list[Candidate]:
    """Return at most ``count`` networks of ``front``, cheapest first: those that the comparison asks for.

    These are, for each budget in ms, the network within it that is the most accurate so far. If these are fewer
    than ``count``, further networks are spread over log latency, the ends of ``front`` first.
    """
    if count >= len(front):
        return list(front)
    within = [[one for one in front if one.ms <= budget] for budget in sorted(budgets, reverse=True)]
    best = dict.fromkeys(max(some, key=lambda one: (one.accuracy, -one.ms)) for some in within if some)
    found = list(best)[:count]
    least, most = (math.log(front[place].ms) for place in (0, -1))
    aims = [least + (most - least) * step / (count - 1) for step in range(count)] if count > 1 else [most]
    # The ends first, which no other aim may take.
    for aim in sorted(aims, key=lambda aim: -abs(aim - (least + most) / 2))[: count - len(found)]:
        free = [one for one in front if one not in found]
        found.append(min(free, key=lambda one: abs(math.log(one.ms) - aim)))
    return sorted(found, key=lambda one: one.ms)


def trained(part: Part, front: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Train networks of ``front`` by the recipe, and return what the file has of each."""
    found = []
    for one in offered(front, part.task.settings.front, part.task.box.budgets):
        found.append(part.result(f"{one.name} of the front", partial(_scored, part, one)))
        part.log(
            f"{format_latency(one.ms)}, {one.architecture.network.size}: held-out accuracy "
            f"{found[-1]['held_out']:.3f}, test accuracy {found[-1]['test']:.3f}"
        )
    return found


def _scored(part: Part, one: Candidate) -> dict[str, Any]:
    """Train ``one`` by the recipe, and return what the file has of it."""
    task = part.task
    checkpoint = part.checkpoint(one, task.recipe)
    with part.clock("front"), torch_threads(task.settings.threads):
        result = train_network(
            fresh(one, part.seed), task.bundle, task.recipe, seed=part.seed, checkpoint=checkpoint, progress=silent
        )
    checkpoint.remove()
    return {
        **about(one),
        "epoch": result.best_epoch,
        "held_out": result.held_out_accuracy,
        "test": result.accuracy,
    }


def about(one: Candidate) -> dict[str, Any]:
    """Return what the file has of a network before its training."""
    network, genotype = one.architecture.network, one.architecture.genotype
    return {
        "ms": one.ms,
        "channels": network.channels,
        "depths": list(network.stages),
        "multiply_adds": one.multiply_adds,
        "chosen_by": one.held_out,
        "genotype": genotype.to_darts(),
    }


def run_way(name: str, part: Part, budget: float) -> dict[str, Any]:
    """Return the entry of the file of the way ``name``."""
    part.log(WAYS[name].summary)
    searched = WAYS[name].run(part, budget)
    part.log(
        f"front of {len(searched.front)} networks, {latencies_of(searched.front)}, "
        f"{accuracies_of(searched.front)}; {searched.cost.passes:,.0f} passes"
        + (f", {searched.cost.passes / budget - 1:+.1%}" if budget else "")
    )
    networks = trained(part, searched.front)
    return {
        "way": name,
        "seed": part.seed,
        "passes": searched.cost.passes,
        "multiply_adds": searched.cost.multiply_adds,
        "seconds": part.seconds,
        "front": [about(one) for one in searched.front],
        "networks": networks,
    }


# The file.


@dataclass
class Comparison:
    """The file: what is found so far."""

    out: Path
    task: Task
    found: list[dict[str, Any]] = field(default_factory=list)

    def resume(self) -> None:
        """Take over what the file has.

        Raises:
            InputError: it was made with other settings.
        """
        if not self.out.exists():
            return
        content = FORMAT.read(self.out)
        if content["settings"] != asdict(self.task.settings):
            raise InputError(f"{self.out} was made with other settings; give another --out")
        self.found = content["found"]

    def has(self, way: str, seed: int) -> bool:
        """Return whether ``way`` is finished with ``seed``."""
        return any((one["way"], one["seed"]) == (way, seed) for one in self.found)

    def budget(self, seed: int) -> float:
        """Return the passes of the search over cells and size with ``seed``; 0 before it is finished."""
        return next((one["passes"] for one in self.found if (one["way"], one["seed"]) == (OWN, seed)), 0.0)

    def keep(self, entry: dict[str, Any]) -> None:
        """Add ``entry``, and write the file."""
        self.found.append(entry)
        content = {
            "machine": machine(),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": asdict(self.task.settings),
            "ways": {name: WAYS[name].summary for name in dict.fromkeys(one["way"] for one in self.found)},
            "found": self.found,
            "summary": front_figures.summary(self.found, self.task.box),
        }
        FORMAT.write(self.out, content)


def task_of(args: argparse.Namespace) -> Task:
    """Return what the command line describes, with its images.

    Raises:
        InputError: a table of one size, or a folder without a part for choices.
    """
    table = LatencyTable.read(args.table)
    if table.sizes is None:
        raise InputError(f"{args.table} is for one size; profile a range of sizes")
    data = DataSource(args.data).absolute()
    bundle = load_source(data, table.spec.resolution)
    require_fit(bundle, table.spec)
    if bundle.validation is None:
        raise InputError(f"{args.data} has no part val, on which networks are chosen")
    measured = [network.measured.ms for network in table.calibration]
    settings = Settings(
        data=Path(args.data).name,
        images=[len(bundle.train), len(bundle.validation), len(bundle.test)],
        table=table.created,
        least_ms=min(measured),
        limit_ms=args.limit or max(measured),
        **{name: getattr(args, name) for name in OPTIONS},
    )
    return Task(data, table, bundle, settings)


def make(args: argparse.Namespace) -> None:
    """Run what is missing."""
    began = time.monotonic()

    def log(line: str) -> None:
        print(f"[{time.monotonic() - began:.0f}s] {line}", file=sys.stderr, flush=True)

    task = task_of(args)
    torch.set_num_threads(args.threads)
    log("{} images to train on, {} to choose by, {} to score".format(*task.settings.images))
    comparison = Comparison(args.out, task)
    comparison.resume()
    for seed in args.seeds:
        for way in sorted({OWN, *args.ways}, key=[OWN, *args.ways].index):
            if comparison.has(way, seed):
                continue
            name = f"{way.replace(':', '-')}-{seed}"
            part = Part(args.work / name, task, seed, lambda line, name=name: log(f"{name}: {line}"))
            comparison.keep(run_way(way, part, comparison.budget(seed)))


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    ways = "; ".join(f"{name}: {way.summary}" for name, way in WAYS.items())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder with train/, val/ and test/, in each a folder a class")
    parser.add_argument("--table", type=Path, help="a latency table over sizes")
    parser.add_argument("--out", type=Path, required=True, help="the file of the comparison")
    parser.add_argument("--work", type=Path, help="the folder of the searches and trainings")
    parser.add_argument("--summary", action="store_true", help="run nothing; print what the file has, in Markdown")
    parser.add_argument(
        "--beside", type=Path, nargs="+", default=(), help="files of searches with other settings, to print beside"
    )
    parser.add_argument("--ways", nargs="+", default=FIRST, choices=WAYS, metavar="WAY", help=ways)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument(
        "--limit", type=float, help="latency limit in ms [that of the slowest network of the table]"
    )
    parser.add_argument("--population", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12, help="of a search, without its final stage")
    parser.add_argument("--warmup-epochs", type=int, default=4)
    parser.add_argument("--search-batch", type=int, default=32)
    parser.add_argument("--search-rate", type=float, default=0.025)
    parser.add_argument(
        "--classifier", choices=get_args(EvaluatedClassifier), default="shared", help="training.classifier"
    )
    parser.add_argument("--evaluation-images", type=int, default=300, help="of val, in a generation")
    parser.add_argument("--final", type=float, default=0.5, help="share of the final stage in the cost of a search")
    parser.add_argument("--stretches", type=int, default=4, help="of log latency, in which networks compete")
    parser.add_argument("--front", type=int, default=5, help="networks of a front that are trained and scored")
    parser.add_argument("--front-epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="of trainings from scratch")
    parser.add_argument("--rate", type=float, default=0.05, help="of trainings from scratch; falls along a cosine")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    missing = [name for name in ("data", "table", "work") if getattr(args, name) is None]
    if not args.summary and missing:
        parser.error(f"give --{missing[0]}")
    if not 0 < args.final < 1:
        parser.error("--final is between 0 and 1")
    return args


def main() -> None:
    """Run what is missing, and print the tables."""
    args = arguments()
    try:
        if not args.summary:
            with locked(args.out.with_suffix(".lock"), str(args.out)):
                make(args)
        content = FORMAT.read(args.out)
        for other in args.beside:
            content = front_figures.beside(content, FORMAT.read(other), other.stem)
        print(front_figures.report(content))
    except CarsHwError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
