"""A table of truth: networks over sizes and wirings, each trained twice from scratch.

    python benchmarks/truth.py --data FOLDER --out benchmarks/results/truth-NAME.json [--on cuda] [--minutes 6]

Shared accuracies are worth what they say about standalone trainings. This file keeps the standalone trainings, so
that a change of the SuperNet is compared with them in minutes, without training anything again. The table has two
halves: networks of several sizes (channels, cells) with random wirings, and random wirings of one size. Every
network is trained twice with different seeds. Kendall's tau between the two trainings shows how well one training
predicts the order of another; other orders of these networks are compared with it.

The training images of FOLDER give 17,500 for training and 2,500 for every choice; 5,000 test images score.
``--minutes`` times some steps first and takes as many epochs as fit; ``--epochs`` sets their number.

On a GPU all trainings run in lockstep: each has its whole step (forward, backward, clipping, SGD) recorded as a
CUDA graph, and the graphs are replayed on several streams, because one network of this size leaves most of a large
GPU idle.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# More streams than hardware queues would wait for each other.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")

import numpy as np
import torch
import torch.nn.functional as F
from timing import machine
from torch import Tensor

from cars_hw.config.files import write_json
from cars_hw.data import Augmentation, DataBundle, EvaluationBatches, TrainingBatches, load_data, stratified_split
from cars_hw.latency.validation import kendall_tau
from cars_hw.nn.network import Network
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace

CHANNELS = (4, 6, 8, 12, 16)
CELLS = (5, 8, 11)
ONE_SIZE = (8, 8)
"""Channels and cells of the half whose networks differ in their wiring alone."""

SEEDS = (0, 1)
MOMENTUM, DECAY, CLIP = 0.9, 3e-4, 5.0
STREAMS = 16
TIMED_STEPS = 20


@dataclass(frozen=True)
class Architecture:
    """One row of the table: a size and a wiring."""

    name: str
    channels: int
    cells: int
    genotype: Genotype


@dataclass
class Curve:
    """One training: the mean training loss of every epoch, and accuracies (fractions) and losses of both parts."""

    name: str
    seed: int
    training_loss: list[float] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)


def architectures(count: int, seed: int) -> list[Architecture]:
    """Return ``count`` architectures: the first half spread over the grid of sizes, the rest of one size."""
    rng = np.random.default_rng(seed)
    space = SearchSpace()
    grid = [(channels, cells) for channels in CHANNELS for cells in CELLS]
    half = count // 2
    # Spread over the whole grid, whatever the count.
    sizes = [grid[round(place)] for place in np.linspace(0, len(grid) - 1, half)] + [ONE_SIZE] * (count - half)
    return [
        Architecture(f"{'size' if number < half else 'wiring'}-{number:02d}", *size, space.sample(rng))
        for number, size in enumerate(sizes)
    ]


class Buffers(NamedTuple):
    """What every step of a group reads: a batch of images and labels, and the learning rate."""

    images: Tensor
    labels: Tensor
    rate: Tensor


class Training:
    """One network in training, on the batches that ``buffers`` hold."""

    def __init__(self, architecture: Architecture, seed: int, data: DataBundle, buffers: Buffers) -> None:
        images = buffers.images
        spec = NetworkSpec(architecture.channels, architecture.cells, data.resolution, data.channels, data.classes)
        torch.manual_seed(1000 * seed + int(architecture.name[-2:]))
        self.network = Network(spec, architecture.genotype).to(images.device, memory_format=torch.channels_last)
        self.parameters = list(self.network.parameters())
        self.velocity = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.images, self.labels, self.rate = buffers
        self.loss = torch.zeros((), device=images.device)
        self.curve = Curve(architecture.name, seed)
        self.run: Callable[[], None] = self.step

    def step(self) -> None:
        """One step of SGD with momentum, weight decay and clipping by the norm of the whole gradient."""
        loss = F.cross_entropy(self.network(self.images), self.labels)
        # A branch without a reader has no gradient.
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        chosen = [place for place, gradient in enumerate(found) if gradient is not None]
        gradients = [found[place].detach() for place in chosen]
        with torch.no_grad():
            parameters = [self.parameters[place] for place in chosen]
            velocity = [self.velocity[place] for place in chosen]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            torch._foreach_mul_(gradients, (CLIP / (norm + 1e-6)).clamp(max=1.0))
            torch._foreach_add_(gradients, parameters, alpha=DECAY)
            torch._foreach_mul_(velocity, MOMENTUM)
            torch._foreach_add_(velocity, gradients)
            torch._foreach_sub_(parameters, torch._foreach_mul(velocity, self.rate))
            self.loss.add_(loss.detach())

    def record(self, stream: torch.cuda.Stream, pool: Any) -> None:  # noqa: ANN401 -- torch does not name its type
        """Record :meth:`step` on ``stream``; graphs of one stream share the memory of ``pool``."""
        kept = [tensor.clone() for tensor in self.network.state_dict().values()]
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            self.step()
        torch.cuda.synchronize()
        with torch.no_grad():
            for tensor, value in zip(self.network.state_dict().values(), kept, strict=True):
                tensor.copy_(value)
            torch._foreach_zero_(self.velocity)
            self.loss.zero_()
        self.run = graph.replay

    def evaluate(self, batches: dict[str, EvaluationBatches], epoch: int) -> None:
        """Note accuracy and loss on every part."""
        self.network.eval()
        found: dict[str, float] = {"epoch": epoch}
        with torch.inference_mode():
            for part, all_of_it in batches.items():
                hits = losses = torch.zeros((), device=self.images.device)
                images = 0
                for pixels, labels in all_of_it:
                    logits = self.network(pixels)
                    hits = hits + (logits.argmax(1) == labels).sum()
                    losses = losses + F.cross_entropy(logits, labels, reduction="sum")
                    images += len(labels)
                found |= {f"{part}_accuracy": float(hits) / images, f"{part}_loss": float(losses) / images}
        self.network.train()
        self.curve.evaluations.append({name: round(value, 5) for name, value in found.items()})


class Group:
    """All trainings of one seed: they see the same batches in the same order."""

    def __init__(
        self, seed: int, people: Sequence[Architecture], data: DataBundle, device: str, batch: int
    ) -> None:
        augmentation = Augmentation(crop_padding=max(1, data.resolution[0] // 8), flip=True)
        self.batches = TrainingBatches(
            data.train, batch, data.mean, data.std, augmentation, device=device, drop_last=True
        )
        # On the device, as a host's numbers would have to wait for the GPU at every step.
        self.generator = torch.Generator(device).manual_seed(seed)
        images = torch.zeros(batch, data.channels, *data.resolution, device=device)
        self.buffers = Buffers(
            images.contiguous(memory_format=torch.channels_last),
            torch.zeros(batch, dtype=torch.int64, device=device),
            torch.zeros((), device=device),
        )
        self.trainings = [Training(one, seed, data, self.buffers) for one in people]

    def steps(self) -> Iterator[None]:
        """Fill the buffers with the next batch of an epoch, again and again."""
        for images, labels in self.batches.epoch(self.generator):
            self.buffers.images.copy_(images)
            self.buffers.labels.copy_(labels)
            yield


class Streams:
    """Where trainings run: on a GPU each on one of several streams, elsewhere one after the other."""

    def __init__(self, groups: Sequence[Group], device: str) -> None:
        trainings = [training for group in groups for training in group.trainings]
        self._lanes: list[tuple[torch.cuda.Stream, list[Training]]] = []
        self._trainings = trainings
        if device == "cpu":
            return
        # The largest first, dealt out, so that lanes are about equally long.
        ranked = sorted(trainings, key=lambda one: -sum(p.numel() for p in one.parameters))
        lanes = [ranked[lane::STREAMS] for lane in range(STREAMS)]
        for lane in lanes:
            stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
            for training in lane:
                training.record(stream, pool)
            self._lanes.append((stream, lane))

    def run(self) -> None:
        """One step of every training."""
        if not self._lanes:
            for training in self._trainings:
                training.run()
            return
        main = torch.cuda.current_stream()
        for stream, lane in self._lanes:
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                for training in lane:
                    training.run()
        for stream, _ in self._lanes:
            main.wait_stream(stream)


def split(data: DataBundle, train: int, held_out: int, score: int) -> tuple[DataBundle, dict[str, Any]]:
    """Return the bundle with ``train`` images to train on and ``score`` to test on, and the parts to evaluate."""
    generator = torch.Generator().manual_seed(0)
    total = len(data.train)
    trained, chosen_on = stratified_split(data.train.labels, [train / total, held_out / total], generator)
    (scored,) = stratified_split(data.test.labels, [score / len(data.test)], generator)
    kept = replace(data, train=data.train.select(trained))
    return kept, {"held_out": data.train.select(chosen_on), "score": data.test.select(scored)}


def summary(curves: Sequence[Curve]) -> dict[str, Any]:
    """Return Kendall's tau between the two trainings of each half and of all, by accuracy and by loss."""
    last = {(one.name, one.seed): one.evaluations[-1] for one in curves if one.evaluations}
    names = sorted({name for name, _ in last})
    found: dict[str, Any] = {}
    for part, chosen in (
        ("all", names),
        ("size", [n for n in names if n.startswith("size")]),
        ("wiring", [n for n in names if n.startswith("wiring")]),
    ):
        for figure in ("held_out_accuracy", "held_out_loss", "score_accuracy", "score_loss"):
            pair = [[last[name, seed][figure] for name in chosen] for seed in SEEDS]
            found[f"tau_{part}_{figure}"] = kendall_tau(*pair)
        accuracies = [last[name, seed]["score_accuracy"] for name in chosen for seed in SEEDS]
        found[f"range_{part}"] = [min(accuracies), max(accuracies)]
    return found


