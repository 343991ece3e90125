"""Figure 1 of the paper: accuracy against measured latency, a run's networks beside published ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, cast

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.codec import unstructure
from cars_hw.config.files import require_writable
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device
from cars_hw.errors import DataChangedError, InputError, RunError
from cars_hw.export.lower import lower_network
from cars_hw.export.write import write_graph
from cars_hw.measurement.schedule import measure
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.plan import recipe_of
from cars_hw.pipeline.run_data import RunData, load_for_training
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import FrontSettings, TrainingDevice, TrainSettings
from cars_hw.pipeline.train import has_shared_weights, load_trained, train_run
from cars_hw.progress import Log, Progress, counted, no_log, silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import zoo
from cars_hw.studies.front_membership import Contestant, FrontComparison, ranked
from cars_hw.studies.reference_training import References, train_references
from cars_hw.studies.references import MODEL_FORMAT, count, write_onnx
from cars_hw.training.precision import resolve_device, resolve_precision

COMPARISON: Final = ChecksummedFormat("cars-hw front comparison", 1, "remake-study", RunError)

TORCHVISION: Final = {
    "MobileNetV2": "mobilenet_v2",
    "MNASNet": "mnasnet1_0",
    "ShuffleNetV2": "shufflenet_v2_x1_0",
    "ResNet-18": "resnet18",
}
"""Networks of torchvision by the names that the paper calls them; MNASNet is B1, without squeeze-and-excitation."""

DEFAULT: Final = ("CARS_A", "CARS_I", "DARTS_V2", *TORCHVISION)


@dataclass(frozen=True)
class _Entry:
    """A trained network before it is measured; ``write`` makes its model file."""

    name: str
    origin: str
    accuracy: float
    parameters: int
    training: str
    spec: NetworkSpec | None
    write: Callable[[Path], None]


def compare_front(
    run: RunFolder,
    device: Device,
    settings: FrontSettings,
    *,
    out: Path | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> FrontComparison:
    """Compare the run's trained networks with ``settings.references``: test accuracy, and latency on ``device``.

    References are names of the zoo, which become the run's network with another genotype, and of
    :data:`TORCHVISION` or torchvision itself, whose first convolution and classifier take the run's channels and
    classes. They are trained from scratch by the recipe and on the data of ``settings``; with ``from_scratch`` the
    run's networks are, too, instead of being taken as they are. All are measured in the same rounds of
    sessions.

    Networks that were trained with the same settings are not trained again, and interrupted trainings resume. All
    files are in ``out``, a folder in the run unless given; the result is ``front.json``.

    Raises:
        RunError: the run has no trained networks, or ``out`` is another run's.
        InputError: an unknown reference.
        DataChangedError: the images are not those of the run.
        TrainingError: the loss of a network is no longer a number.
        DeviceError: the device fails.
    """
    genotypes, models = _sorted_out(settings.references)
    require_writable((out or run.path / "comparison") / "front.json")
    own = run.trained()
    if not own:
        raise RunError(f"{run.path} has no trained networks", remedy="train", run=run.path)
    left_out: tuple[str, ...] = ()
    if device.model_format != MODEL_FORMAT:
        models, left_out = {}, tuple(models)
    out = out or run.path / "comparison"
    # Changes are not accepted: all networks are compared on the same images.
    data = load_for_training(run, settings.data, progress, accept=None)
    if not settings.from_scratch:
        _require_trained_on(data, own)
    recipe = settings.recipe or recipe_of(run)
    train_on = resolve_device(settings.device)
    # What decides the weights is what it comes to on the device.
    recipe = replace(recipe, precision=resolve_precision(recipe.precision, train_on))
    training = References(run, data, recipe, settings.seed, train_on, settings.jobs, progress, log)
    entries = [] if settings.from_scratch else [_of_run(run, one, device) for one in own]
    chosen = [(one.name, one.architecture) for one in own] if settings.from_scratch else []
    chosen += [(name, Architecture(zoo()[name].genotype, run.network)) for name in genotypes]
    entries += _of_space(run, chosen, device, out, training)
    entries += _of_torchvision(run, models, out, training)
    measured = _measured(entries, device, settings.measurement, progress)
    comparison = FrontComparison(device.name, device.conditions(), measured, left_out, len(data.bundle.test))
    content = {"run": str(run.path), "data": data.source.source, "seed": settings.seed, "recipe": asdict(recipe)}
    COMPARISON.write(out / "front.json", {**content, **unstructure(comparison)})
    return comparison


def _require_trained_on(data: RunData, trained: Sequence[TrainedNetwork]) -> None:
    for network in trained:
        if network.data_digest != data.digest:
            raise DataChangedError(
                f"{network.name} was trained on images with changes that were accepted; train it again on "
                f"{data.source.source}, or train all networks from scratch for the comparison"
            )


def _sorted_out(references: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the names that are the zoo's, and torchvision's models by the names they are given."""
    from torchvision import models

    known = models.list_models(module=models)
    genotypes: list[str] = []
    found: dict[str, str] = {}
    for name in dict.fromkeys(references):
        model = TORCHVISION.get(name, name)
        if name in zoo():
            genotypes.append(name)
        elif model in known:
            found[name] = model
        else:
            raise InputError(
                f"unknown reference '{name}'; use a published genotype, {', '.join(TORCHVISION)}, or another "
                "classifier of torchvision, such as resnet34",
                remedy="zoo",
            )
    return genotypes, found


