"""What a user compares with: a run's networks beside published ones and random ones, by accuracy and latency.

It is Figure 1 of the paper, over the range of latencies of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from cars_hw.config.files import require_writable
from cars_hw.config.units import format_seconds
from cars_hw.devices import Device
from cars_hw.errors import DataChangedError, InputError, RunError
from cars_hw.pipeline.estimate import Part
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.plan import recipe_of
from cars_hw.pipeline.run_data import RunData, load_for_training
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.progress import Log, Progress, no_log, silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.zoo import whole_zoo
from cars_hw.studies.budget_choice import spread_budgets
from cars_hw.studies.comparison_range import (
    Range,
    measured_range,
    range_of,
    reference_latencies,
    scaled,
    target_on,
    within,
)
from cars_hw.studies.contestants import (
    Chosen,
    measured,
    of_run,
    of_space,
    of_torchvision,
    waiting_of_space,
)
from cars_hw.studies.equal_cost import Parts, RandomSearch, Trained, random_search
from cars_hw.studies.front_membership import (
    COMPARISON,
    FILE,
    FOLDER,
    Contestant,
    EqualCost,
    FrontComparison,
    OutOfRange,
)
from cars_hw.studies.reference_names import is_reference, names_of, parse
from cars_hw.studies.reference_training import References, waiting_references
from cars_hw.studies.references import MODEL_FORMAT, make
from cars_hw.studies.settings import FrontSettings
from cars_hw.studies.training_time import training_parts
from cars_hw.training.precision import resolve_device, resolve_precision

TORCHVISION: Final = {
    "MobileNetV2": "mobilenet_v2",
    "MNASNet": "mnasnet1_0",
    "ShuffleNetV2": "shufflenet_v2_x1_0",
    "ResNet-18": "resnet18",
}
"""Networks of torchvision by the names that the paper calls them; MNASNet is B1, without squeeze-and-excitation."""

DEFAULT: Final = ("CARS_A", "CARS_I", "DARTS_V2", *TORCHVISION)


@dataclass(frozen=True)
class FrontEstimate:
    """What a comparison trains, and how long it takes.

    ``networks`` are the names of all networks of the cell space and of torchvision that are compared, beside those
    of the run. ``parts`` are the trainings that are not finished yet.
    """

    networks: tuple[str, ...]
    out_of_range: tuple[OutOfRange, ...]
    left_out: tuple[str, ...]
    equal_cost: EqualCost | None
    budgets_ms: tuple[float, ...]
    parts: tuple[Part, ...]

    DERIVED: ClassVar = ("seconds",)

    @property
    def seconds(self) -> float:
        """The sum of all parts."""
        return sum(part.total_seconds for part in self.parts)


@dataclass(frozen=True, eq=False)
class _Comparison:
    """A comparison before its trainings: the run, where it is measured, and how networks are trained."""

    run: RunFolder
    own: Sequence[TrainedNetwork]
    device: Device
    settings: FrontSettings
    out: Path
    training: References

    @property
    def parts(self) -> Parts:
        """The images of the trainings."""
        return Parts.of(self.training.data.bundle, self.training.recipe.hold_out, self.training.seed)


@dataclass(frozen=True)
class _Plan:
    """What is compared. ``budgets_ms`` is empty if they follow from the measured latencies."""

    chosen: tuple[Chosen, ...]
    models: dict[str, str]
    left_out: tuple[str, ...]
    out_of_range: tuple[OutOfRange, ...]
    budgets_ms: tuple[float, ...]
    equal_cost: EqualCost | None


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
    :data:`TORCHVISION` or torchvision itself, as :func:`~cars_hw.studies.reference_names.parse` reads them. The
    first convolution and classifier of the latter take the run's channels and classes. After a search over sizes
    with a table of ``device``, a genotype of the zoo is compared at several sizes: at each budget, the size whose
    upper bound comes nearest below it.

    ``settings.families`` are networks of torchvision at all their widths; for networks with the stem for small
    images, those for small images. Their latencies are measured first, and those outside of the range of the run
    are left out. With ``settings.random``, random architectures of the run's space are compared, as many as can be
    trained at the cost of the run; see :func:`~cars_hw.studies.equal_cost.random_search`.

    All are trained from scratch by the recipe and on the data of ``settings``; with ``from_scratch`` the
    run's networks are, too, instead of being taken as they are. All are measured in the same rounds of
    sessions. At each of ``settings.budgets``, or else at five that are spread over the range of the run, the
    network of each origin is chosen that is the most accurate on held-out images.

    Networks that were trained with the same settings are not trained again, and interrupted trainings resume. All
    files are in ``out``, a folder in the run unless given; the result is ``front.json``. ``log`` gets what is
    trained and how long that takes.

    Raises:
        RunError: the run has no trained networks, or ``out`` is another run's.
        InputError: a reference that is unknown or of another family of cells; or random architectures cannot be
            compared, since no images are held out, or the cost of the run is not known or too small.
        DataChangedError: the images are not those of the run.
        TrainingError: the loss of a network is no longer a number.
        DeviceError: the device fails.
    """
    comparison = _comparison(run, device, settings, out or run.path / FOLDER, progress, log=log)
    plan = _plan(comparison)
    _tell(comparison, plan)
    training = comparison.training
    entries = [] if settings.from_scratch else [of_run(run, one, device) for one in comparison.own]
    entries += of_space(plan.chosen, device, comparison.out, training)
    entries += of_torchvision(plan.models, comparison.out, training)
    networks = measured(entries, device, settings.measurement, progress)
    found = FrontComparison(
        device.name,
        device.conditions(),
        networks,
        plan.left_out,
        len(training.data.bundle.test),
        plan.out_of_range,
        plan.equal_cost,
        plan.budgets_ms or _budgets_of(networks),
        str(run.path),
        training.data.source.source,
        training.recipe,
        training.seed,
    )
    COMPARISON.write_record(comparison.out / FILE, found)
    return found


