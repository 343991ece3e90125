"""A table of truth: networks over sizes and wirings, each trained twice from scratch.

    python benchmarks/truth.py --data FOLDER --out benchmarks/results/truth-NAME.json --epochs 4 [--workers 1]
    python benchmarks/truth.py --data FOLDER --out ... --on cuda --minutes 6
    python benchmarks/truth.py --out ... --summary [--against TABLE]

Shared accuracies are worth what they say about standalone trainings. This file keeps the standalone trainings, so
that a change of the SuperNet is compared with them in minutes, without training anything again; ``judge.py`` does
that. The table has two halves: networks of several sizes (channels, cells) with random wirings, and random wirings
of one size. Every network is trained twice with different seeds. Kendall's tau between the two trainings shows how
well one training predicts the order of another; other orders of these networks are compared with it.

A part ``val`` of FOLDER is for every choice, and its test images score; ``tools/make_small_images.py`` makes such a
folder. Without that part, ``--images`` are drawn from the training and test images.

On a CPU the trainings run one after the other, or in ``--workers`` processes of one thread each. The
half of one size comes first. Each finished training is written to the table at once, and the same command again
continues with those that are missing.

On a GPU all trainings run in lockstep: each has its whole step (forward, backward, clipping, SGD) recorded as a
CUDA graph, and the graphs are replayed on several streams, because one network of this size leaves most of a large
GPU idle. ``--minutes`` times some steps first and takes as many epochs as fit.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# More streams than hardware queues would wait for each other.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")

import torch
import torch.nn.functional as F
import truth_table
from timing import machine
from torch import Tensor
from truth_table import FIGURES, FORMAT, Curve, Row, Table, agreement, halves

from cars_hw.config.lock import locked
from cars_hw.data import Augmentation, DataBundle, EvaluationBatches, TrainingBatches, load_data, stratified_split
from cars_hw.errors import CarsHwError, InputError
from cars_hw.nn.network import Network

SEEDS = (0, 1)
MOMENTUM, DECAY, CLIP = 0.9, 3e-4, 5.0
STREAMS = 16
TIMED_STEPS = 20


class Buffers(NamedTuple):
    """What every step of a group reads: a batch of images and labels, and the learning rate."""

    images: Tensor
    labels: Tensor
    rate: Tensor


class Training:
    """One network in training, on the batches that ``buffers`` hold."""

    def __init__(self, row: Row, seed: int, data: DataBundle, buffers: Buffers) -> None:
        images = buffers.images
        spec = row.spec(data.resolution, data.channels, data.classes)
        torch.manual_seed(1000 * seed + int(row.name[-2:]))
        self.network = Network(spec, row.genotype).to(images.device, memory_format=torch.channels_last)
        self.parameters = list(self.network.parameters())
        self.velocity = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.images, self.labels, self.rate = buffers
        self.loss = torch.zeros((), device=images.device)
        self.curve = Curve(row.name, seed)
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

    def end_epoch(self, steps: int, batches: Mapping[str, EvaluationBatches]) -> None:
        """Note the mean training loss of an epoch of ``steps``, and accuracy and loss on all of ``batches``."""
        self.curve.training_loss.append(round(float(self.loss) / steps, 5))
        self.loss.zero_()
        if not batches:
            return
        self.network.eval()
        found: dict[str, float] = {"epoch": len(self.curve.training_loss)}
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
    """Trainings with one seed: they see the same batches in the same order."""

    def __init__(self, seed: int, rows: Sequence[Row], data: DataBundle, device: str, batch: int) -> None:
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
        self.trainings = [Training(row, seed, data, self.buffers) for row in rows]

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


@dataclass(frozen=True)
class Task:
    """The images: the bundle to train on, and the parts to evaluate on."""

    data: DataBundle
    parts: Mapping[str, EvaluationBatches]

    @classmethod
    def load(cls, folder: str, resolution: int, images: Sequence[int], device: str) -> Task:
        """Return the parts of ``folder``, or ``images`` of them where no part is for choices."""
        data = load_data(folder, resolution=(resolution, resolution))
        if data.validation is None:
            data = _divided(data, *images)
        assert data.validation is not None
        parts = {"held_out": data.validation, "score": data.test}
        return cls(
            data,
            {name: EvaluationBatches(part, 500, data.mean, data.std, device) for name, part in parts.items()},
        )

    @property
    def images(self) -> list[int]:
        """The number of images to train on, to choose by and to score."""
        return [len(self.data.train), *(len(part.labels) for part in self.parts.values())]


def _divided(data: DataBundle, train: int, held_out: int, score: int) -> DataBundle:
    """Return ``data`` with so many images in its parts, every class in its share."""
    generator = torch.Generator().manual_seed(0)
    total = len(data.train)
    trained, chosen_on = stratified_split(data.train.labels, [train / total, held_out / total], generator)
    (scored,) = stratified_split(data.test.labels, [score / len(data.test)], generator)
    return replace(
        data,
        train=data.train.select(trained),
        validation=data.train.select(chosen_on),
        test=data.test.select(scored),
    )


@dataclass(frozen=True)
class Settings:
    """What all trainings of a table have in common."""

    data: str
    resolution: int
    images: list[int]
    epochs: int
    batch: int
    rate: float


def cosine_rate(highest: float, total: int, before: int, number: int) -> float:
    """Return the learning rate of step ``before + number`` of ``total``: half a cosine from ``highest`` to 0."""
    return highest * (1 + math.cos(math.pi * (before + number) / total)) / 2


def run_steps(groups: Sequence[Group], streams: Streams, rate: Callable[[int], float], count: int) -> None:
    """Run ``count`` steps of all trainings from the beginning of an epoch; ``rate`` is by step."""
    iterators = [group.steps() for group in groups]
    for number in range(count):
        for group, iterator in zip(groups, iterators, strict=True):
            next(iterator)
            group.buffers.rate.fill_(rate(number))
        streams.run()


def train_one(row: Row, seed: int, task: Task, settings: Settings) -> Curve:
    """Return the curve of one training on the CPU: held-out images after every epoch, all parts after the last."""
    began = time.monotonic()
    group = Group(seed, [row], task.data, "cpu", settings.batch)
    streams, (training,) = Streams([group], "cpu"), group.trainings
    steps = len(group.batches)
    for epoch in range(settings.epochs):
        rate = partial(cosine_rate, settings.rate, settings.epochs * steps, epoch * steps)
        run_steps([group], streams, rate, steps)
        last = epoch + 1 == settings.epochs
        training.end_epoch(steps, task.parts if last else {"held_out": task.parts["held_out"]})
    training.curve.seconds = round(time.monotonic() - began, 1)
    return training.curve


_tasks: dict[tuple[Any, ...], Task] = {}
"""The images that a worker process has read."""


def work(row: Row, seed: int, where: tuple[Any, ...], settings: Settings) -> Curve:
    """Run :func:`train_one` in a worker process, which reads the images once."""
    torch.set_num_threads(1)
    if where not in _tasks:
        _tasks[where] = Task.load(*where)
    return train_one(row, seed, _tasks[where], settings)


class Making:
    """A table that is being made: what it has so far, in memory and in its file."""

    def __init__(self, out: Path, rows: Sequence[Row], task: Task, settings: Settings) -> None:
        self.out, self.rows, self.settings = out, rows, settings
        data = task.data
        about = {row.name: truth_table.costs(row, data.resolution, data.channels, data.classes) for row in rows}
        self.architectures = [
            {
                "name": row.name,
                "channels": row.channels,
                "cells": row.cells,
                **about[row.name],
                "genotype": row.genotype.to_darts(),
            }
            for row in rows
        ]
        self.curves: dict[tuple[str, int], Curve] = {}

    def resume(self) -> None:
        """Take over the trainings that the file has.

        Raises:
            InputError: they are of other architectures, or were made with other settings.
        """
        if not self.out.exists():
            return
        content = FORMAT.read(self.out)
        for name, ours in (("settings", asdict(self.settings)), ("architectures", self.architectures)):
            if content[name] != ours:
                raise InputError(f"{self.out} was made with other {name}; give another --out")
        self.curves = Table(content).curves

    def missing(self) -> list[tuple[Row, int]]:
        """Return the trainings that are not done, those of the half of one size before those of the other half.

        That half takes less time, and is of use by itself. In each half the first training of every architecture
        comes before the second of any.
        """
        half = len(self.rows) // 2
        order = [(row, seed) for rows in (self.rows[half:], self.rows[:half]) for seed in SEEDS for row in rows]
        return [(row, seed) for row, seed in order if (row.name, seed) not in self.curves]

    def keep(self, curves: Sequence[Curve]) -> None:
        """Add ``curves`` to the table, and write it."""
        self.curves |= {(one.name, one.seed): one for one in curves}
        content = {
            "machine": machine(),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": asdict(self.settings),
            "architectures": self.architectures,
            "trainings": [asdict(one) for one in self.curves.values()],
        }
        FORMAT.write(self.out, content | {"summary": summary(Table(content))})


def make_on_cpu(
    making: Making, where: tuple[Any, ...], task: Task, workers: int, log: Callable[[str], None]
) -> None:
    """Train what is missing, here or in ``workers`` processes."""
    making.resume()
    missing = making.missing()
    total = len(SEEDS) * len(making.rows)

    def done(curve: Curve) -> None:
        making.keep([curve])
        last = curve.evaluations[-1]
        log(
            f"{len(making.curves)}/{total} {curve.name} seed {curve.seed}: score {last['score_accuracy']:.3f}, "
            f"loss {last['score_loss']:.3f}, {curve.seconds:.0f} s"
        )

    log(f"{total - len(missing)} of {total} trainings are done")
    if workers == 1:
        torch.set_num_threads(1)
        for row, seed in missing:
            done(train_one(row, seed, task, making.settings))
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed(pool.submit(work, row, seed, where, making.settings) for row, seed in missing):
            done(future.result())


class Lockstep:
    """All trainings of a table at once, on a GPU."""

    def __init__(self, rows: Sequence[Row], task: Task, batch: int, log: Callable[[str], None]) -> None:
        self.task, self.log = task, log
        self.groups = [Group(seed, rows, task.data, "cuda", batch) for seed in SEEDS]
        self.trainings = [training for group in self.groups for training in group.trainings]
        self.streams = Streams(self.groups, "cuda")
        self.steps = min(len(group.batches) for group in self.groups)
        log(f"{len(self.trainings)} trainings are ready")

    def epochs_that_fit(self, seconds: float) -> int:
        """Return how many epochs fit into ``seconds``; the steps that are timed for it change no weight."""
        taken = []
        count = min(TIMED_STEPS, self.steps)
        for _ in range(2):
            start = time.monotonic()
            run_steps(self.groups, self.streams, lambda _: 0.0, count)
            torch.cuda.synchronize()
            taken.append(time.monotonic() - start)
        for training in self.trainings:
            training.loss.zero_()
            torch._foreach_zero_(training.velocity)
        each = taken[-1] / count
        # A tenth is for the evaluations.
        epochs = max(2, int(0.9 * (seconds - sum(taken)) / (each * self.steps)))
        self.log(f"{1e3 * each:.1f} ms a step of all, {each * self.steps:.1f} s an epoch: {epochs} epochs")
        return epochs

    def train(self, making: Making) -> None:
        """Train all, and write the table at every quarter."""
        epochs, rate = making.settings.epochs, making.settings.rate
        marks = {max(1, round(epochs * share)) for share in (0.25, 0.5, 0.75, 1.0)}
        began = time.monotonic()
        for epoch in range(epochs):
            run_steps(
                self.groups,
                self.streams,
                partial(cosine_rate, rate, epochs * self.steps, epoch * self.steps),
                self.steps,
            )
            for training in self.trainings:
                training.end_epoch(self.steps, self.task.parts if epoch + 1 in marks else {})
                training.curve.seconds = round((time.monotonic() - began) / len(self.trainings), 1)
            mean = sum(training.curve.training_loss[-1] for training in self.trainings) / len(self.trainings)
            self.log(f"epoch {epoch + 1}/{epochs}: mean loss {mean:.3f}")
            if epoch + 1 in marks:
                making.keep([training.curve for training in self.trainings])


def summary(table: Table) -> dict[str, Any]:
    """Return how far the two trainings agree, of all and of each half, and how far costs order the networks."""
    found: dict[str, Any] = {}
    names = table.complete() if len(table.seeds) > 1 else []
    for half, chosen in halves(names).items():
        found[half] = {"networks": len(chosen)}
        for figure in FIGURES:
            found[half][figure] = asdict(table.ceiling(figure, chosen))
        accuracies = [value for seed in table.seeds for value in table.values("score_accuracy", seed, chosen)]
        if accuracies:
            found[half]["range"] = [min(accuracies), max(accuracies)]
    return found


def report(table: Table) -> None:
    """Print the ceilings of ``table``, and by epoch those of the held-out images."""
    names = table.complete() if len(table.seeds) > 1 else []
    epochs = table.settings["epochs"]
    print(f"{len(table.curves)} trainings of {epochs} epochs; {len(names)} networks were trained twice")
    if len(names) < 2:
        return
    print("tau of two trainings ± its standard error")
    for half, chosen in halves(names).items():
        print(f"{half} ({len(chosen)}):")
        for figure in FIGURES:
            among, between = table.spreads(figure, chosen)
            print(
                f"  {figure}: {table.ceiling(figure, chosen)}; standard deviation of the networks {among:.4f}, "
                f"of trainings {between:.4f}"
            )
        for epoch in table.epochs():
            each = [table.ceiling(figure, chosen, epoch) for figure in ("held_out_loss", "held_out_accuracy")]
            print(f"  after epoch {epoch}, held out: loss {each[0]}, accuracy {each[1]}")


def report_against(table: Table, other: Table) -> None:
    """Print how far single trainings of ``table``, by held-out figures, agree with the trainings of ``other``.

    Of ``other``, the mean of the trainings of a network counts, on the images that score.
    """
    print(f"\nagainst trainings of {other.settings['epochs']} epochs: tau ± its standard error")
    for seed in table.seeds:
        trained = [name for name in other.trained() if (name, seed) in table.curves]
        for half, names in halves(trained).items():
            orders = (
                (figure, table.values(f"held_out_{figure}", seed, names), other.truth(f"score_{figure}", names))
                for figure in ("loss", "accuracy")
            )
            found = (f"{figure} {agreement(short, long)}" for figure, short, long in orders)
            print(f"  seed {seed}, {half} ({len(names)}): {', '.join(found)}")


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder with train/, val/ and test/, in each a folder a class")
    parser.add_argument("--resolution", type=int, default=16, help="side of the images in pixels")
    parser.add_argument("--out", type=Path, required=True, help="the table")
    parser.add_argument("--summary", action="store_true", help="train nothing; print what the table shows")
    parser.add_argument(
        "--against", type=Path, metavar="TABLE", help="also print how far single trainings agree with this table"
    )
    parser.add_argument("--on", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=1, help="processes on a CPU")
    parser.add_argument("--count", type=int, default=40, help="architectures")
    parser.add_argument(
        "--one-size", type=int, nargs=2, default=(8, 5), metavar=("CHANNELS", "CELLS"), help="of the second half"
    )
    parser.add_argument("--epochs", type=int, help="of each training")
    parser.add_argument("--minutes", type=float, help="in place of --epochs, on a GPU: as many epochs as fit")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.05, help="learning rate; it falls to 0 along a cosine")
    parser.add_argument(
        "--images", type=int, nargs=3, default=(17_500, 2_500, 5_000), metavar=("TRAIN", "HELD_OUT", "SCORE")
    )
    args = parser.parse_args()
    if not args.summary:
        if args.data is None:
            parser.error("give --data")
        if (args.epochs is None) == (args.minutes is None):
            parser.error("give --epochs or --minutes")
        if args.minutes is not None and args.on == "cpu":
            parser.error("--minutes is for a GPU; give --epochs")
    return args


def make(args: argparse.Namespace) -> None:
    """Make the table, or go on with it."""
    began = time.monotonic()

    def log(line: str) -> None:
        print(f"[{time.monotonic() - began:.0f}s] {line}", file=sys.stderr, flush=True)

    where = (args.data, args.resolution, tuple(args.images), args.on)
    task = Task.load(*where)
    log("{} images to train on, {} to choose by, {} to score".format(*task.images))
    rows = truth_table.rows(args.count, tuple(args.one_size), seed=2026)
    lockstep = Lockstep(rows, task, args.batch, log) if args.on == "cuda" else None
    epochs = args.epochs
    if lockstep is not None and epochs is None:
        epochs = lockstep.epochs_that_fit(60 * args.minutes - (time.monotonic() - began))
    settings = Settings(Path(args.data).name, args.resolution, task.images, epochs, args.batch, args.rate)
    making = Making(args.out, rows, task, settings)
    if lockstep is not None:
        lockstep.train(making)
    else:
        make_on_cpu(making, where, task, args.workers, log)


def main() -> None:
    """Make or show the table."""
    args = arguments()
    try:
        if not args.summary:
            with locked(args.out.with_suffix(".lock"), str(args.out)):
                make(args)
        table = Table.read(args.out)
        report(table)
        if args.against is not None:
            report_against(table, Table.read(args.against))
    except CarsHwError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