def _of_run(run: RunFolder, trained: TrainedNetwork, device: Device) -> _Entry:
    shared = trained.inherit and has_shared_weights(run.configuration, trained.spec)
    began = "from shared weights" if shared else "from scratch"
    return _of_genotype(run, trained, device, "run", began)


def _of_genotype(
    run: RunFolder, trained: TrainedNetwork, device: Device, origin: str, began: str, *, name: str = ""
) -> _Entry:
    def write(path: Path) -> None:
        write_graph(lower_network(load_trained(run, trained)), path, device.model_format)

    return _Entry(
        name or trained.name,
        origin,
        trained.accuracy,
        network_cost(trained.spec, trained.genotype).parameters,
        _training(trained.recipe.epochs, began),
        trained.spec,
        write,
    )


def _training(epochs: int, began: str) -> str:
    return f"{epochs} {'epoch' if epochs == 1 else 'epochs'} {began}"


def _of_space(
    run: RunFolder, chosen: Sequence[tuple[str, Architecture]], device: Device, out: Path, settings: References
) -> list[_Entry]:
    """Return networks of the cell space, trained from scratch in a run folder of their own."""
    if not chosen:
        return []
    folder = out / "networks"
    # Its only images are those that networks are trained on.
    configuration = replace(run.configuration, proxy=False)
    if (folder / "run.json").is_file():
        theirs = RunFolder.open(folder)
        theirs.require(configuration)
    else:
        theirs = RunFolder.create(folder, configuration, run.about)
    theirs.write_data(settings.data.manifest)
    trained = train_run(
        theirs,
        TrainSettings(
            settings.data.source,
            settings.recipe,
            seed=settings.seed,
            jobs=settings.jobs,
            device=cast("TrainingDevice", settings.device),
        ),
        chosen=chosen,
        progress=settings.progress,
        log=settings.log,
    )
    return [
        _of_genotype(theirs, one, device, "zoo" if name in zoo() else "run", "from scratch", name=name)
        for (name, _), one in zip(chosen, trained, strict=True)
    ]


def _of_torchvision(run: RunFolder, models: dict[str, str], out: Path, settings: References) -> list[_Entry]:
    """Return torchvision's ``models``, trained from scratch, their weights kept in ``out``."""
    shape = run.network.input_shape
    return [
        _Entry(
            name,
            "torchvision",
            accuracy,
            count(models[name], shape, run.network.classes).parameters,
            _training(settings.recipe.epochs, "from scratch"),
            None,
            partial(write_onnx, network, shape),
        )
        for name, network, accuracy in train_references(models, run.network, out / "torchvision", settings)
    ]


def _measured(
    entries: Sequence[_Entry], device: Device, plan: MeasurePlan, progress: Progress
) -> tuple[Contestant, ...]:
    """Return ``entries`` with what they take on ``device``, all measured in the same rounds."""
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        paths = [Path(folder) / f"{index}.{device.model_format}" for index in range(len(entries))]
        for entry, path in counted(list(zip(entries, paths, strict=True)), progress, "writing models"):
            entry.write(path)
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
            )
            for entry, one in zip(entries, found, strict=True)
        ]
    )