def estimate_front(
    run: RunFolder,
    device: Device,
    settings: FrontSettings,
    *,
    out: Path | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> FrontEstimate:
    """Return what :func:`compare_front` would train, and how long that would take. Nothing is trained.

    The latencies of ``settings.families`` are measured and kept in ``out``, since they decide what is trained.

    Raises:
        see :func:`compare_front`.
    """
    comparison = _comparison(run, device, settings, out or run.path / FOLDER, progress, log=log)
    plan = _plan(comparison)
    return _estimate(comparison, plan)


def _comparison(
    run: RunFolder, device: Device, settings: FrontSettings, out: Path, progress: Progress, *, log: Log
) -> _Comparison:
    genotypes, _ = _sorted_out(settings.references)
    _require_family(genotypes, run)
    require_writable(out / FILE)
    own = run.trained()
    if not own:
        raise RunError(f"{run.path} has no trained networks", remedy="train", run=run.path)
    # Changes are not accepted: all networks are compared on the same images.
    data = load_for_training(run, settings.data, progress, accept=None)
    if not settings.from_scratch:
        _require_trained_on(data, own)
    recipe = settings.recipe or recipe_of(run)
    train_on = resolve_device(settings.device)
    # What decides the weights is what it comes to on the device.
    recipe = replace(recipe, precision=resolve_precision(recipe.precision, train_on))
    training = References(
        run, data, recipe, settings.seed, train_on, settings.jobs, progress, log, settings.execution
    )
    return _Comparison(run, own, device, settings, out, training)


def _require_family(names: Sequence[str], run: RunFolder) -> None:
    """Check that the published genotypes ``names`` have the cells of the run."""
    own = run.network.base_family
    for name in names:
        family = whole_zoo()[name].genotype.family
        if family != own:
            raise InputError(f"{name} has {family} cells and the run {own} {run.network.parts}")


def _require_trained_on(data: RunData, trained: Sequence[TrainedNetwork]) -> None:
    for network in trained:
        if network.data_digest != data.digest:
            raise DataChangedError(
                f"{network.name} was trained on images with changes that were accepted; train it again on "
                f"{data.source.source}, or train all networks from scratch for the comparison"
            )


def _plan(comparison: _Comparison) -> _Plan:
    settings, run, device = comparison.settings, comparison.run, comparison.device
    genotypes, models = _sorted_out(settings.references)
    target = target_on(run, device)
    own = [one.architecture for one in comparison.own]
    known = None if target is None else range_of(target, own)
    budgets = settings.budgets or (() if known is None else spread_budgets(known.low_ms, known.high_ms))
    chosen = _own_again(comparison.own) if settings.from_scratch else []
    chosen += _genotypes(comparison, genotypes, target, budgets)
    random = _random(comparison)
    if random is not None:
        chosen += [Chosen(name, "random", architecture) for name, architecture in random.chosen]
    families = {name: name for name in names_of(settings.families, small=run.network.stem == "cifar")}
    out_of_range: tuple[OutOfRange, ...] = ()
    left_out: tuple[str, ...] = ()
    if device.model_format != MODEL_FORMAT:
        models, left_out, families = {}, (*models, *families), {}
    if families:
        known = known or measured_range(device, settings.measurement, own, comparison.training.progress)
        families, out_of_range = _within(comparison, families, known)
    return _Plan(
        tuple(chosen),
        {**models, **families},
        left_out,
        out_of_range,
        budgets,
        None if random is None else random.cost,
    )


def _own_again(own: Sequence[TrainedNetwork]) -> list[Chosen]:
    """Return the run's networks to be trained again, each once, however often the run has trained it."""
    networks = {one.architecture.key(): Chosen(one.network, "run", one.architecture) for one in reversed(own)}
    return list(reversed(networks.values()))


def _within(
    comparison: _Comparison, families: dict[str, str], wanted: Range
) -> tuple[dict[str, str], tuple[OutOfRange, ...]]:
    latencies = reference_latencies(
        comparison.device,
        families,
        comparison.run.network,
        comparison.settings.measurement,
        folder=comparison.out,
        progress=comparison.training.progress,
    )
    return within(families, latencies, wanted)


def _genotypes(
    comparison: _Comparison, names: Sequence[str], target: LatencyTarget | None, budgets: Sequence[float]
) -> list[Chosen]:
    """Return the published genotypes: at the run's network, or after a search over sizes scaled to ``budgets``."""
    run = comparison.run
    sizes = run.configuration.sizes
    if sizes is None or target is None:
        return [Chosen(name, "zoo", Architecture(whole_zoo()[name].genotype, run.network)) for name in names]
    found: dict[str, Chosen] = {}
    for name in names:
        for budget in budgets:
            one = scaled(whole_zoo()[name].genotype, sizes, run.network, target, budget)
            if one is None:
                comparison.training.log(f"{name} has no size within {budget:.3g} ms")
                continue
            at = f"-{one.network.pixels}" if sizes.resolutions else ""
            sized = f"{name}-{one.network.channels}x{one.network.layers}{at}"
            found[sized] = Chosen(sized, "zoo", one)
    return list(found.values())


def _random(comparison: _Comparison) -> RandomSearch | None:
    settings, training, parts = comparison.settings, comparison.training, comparison.parts
    if not settings.random:
        return None
    kept = not settings.from_scratch
    if not parts.holds_out or (kept and any(one.held_out is None for one in comparison.own)):
        raise InputError(
            "random architectures cannot be compared: no images are held out of the training to choose among them",
            remedy="hold-out",
        )
    front = [
        Trained(one.architecture, one.recipe.epochs, Parts.of(training.data.bundle, one.recipe.hold_out, one.seed))
        if kept
        else Trained(one.architecture, training.recipe.epochs, parts)
        for one in comparison.own
    ]
    return random_search(comparison.run, front, training.recipe.epochs, parts, training.seed)


def _estimate(comparison: _Comparison, plan: _Plan) -> FrontEstimate:
    training = comparison.training
    spec = comparison.run.network
    waiting = waiting_of_space(plan.chosen, comparison.out, training)
    models = waiting_references(plan.models, spec, comparison.out / "torchvision", training)
    names = {"run": "the run's networks", "zoo": "published genotypes", "random": "random architectures"}
    parts = training_parts(
        [(names[one.origin], one.architecture) for one in waiting],
        {name: partial(make, model, spec.input_shape, spec.classes) for name, model in models.items()},
        training.data.bundle,
        training.recipe,
        device=training.device,
        jobs=training.jobs,
    )
    return FrontEstimate(
        (*(one.name for one in plan.chosen), *plan.models),
        plan.out_of_range,
        plan.left_out,
        plan.equal_cost,
        plan.budgets_ms,
        tuple(parts),
    )


def _tell(comparison: _Comparison, plan: _Plan) -> None:
    """Say what is trained and how long that takes."""

    log = comparison.training.log
    if plan.equal_cost is not None:
        log(f"{plan.equal_cost.sentence}; they are trained")
    found = _estimate(comparison, plan)
    if found.parts:
        log(f"training takes about {format_seconds(found.seconds)}; the evaluations and the measuring come on top")


def _budgets_of(networks: Sequence[Contestant]) -> tuple[float, ...]:
    own = [one.latency_ms for one in networks if one.origin == "run"]
    return spread_budgets(min(own), max(own))


def _sorted_out(references: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the names that are the zoo's, and torchvision's models by the names they are given."""
    genotypes: list[str] = []
    found: dict[str, str] = {}
    for name in dict.fromkeys(references):
        model = TORCHVISION.get(name, name)
        if name in whole_zoo():
            genotypes.append(name)
        elif is_reference(model):
            # A width that there is not is an error now, and not after the images are read.
            parse(model)
            found[name] = model
        else:
            raise InputError(
                f"unknown reference '{name}'; use a published genotype, {', '.join(TORCHVISION)}, or another "
                "classifier of torchvision, such as resnet34 or mobilenet_v2:0.35",
                remedy="zoo",
            )
    return genotypes, found
