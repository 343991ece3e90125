"""The networks of a comparison: trained in the same way, and measured in the same rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device
from cars_hw.export.lower import lower_network
from cars_hw.export.write import write_graph
from cars_hw.measurement.naming import naming
from cars_hw.measurement.schedule import measure
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.inherited_weights import has_shared_weights
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import TrainingDevice, TrainSettings
from cars_hw.pipeline.train import finished_training, train_run
from cars_hw.pipeline.trained_weights import load_trained
from cars_hw.progress import Progress, counted
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.studies.front_membership import Contestant, ranked
from cars_hw.studies.reference_training import References, train_references
from cars_hw.studies.references import count, write_onnx


class Chosen(NamedTuple):
    """A network of the cell space that is trained for the comparison."""

    name: str
    origin: str
    architecture: Architecture


@dataclass(frozen=True)
class Entry:
    """A trained network before it is measured; ``write`` makes its model file."""

    name: str
    origin: str
    accuracy: float
    held_out: float | None
    parameters: int
    training: str
    spec: NetworkSpec | None
    write: Callable[[Path], None]


def of_run(run: RunFolder, trained: TrainedNetwork, device: Device) -> Entry:
    """Return a network of the run with the weights that the run has."""
    shared = trained.inherit and has_shared_weights(run.configuration, trained.spec)
    began = "from shared weights" if shared else "from scratch"
    return _of_genotype(run, trained, device, "run", began, name=trained.name)


def _of_genotype(
    run: RunFolder, trained: TrainedNetwork, device: Device, origin: str, began: str, *, name: str
) -> Entry:
    def write(path: Path) -> None:
        write_graph(lower_network(load_trained(run, trained)), path, device.model_format)

    return Entry(
        name,
        origin,
        trained.accuracy,
        trained.held_out_accuracy,
        network_cost(trained.spec, trained.genotype).parameters,
        _training(trained.recipe.epochs, began),
        trained.spec,
        write,
    )


def _training(epochs: int, began: str) -> str:
    return f"{epochs} {'epoch' if epochs == 1 else 'epochs'} {began}"


def of_space(chosen: Sequence[Chosen], device: Device, out: Path, settings: References) -> list[Entry]:
    """Return networks of the cell space, trained from scratch in a run folder of their own."""
    if not chosen:
        return []
    folder = out / "networks"
    # Its only images are those that networks are trained on.
    configuration = replace(settings.run.configuration, proxy=False)
    if (folder / "run.json").is_file():
        theirs = RunFolder.open(folder)
        theirs.require(configuration)
    else:
        theirs = RunFolder.create(folder, configuration, settings.run.about)
    theirs.write_data(settings.data.manifest)
    trained = train_run(
        theirs,
        _train_settings(settings),
        chosen=[(one.name, one.architecture) for one in chosen],
        progress=settings.progress,
        log=settings.log,
    )
    return [
        _of_genotype(theirs, found, device, one.origin, "from scratch", name=one.name)
        for one, found in zip(chosen, trained, strict=True)
    ]


def waiting_of_space(chosen: Sequence[Chosen], out: Path, settings: References) -> list[Chosen]:
    """Return those of ``chosen`` that :func:`of_space` would train, since ``out`` has no such training."""
    folder = RunFolder(out / "networks")
    if not (folder.path / "run.json").is_file() or not folder.data_path.is_file():
        return list(chosen)
    training = _train_settings(settings)
    return [one for one in chosen if finished_training(folder, one.name, one.architecture, training) is None]


def _train_settings(settings: References) -> TrainSettings:
    return TrainSettings(
        settings.data.source,
        settings.recipe,
        seed=settings.seed,
        jobs=settings.jobs,
        execution=settings.execution,
        device=cast("TrainingDevice", settings.device),
    )


def of_torchvision(models: Mapping[str, str], out: Path, settings: References) -> list[Entry]:
    """Return torchvision's ``models``, trained from scratch, their weights kept in ``out``."""
    network = settings.run.network
    shape = network.input_shape
    return [
        Entry(
            one.name,
            "torchvision",
            one.accuracy,
            one.held_out,
            count(models[one.name], shape, network.classes).parameters,
            _training(settings.recipe.epochs, "from scratch"),
            None,
            partial(write_onnx, one.network, shape),
        )
        for one in train_references(models, network, out / "torchvision", settings)
    ]


def measured(
    entries: Sequence[Entry], device: Device, plan: MeasurePlan, progress: Progress
) -> tuple[Contestant, ...]:
    """Return ``entries`` with what they take on ``device``, all measured in the same rounds."""
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        paths = [Path(folder) / f"{index}.{device.model_format}" for index in range(len(entries))]
        for entry, path in counted(list(zip(entries, paths, strict=True)), progress, "writing models"):
            entry.write(path)
        with naming({path: entry.name for entry, path in zip(entries, paths, strict=True)}):
            found = measure(device, paths, plan, progress=progress).models
    return ranked(
        [
            Contestant(
                entry.name,
                entry.origin,
                entry.accuracy,
                one.ms,
                one.spread,
                entry.parameters,
                entry.training,
                spec=entry.spec,
                held_out=entry.held_out,
            )
            for entry, one in zip(entries, found, strict=True)
        ]
    )