class Table:
    """The trainings of all groups in lockstep."""

    def __init__(self, args: argparse.Namespace, log: Callable[[str], None]) -> None:
        data = load_data(args.data, resolution=(args.resolution, args.resolution))
        data, parts = split(data, *args.images)
        sizes = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
        log(f"{len(data.train)} images to train on, {sizes}")
        self.args, self.log = args, log
        self.batches = {
            name: EvaluationBatches(part, 1250, data.mean, data.std, args.on) for name, part in parts.items()
        }
        self.people = architectures(args.count, seed=2026)
        self.groups = [Group(seed, self.people, data, args.on, args.batch) for seed in SEEDS]
        self.trainings = [training for group in self.groups for training in group.trainings]
        self.streams = Streams(self.groups, args.on)
        self.steps = min(len(group.batches) for group in self.groups)
        log(f"{len(self.trainings)} trainings are ready")

    def run_steps(self, rate: Callable[[int], float], count: int) -> None:
        """Run ``count`` steps of all trainings from the beginning of an epoch; ``rate`` is by step."""
        iterators = [group.steps() for group in self.groups]
        for number in range(count):
            for group, iterator in zip(self.groups, iterators, strict=True):
                next(iterator)
                group.buffers.rate.fill_(rate(number))
            self.streams.run()

    def epochs_that_fit(self, seconds: float) -> int:
        """Return how many epochs fit into ``seconds``; the steps that are timed for it change no weight."""
        taken = []
        count = min(TIMED_STEPS, self.steps)
        for _ in range(2):
            start = time.monotonic()
            self.run_steps(lambda _: 0.0, count)
            _wait(self.args.on)
            taken.append(time.monotonic() - start)
        for training in self.trainings:
            training.loss.zero_()
            torch._foreach_zero_(training.velocity)
        each = taken[-1] / count
        # A tenth is for the evaluations.
        epochs = max(2, int(0.9 * (seconds - sum(taken)) / (each * self.steps)))
        self.log(f"{1e3 * each:.1f} ms a step of all, {each * self.steps:.1f} s an epoch: {epochs} epochs")
        return epochs

    def train(self, epochs: int, began: float) -> None:
        """Train all for ``epochs``, and write the table at every quarter."""
        marks = {max(1, round(epochs * share)) for share in (0.25, 0.5, 0.75, 1.0)}
        total = epochs * self.steps
        for epoch in range(epochs):
            self.run_steps(partial(cosine_rate, self.args.rate, total, epoch * self.steps), self.steps)
            for training in self.trainings:
                training.curve.training_loss.append(round(float(training.loss) / self.steps, 5))
                training.loss.zero_()
                if epoch + 1 in marks:
                    training.evaluate(self.batches, epoch + 1)
            mean = np.mean([training.curve.training_loss[-1] for training in self.trainings])
            self.log(f"epoch {epoch + 1}/{epochs}: mean loss {mean:.3f}")
            if epoch + 1 in marks:
                write_json(self.args.out, self.content(epochs, time.monotonic() - began))

    def content(self, epochs: int, seconds: float) -> dict[str, Any]:
        """Return the table as JSON."""
        args = self.args
        curves = [training.curve for training in self.trainings]
        return {
            "machine": machine(),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "settings": {
                "data": Path(args.data).name,
                "resolution": args.resolution,
                "images": list(args.images),
                "epochs": epochs,
                "batch": args.batch,
                "rate": args.rate,
            },
            "architectures": [
                {
                    "name": one.name,
                    "channels": one.channels,
                    "cells": one.cells,
                    "genotype": one.genotype.to_darts(),
                }
                for one in self.people
            ],
            "trainings": [asdict(curve) for curve in curves],
            "summary": summary(curves),
        }


