"""What weights of a larger set and a teacher give on 450 training images.

::

    .venv/bin/python benchmarks/small_transfer.py [--seeds 3] [--epochs 20] [--json PATH]

The images are those of fashion-mini, 14x14 pixels. The larger set has its images of five classes, 2,500 of them.
The small set has 90 images of each of the other five classes, drawn by the seed, and their 500 test images. A small
network is trained on the small set in three ways: from fresh weights, from the weights of the same network after a
training on the larger set, and with a teacher, a ResNet-18 that was trained on the larger set. Each way has as many
epochs. The seed decides the 450 images, their order, and the fresh weights.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torchvision import models

from cars_hw.config.decoding import Decoding
from cars_hw.config.files import write_json
from cars_hw.config.recipes import named_recipe
from cars_hw.config.teacher import Teacher
from cars_hw.data import DataBundle, Dataset, load_data
from cars_hw.export.card import Preprocessing
from cars_hw.export.model import Model
from cars_hw.nn.network import Network
from cars_hw.pipeline.starting_weights import StartingWeights
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import resolve_genotype
from cars_hw.training.standalone import train_network
from cars_hw.training.teacher import MEAN, STD, TeacherNetwork

LARGE = (2, 3, 6, 7, 9)
SMALL = (0, 1, 4, 5, 8)
EACH = 90
SIDE = 28
"""The pixels that the teacher sees."""


def of_classes(data: DataBundle, classes: tuple[int, ...], each: int | None, seed: int = 0) -> DataBundle:
    """Return the images of ``classes``, ``each`` of the training images of a class."""

    def part(images: Dataset, number: int | None) -> Dataset:
        generator = torch.Generator().manual_seed(seed)
        chosen, labels = [], []
        for label, one in enumerate(classes):
            members = (images.labels == one).nonzero()[:, 0]
            members = members[torch.randperm(len(members), generator=generator)][:number]
            chosen.append(members)
            labels.append(torch.full((len(members),), label))
        return Dataset(images.images[torch.cat(chosen)], torch.cat(labels))

    names = tuple(data.class_names[one] for one in classes)
    return replace(data, train=part(data.train, each), test=part(data.test, None), class_names=names)


def train_teacher(data: DataBundle, path: Path, epochs: int) -> None:
    """Train a ResNet-18 on ``data`` and write its weights to ``path``."""
    torch.manual_seed(0)
    network = models.resnet18(weights=None, num_classes=data.classes)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    steps = epochs * (len(data.train) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    for epoch in range(epochs):
        for places in torch.randperm(len(data.train)).split(64)[: len(data.train) // 64]:
            images = (data.train.images[places].float() / 255).expand(-1, 3, -1, -1)
            images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
            loss = F.cross_entropy(network((images - mean) / std), data.train.labels[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"teacher: epoch {epoch + 1} of {epochs}, loss {float(loss.detach()):.3f}", flush=True)
    torch.save(network.state_dict(), path)


def main() -> None:
    """Run all ways with all seeds and print their accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--teacher-epochs", type=int, default=3)
    parser.add_argument("--large-epochs", type=int, default=6)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    everything = load_data("fashion-mini", resolution=(14, 14))
    large = of_classes(everything, LARGE, None)
    genotype = resolve_genotype("DARTS_V2")
    spec = NetworkSpec(8, 3, (14, 14), 1, classes=5)
    recipe = replace(named_recipe("cifar10-darts"), epochs=given.epochs, auxiliary=0.0, cutout=0, crop_padding=1)
    recipe = replace(recipe, batch_size=90, drop_path=0.0, learning_rate=0.05)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(100)
        before = Network(spec, genotype)
        result = train_network(before, large, replace(recipe, epochs=given.large_epochs), seed=100)
        print(f"larger set: {len(large.train)} images, accuracy {result.accuracy:.3f} on its classes", flush=True)
        start = Path(folder) / "large.safetensors"
        Model.of(before, Preprocessing(large.mean, large.std, (14, 14), Decoding.of(1)), large.class_names).save(
            start
        )
        weights = Path(folder) / "resnet18.pt"
        train_teacher(large, weights, given.teacher_epochs)
        teacher = Teacher("resnet18", weights, resolution=(SIDE, SIDE))
        found: dict[str, list[float]] = {}
        for seed in range(given.seeds):
            small = of_classes(everything, SMALL, EACH, seed)
            ways = {
                "fresh weights": (False, None),
                "--init": (True, None),
                "--teacher": (False, TeacherNetwork(teacher)),
            }
            for name, (begun, taught) in ways.items():
                torch.manual_seed(seed)
                network = Network(spec, genotype)
                if begun:
                    StartingWeights.read(start).give(network, small.class_names)
                result = train_network(network, small, recipe, seed=seed, teacher=taught, log=print)
                found.setdefault(name, []).append(1 - result.accuracy)
                print(f"seed {seed}, {name}: error {1 - result.accuracy:.3f}", flush=True)
    for name, errors in found.items():
        values = 100 * np.array(errors)
        listed = ", ".join(f"{value:.1f}" for value in values)
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        print(f"{name}: error {values.mean():.1f}% +- {spread:.1f} ({listed})")
    if given.json:
        write_json(given.json, {"small": len(small.train), "test": len(small.test), "errors": found})


if __name__ == "__main__":
    main()
