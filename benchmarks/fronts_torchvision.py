"""Networks of torchvision beside the trained fronts of ``fronts.py``: the same images, recipe and scoring.

    python benchmarks/fronts_torchvision.py train --fronts FRONTS --data FOLDER --table TABLE --work DIR
    python benchmarks/fronts_torchvision.py measure (the same) --out FILE
    python benchmarks/fronts.py --out FRONTS --summary --beside FILE

``train`` trains each network with each seed, and resumes. Nothing is measured, so other programs may run.

``measure`` measures the networks on ONNX Runtime; nothing else should run. It also measures the networks that the
search over cells and size found with the first seed, whose latencies in FRONTS are predictions. The median ratio of
their predicted to their measured latencies scales the latencies of torchvision's networks. So all latencies are
those of the state of the machine in which the table was made.

FILE has the way ``torchvision`` in the format of ``fronts.py``. Its cost is that of the trainings, since there is
no search. The most accurate network within a budget is chosen on the images of ``val``, as for all ways.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from front_figures import FORMAT, OWN, summary
from front_parts import Part, Settings, Task
from timing import machine
from torch import nn

from cars_hw.config.data import DataSource
from cars_hw.data import load_source
from cars_hw.devices import Device
from cars_hw.devices.registry import open_device
from cars_hw.errors import CarsHwError, InputError
from cars_hw.export.lower import lower_network
from cars_hw.export.write import write_graph
from cars_hw.latency import LatencyTable
from cars_hw.measurement.schedule import measure
from cars_hw.nn.network import Network
from cars_hw.progress import no_log, silent
from cars_hw.progress_line import show
from cars_hw.space.genotype import Genotype
from cars_hw.studies.reference_training import MOMENTUM
from cars_hw.studies.references import count, make, write_onnx
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.standalone import train_network
from cars_hw.training.threads import torch_threads

WAY = "torchvision"

ALIKE = 0.1
"""The networks of the search take what the table predicts, up to this fraction at the median."""

MODELS = (
    "resnet18:0.125@small",
    "resnet18:0.25@small",
    "resnet18:0.5@small",
    "mobilenet_v2:0.75@small",
    "mobilenet_v3_small:1@small",
    "shufflenet_v2:0.5@small",
    "shufflenet_v2:1@small",
)
"""Networks for small images: those that came within three points of the best of their latency in
``results/comparison-cifar16.json``, which has further widths and families."""


def task_of(fronts: Mapping[str, Any], data: str, table: Path) -> Task:
    """Return the task of the file ``fronts``, with its images from ``data`` and its table.

    Raises:
        InputError: the images or the table are not those of the file.
    """
    settings = Settings(**fronts["settings"])
    known = LatencyTable.read(table)
    if known.created != settings.table:
        raise InputError(f"{table} was made on {known.created}; the fronts are of the table of {settings.table}")
    source = DataSource(data).absolute()
    bundle = load_source(source, known.spec.resolution)
    parts = (bundle.train, bundle.validation or (), bundle.test)
    if [len(part) for part in parts] != settings.images:
        raise InputError(
            f"{data} has {[len(part) for part in parts]} images, and the fronts are of {settings.images}"
        )
    return Task(source, known, bundle, settings)


def network_of(task: Task, model: str, seed: int) -> nn.Module:
    """Return torchvision's ``model`` with fresh weights, as ``cars-hw experiment front`` makes it."""
    torch.manual_seed(seed)
    network = make(model, task.table.spec.input_shape, task.table.spec.classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = MOMENTUM
    return network


def train(part: Part, model: str) -> dict[str, Any]:
    """Train ``model`` by the recipe of the fronts, and return its accuracies."""
    task = part.task
    about = {"model": model, "recipe": repr(task.recipe), "seed": part.seed}
    checkpoint = TrainingCheckpoint(part.folder / f"{model.replace(':', '-')}.checkpoint", about, no_log)
    network = network_of(task, model, part.seed)
    with part.clock("front"), torch_threads(task.settings.threads):
        result = train_network(
            network, task.bundle, task.recipe, seed=part.seed, checkpoint=checkpoint, progress=silent
        )
    checkpoint.remove()
    part.log(f"{model}: held-out accuracy {result.held_out_accuracy:.3f}, test accuracy {result.accuracy:.3f}")
    return {"held_out": result.held_out_accuracy, "test": result.accuracy}


def own_networks(task: Task, fronts: Mapping[str, Any], seed: int) -> list[tuple[Network, float]]:
    """Return the trained networks of the search over cells and size with ``seed``, and their predicted ms.

    Raises:
        InputError: the file has none.
    """
    found = [one for one in fronts["found"] if (one["way"], one["seed"]) == (OWN, seed)]
    if not found:
        raise InputError(f"the fronts have no search over cells and size with seed {seed}")
    space = task.plan.architectures
    networks = []
    for one in found[0]["networks"]:
        spec = space.with_channels(space.with_stages(task.plan.network, tuple(one["depths"])), one["channels"])
        networks.append((Network(spec, Genotype.from_darts(one["genotype"])), one["ms"]))
    return networks


def latencies(device: Device, task: Task, own: Sequence[tuple[Network, float]]) -> tuple[dict[str, float], float]:
    """Return the latencies of :data:`MODELS` in ms, scaled to the table, and the factor that scales them."""
    shape = task.table.spec.input_shape
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        paths = [Path(folder) / f"{number}.onnx" for number in range(len(MODELS) + len(own))]
        for model, path in zip(MODELS, paths, strict=False):
            write_onnx(network_of(task, model, 0), shape, path)
        for (network, _), path in zip(own, paths[len(MODELS) :], strict=True):
            write_graph(lower_network(network), path, device.model_format)
        found = [one.ms for one in measure(device, paths, progress=show).models]
    factor = median(ms / measured for (_, ms), measured in zip(own, found[len(MODELS) :], strict=True))
    return {model: factor * ms for model, ms in zip(MODELS, found, strict=False)}, factor


def require_same_state(factor: float) -> None:
    """Check that the latencies of this machine are those of the table, but for its state.

    Raises:
        InputError: they differ by more than :data:`ALIKE`.
    """
    if abs(math.log(factor)) > math.log(1 + ALIKE):
        raise InputError(
            f"the networks of the search take {1 / factor:.3g} times what the table predicts: this machine is "
            "another one, or it is busy; measure on the machine of the table with nothing beside"
        )


def entry(task: Task, part: Part, ms: Mapping[str, float]) -> dict[str, Any]:
    """Return the entry of the file for the seed of ``part``."""
    spec = task.table.spec
    networks = [
        {"model": model, "ms": ms[model], **part.results[model]}
        for model in sorted(MODELS, key=lambda model: ms[model])
        if ms[model] <= task.settings.limit_ms
    ]
    passes = task.recipe.epochs * task.images.trains
    adds = sum(count(one["model"], spec.input_shape, spec.classes).multiply_adds for one in networks)
    return {
        "way": WAY,
        "seed": part.seed,
        "passes": passes * len(networks),
        "multiply_adds": 3.0 * passes * adds,
        "seconds": part.seconds,
        "front": networks,
        "networks": networks,
    }


def main() -> None:
    """Train, or measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("--fronts", type=Path, required=True, help="a file of fronts.py")
    parser.add_argument("--data", required=True, help="the images of that file")
    parser.add_argument("--table", type=Path, required=True, help="the latency table of that file")
    parser.add_argument("--work", type=Path, required=True, help="the folder of the trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2, 3, 4))
    parser.add_argument("--out", type=Path, help="the file that measure writes")
    args = parser.parse_args()
    if args.what == "measure" and args.out is None:
        parser.error("give --out")
    began = time.monotonic()

    def log(seed: int, line: str) -> None:
        print(f"[{time.monotonic() - began:.0f}s] seed {seed}: {line}", file=sys.stderr, flush=True)

    try:
        fronts = FORMAT.read(args.fronts)
        task = task_of(fronts, args.data, args.table)
        parts = [Part(args.work / f"{WAY}-{seed}", task, seed, partial(log, seed)) for seed in args.seeds]
        if args.what == "train":
            torch.set_num_threads(task.settings.threads)
            for part in parts:
                for model in MODELS:
                    part.result(model, partial(train, part, model))
            return
        if missing := [
            f"{model} (seed {part.seed})" for part in parts for model in MODELS if model not in part.results
        ]:
            raise InputError(f"not trained yet, with the seed in brackets: {', '.join(missing)}")
        ms, factor = latencies(open_device("ort"), task, own_networks(task, fronts, args.seeds[0]))
        print(f"latencies are multiplied by {factor:.3f}", file=sys.stderr)
        require_same_state(factor)
        found = [entry(task, part, ms) for part in parts]
        FORMAT.write(
            args.out,
            {
                "machine": machine(),
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "settings": fronts["settings"],
                "ways": {WAY: "networks of torchvision at several widths"},
                "found": found,
                "factor": factor,
                "summary": summary(found, task.box),
            },
        )
    except CarsHwError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