def cosine_rate(highest: float, total: int, before: int, number: int) -> float:
    """Return the learning rate of step ``before + number`` of ``total``: half a cosine from ``highest`` to 0."""
    return highest * (1 + math.cos(math.pi * (before + number) / total)) / 2


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder with train/ and test/, in each a folder a class")
    parser.add_argument("--resolution", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--on", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--count", type=int, default=40, help="architectures")
    parser.add_argument("--epochs", type=int, help="of each training")
    parser.add_argument("--minutes", type=float, help="in place of --epochs: as many epochs as fit")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.05, help="learning rate; it falls to 0 along a cosine")
    parser.add_argument(
        "--images", type=int, nargs=3, default=(17_500, 2_500, 5_000), metavar=("TRAIN", "HELD_OUT", "SCORE")
    )
    args = parser.parse_args()
    if (args.epochs is None) == (args.minutes is None):
        parser.error("give --epochs or --minutes")
    return args


def main() -> None:
    """Make the table."""
    args = arguments()
    began = time.monotonic()

    def log(line: str) -> None:
        print(f"[{time.monotonic() - began:.0f}s] {line}", file=sys.stderr, flush=True)

    table = Table(args, log)
    epochs = args.epochs or table.epochs_that_fit(60 * args.minutes - (time.monotonic() - began))
    table.train(epochs, began)
    for name, value in summary([training.curve for training in table.trainings]).items():
        print(f"{name}: {value}")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
