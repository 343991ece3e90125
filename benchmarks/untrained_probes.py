"""The order of networks by linear probes on untrained weights, against the table of trained ones.

    python benchmarks/untrained_probes.py --truth truth.json --data cifar16 --table TABLE --out probes.json
    python benchmarks/untrained_probes.py --truth truth.json --out probes.json --summary

Each network of the table is evaluated with fresh weights of its own, and with its part of a SuperNet that has fresh
weights, as ``cars-hw search --classifier untrained-probe`` does; both with several seeds. The probes are fitted to
the first 300, 500, 1,000 and 2,500 of the held-out images.

A search compares networks of similar latency. The summary therefore also has the mean of Kendall's tau within four
equal parts of the networks, sorted by the latency that ``--table`` predicts (a latency table over sizes).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from calibration import left_out, left_out_losses
from judge import space_of
from timing import machine
from torch import nn
from truth import Task
from truth_table import Table, agreement

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.errors import CarsHwError
from cars_hw.latency import LatencyTable
from cars_hw.latency.validation import kendall_tau
from cars_hw.nn.network import Network
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.space.architecture import Architecture
from cars_hw.training.linear_probe import left_out_scores
from cars_hw.training.threads import torch_threads

FORMAT = ChecksummedFormat("probes on untrained weights", 1, "profile")

IMAGES = (300, 500, 1000, 2500)
"""The probes are fitted to so many images."""

WEIGHTS = ("own", "slices")
"""Whose weights: fresh ones of the network, or those of its part of a fresh SuperNet."""

PARTS = 4
"""Parts of the networks with similar latencies."""


def accuracies(features: torch.Tensor, labels: torch.Tensor, classes: int) -> list[float]:
    """Return the accuracy of a probe on the first of ``features``, for each number of :data:`IMAGES`."""
    found = []
    for count in IMAGES:
        answers = left_out_scores(features[:count], labels[:count], classes).argmax(1)
        found.append(round(float((answers == labels[:count]).double().mean()), 5))
    return found


def evaluate(task: Task, architectures: Mapping[str, Architecture], seeds: int) -> dict[str, dict[str, Any]]:
    """Return for each of ``architectures`` its accuracies by weights and seed, one for each of :data:`IMAGES`."""
    batches = list(task.parts["held_out"])
    labels, classes = torch.cat([labels for _, labels in batches]), task.data.classes
    space = space_of([one.network for one in architectures.values()])
    found: dict[str, dict[str, Any]] = {name: {kind: [] for kind in WEIGHTS} for name in architectures}
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        for seed in range(seeds):
            torch.manual_seed(seed)
            slices = Slices(SuperNet(space.largest).to(memory_format=torch.channels_last).train())
            for number, (name, one) in enumerate(architectures.items(), start=1):
                print(f"\rseed {seed}: {number} of {len(architectures)}", end="", file=sys.stderr, flush=True)
                torch.manual_seed(seed)
                network = Network(one.network, one.genotype).to(memory_format=torch.channels_last).train()
                network.classifier = nn.Identity()  # type: ignore[assignment]
                own = torch.cat([network(images) for images, _ in batches])
                path = slices.path(one)
                part = torch.cat(
                    [path.features(path.common(images, [one.genotype], 0), one.genotype) for images, _ in batches]
                )
                found[name]["own"].append(accuracies(own, labels, classes))
                found[name]["slices"].append(accuracies(part, labels, classes))
    print(file=sys.stderr)
    return found


def within(scores: Sequence[float], losses: Sequence[float], latencies: Sequence[float]) -> float:
    """Return the mean of Kendall's tau within :data:`PARTS` parts of the networks, sorted by latency."""
    parts = np.array_split(np.argsort(latencies, kind="stable"), PARTS)
    taus = [kendall_tau([scores[one] for one in part], [-losses[one] for one in part]) for part in parts]
    return fmean(tau or 0.0 for tau in taus)


def summary(table: Table, content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table in Markdown: means over the seeds."""
    names = [name for name in table.trained() if name in content["found"]]
    losses = table.truth("score_loss", names)
    adds = [table.costs[name]["multiply_adds"] for name in names]
    latencies = [content["latency_ms"][name] for name in names]
    yield f"{len(names)} networks; Kendall's tau to the trained loss, means over the seeds (and each seed)."
    yield "| weights | images | all | within a quarter of latency | calibrated: all | within a quarter |"
    yield "|---|---|---|---|---|---|"
    for kind in WEIGHTS:
        for place, images in enumerate(IMAGES):
            rows = []
            for seed in range(content["seeds"]):
                scores = [content["found"][name][kind][seed][place] for name in names]
                errors = [1 - one for one in scores]
                predicted = [-one for one in left_out_losses(errors, adds, losses)]
                rows.append(
                    [
                        agreement(scores, [-one for one in losses]).tau,
                        within(scores, losses, latencies),
                        left_out(errors, adds, losses).tau,
                        within(predicted, losses, latencies),
                    ]
                )
            cells = [
                f"{fmean(column):.2f} ({', '.join(f'{one:.2f}' for one in column)})"
                for column in zip(*rows, strict=True)
            ]
            yield f"| {kind} | {images:,} | {' | '.join(cells)} |"
    both = [name for name in names if name in table.complete()]
    first, second = (table.values("score_loss", seed, both) for seed in table.seeds[:2])
    ceiling = within([-one for one in first], second, [content["latency_ms"][name] for name in both])
    whole = table.ceiling("score_loss", both)
    yield f"Ceiling, a second training: {whole} over all, {ceiling:.2f} within a quarter."


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, required=True, help="a table that truth.py made")
    parser.add_argument("--data", help="the images of that table, in a folder with train/, val/ and test/")
    parser.add_argument("--table", type=Path, help="a latency table over sizes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="initial weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--summary", action="store_true", help="run nothing; print what the file has")
    args = parser.parse_args()
    if not args.summary and (args.data is None or args.table is None):
        parser.error("give --data and --table")
    return args


def make(args: argparse.Namespace, table: Table) -> None:
    """Evaluate the networks, and write the file."""
    task = Task.load(args.data, table.settings["resolution"], table.settings["images"], "cpu")
    data, target = task.data, LatencyTarget(LatencyTable.read(args.table))
    rows = {row.name: row for row in table.rows if row.name in table.trained()}
    architectures = {
        name: Architecture(row.genotype, row.spec(data.resolution, data.channels, data.classes))
        for name, row in rows.items()
    }
    with torch_threads(args.threads):
        found = evaluate(task, architectures, args.seeds)
    latencies = {name: round(target.predict(one).ms, 6) for name, one in architectures.items()}
    content = {"machine": machine(), "truth": args.truth.stem, "seeds": args.seeds}
    FORMAT.write(args.out, {**content, "latency_ms": latencies, "found": found})


def main() -> None:
    """Evaluate if asked, and print the summary."""
    args = arguments()
    try:
        table = Table.read(args.truth)
        if not args.summary:
            make(args, table)
        print("\n".join(summary(table, FORMAT.read(args.out))))
    except CarsHwError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
