"""The data of the report, read once from the run folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cars_hw.config.evaluated import shared_adjective, training_words
from cars_hw.config.evaluation import ClassCounts, Objective
from cars_hw.config.training import EvaluatedClassifier
from cars_hw.data.manifest import AcceptedChange, DataManifest
from cars_hw.devices import format_of
from cars_hw.errors import InputError, TableError
from cars_hw.export.card import INT8_SUFFIX, ModelCard, card_path, verified_card
from cars_hw.formatting import milliseconds
from cars_hw.nn.cost import both_costs
from cars_hw.pipeline.costs import COUNTED, parse_cost, unit_of
from cars_hw.pipeline.latency_target import LatencyEstimate, LatencyTarget
from cars_hw.pipeline.networks import FrontNetwork, Step, TrainedNetwork
from cars_hw.pipeline.records import FinalStage, RunAbout, RunConfiguration, StartRecord, TargetRecord, Verified
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.significance import Interval, interval_of
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.studies.front_membership import FrontComparison, read_comparison
from cars_hw.studies.ranking import Ranking, read_ranking
from cars_hw.studies.strategy_comparison import StrategyComparison, read_baselines


@dataclass(frozen=True)
class ModelFile:
    """An exported model: ``path`` is relative to the run's folder, ``size`` in bytes."""

    name: str
    path: str
    size: int
    card: ModelCard

    @property
    def file(self) -> str:
        """The name of the file."""
        return Path(self.path).name

    @property
    def measured_on(self) -> tuple[str, ...]:
        """The names of the devices on which it was measured."""
        return tuple(one.device for one in self.card.latencies if one.measured_ms is not None)

    @property
    def measured(self) -> str:
        """The measured latencies, each with its device if there are several."""
        found = [one for one in self.card.latencies if one.measured_ms is not None]
        if len(found) > 1:
            return ", ".join(f"{milliseconds(one.measured_ms)} ({one.device})" for one in found)
        return milliseconds(found[0].measured_ms if found else None)

    @property
    def interval(self) -> Interval | None:
        """The 95% confidence interval of its accuracy; None where the number of images is not known."""
        return interval_of(self.card.accuracy, self.card.test_images)

    @property
    def network(self) -> str:
        """The name of its network."""
        return self.name.removesuffix(INT8_SUFFIX)


@dataclass(frozen=True)
class Candidate:
    """A network of the front, or one that was trained outside the front, with all its data.

    ``shared_accuracy`` is the figure that the search maximised, a fraction on the validation images; None outside
    the front. It is under shared weights, or, if the network was trained in the final stage of the search, after
    ``trained_epochs`` epochs. A ``dominated`` network is in the front as the best of its stretch; see
    :class:`cars_hw.pipeline.networks.FrontNetwork`, also for ``costs``. ``validation`` has the counts behind it.
    ``measured`` are the rows of ``verified.json`` for its models.
    """

    name: str
    genotype: Genotype
    spec: NetworkSpec
    shared_accuracy: float | None
    parameters: int
    multiply_adds: int
    latency_estimates: tuple[LatencyEstimate, ...]
    trained: TrainedNetwork | None
    models: tuple[ModelFile, ...]
    measured: tuple[Verified, ...]
    validation: ClassCounts | None = None
    trained_epochs: int = 0
    dominated: bool = False
    costs: Mapping[str, float] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        """The genotype and its network."""
        return Architecture(self.genotype, self.spec)

    @property
    def accuracy(self) -> float | None:
        """The test accuracy of a trained network, otherwise the shared accuracy."""
        return self.trained.accuracy if self.trained is not None else self.shared_accuracy


class RunTarget(NamedTuple):
    """A latency target of the run: its record in ``run.json``, and the target, or the reason why it is unusable."""

    record: TargetRecord
    target: LatencyTarget | None
    problem: str = ""

    @property
    def device(self) -> str:
        """The name of the device."""
        return self.record.device


@dataclass(frozen=True)
class Cost:
    """The x axis of a front: a latency, on the device of a target, or another cost, by its name."""

    title: str
    unit: str
    index: int
    limit: float | None = None
    is_latency: bool = False

    @property
    def limit_text(self) -> str:
        """The text beside the limit in a plot."""
        if self.limit is None:
            return ""
        return f"budget {milliseconds(self.limit)}" if self.is_latency else f"limit {self.limit:g} {self.unit}"

    def is_known(self, candidate: Candidate) -> bool:
        """Whether the cost of ``candidate`` is known: networks outside of the front have those of cars-hw only."""
        return self.is_latency or self.title in COUNTED or self.title in candidate.costs

    def of(self, candidate: Candidate) -> float:
        """Return the cost of ``candidate``, in the unit."""
        if self.is_latency:
            return candidate.latency_estimates[self.index].predicted_ms
        counted = {"parameters": candidate.parameters, "multiply-adds": candidate.multiply_adds}
        return counted[self.title] / 1e6 if self.title in counted else candidate.costs[self.title]


def _named(text: str, index: int) -> Cost:
    """Return the cost ``text``, a name with or without a limit, at place ``index`` of the history's costs."""
    name, limit = parse_cost(text)
    return Cost(name, unit_of(name), index, limit)


@dataclass(frozen=True)
class ReportData:
    """A run as the sections of the report use it.

    ``data`` has the facts of the search's images, ``target_data`` those of the networks' where they are others.
    ``trained`` are all trainings.
    """

    path: Path
    about: RunAbout
    configuration: RunConfiguration
    spec: NetworkSpec
    candidates: tuple[Candidate, ...]
    rejected: tuple[FrontNetwork, ...]
    targets: tuple[RunTarget, ...]
    history: tuple[Mapping[str, Any], ...]
    verified: tuple[Verified, ...]
    data: DataManifest
    target_data: DataManifest | None = None
    data_changes: tuple[AcceptedChange, ...] = ()
    trained: tuple[TrainedNetwork, ...] = ()
    ranking: Ranking | None = None
    baselines: StrategyComparison | None = None
    steps: tuple[Step, ...] = ()
    search_command: str | None = None
    final_stage: FinalStage | None = None
    start: StartRecord | None = None
    comparison: FrontComparison | None = None

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return self.path.resolve().name

    @property
    def objective(self) -> Objective:
        """The accuracy that is shown: what the search maximised, unless that was the loss."""
        return self.configuration.evolution.printed_accuracy

    @property
    def accuracy_name(self) -> str:
        """The words for the accuracy that is shown: ``accuracy``, ``balanced accuracy``."""
        return self.objective.replace("-", " ")

    @property
    def classifier(self) -> EvaluatedClassifier:
        """What classified the images when architectures were evaluated under shared weights."""
        return self.configuration.training.classifier

    @property
    def evaluating(self) -> str:
        """What evaluated architectures, in two or three words."""
        names: dict[EvaluatedClassifier, str] = {
            "shared": "shared weights",
            "probe": "linear probe",
            "untrained-probe": "probe on untrained weights",
        }
        return names[self.classifier]

    @property
    def shared_name(self) -> str:
        """The name of the accuracy under shared weights: ``shared accuracy``, ``linear-probe accuracy``."""
        return f"{shared_adjective(self.classifier)} {self.accuracy_name}"

    @property
    def choosing(self) -> str:
        """How the networks were trained when they were chosen: ``after 1 epoch in the final stage``."""
        return training_words(self.candidates[0].trained_epochs if self.candidates else 0, self.classifier)

    @property
    def choosing_name(self) -> str:
        """The name of the accuracy on the images that chose the front: ``shared accuracy``."""
        trained = bool(self.candidates and self.candidates[0].trained_epochs)
        return f"{self.accuracy_name} of short training" if trained else self.shared_name

    @property
    def by_loss(self) -> bool:
        """Whether the search compared architectures by their loss under shared weights."""
        return self.configuration.evolution.objective == "loss"

    @property
    def losses_chose(self) -> bool:
        """Whether losses under shared weights chose the front: without a final stage, whose accuracies choose."""
        return self.by_loss and self.final_stage is None

    @property
    def costs(self) -> tuple[Cost, ...]:
        """The latencies of the targets in their order; without a target, the first minimised count."""
        if self.targets:
            return tuple(
                Cost(f"predicted latency on {target.device}", "ms", index, target.record.limit_ms, is_latency=True)
                for index, target in enumerate(self.targets)
            )
        return (_named(self.configuration.costs[0] if self.configuration.costs else "multiply-adds", 0),)

    @property
    def networks(self) -> str:
        """What the search was for: the network, or the range of sizes."""
        sizes = self.configuration.sizes
        return self.spec.describe() if sizes is None else sizes.describe_networks(self.spec)

    def size_of(self, network: NetworkSpec) -> str:
        """The size of ``network`` in words, with its resolution if the search has several."""
        return self.configuration.size_of(network)

    @property
    def sized(self) -> bool:
        """Whether the search chose the size of each network, or networks differ in it."""
        several = len({candidate.spec for candidate in self.candidates}) > 1
        return several or self.configuration.sizes is not None

    @property
    def minimised(self) -> tuple[Cost, ...]:
        """Everything that the search minimised, in the order of the history."""
        counts = self.configuration.costs
        latencies = self.costs[: len(self.targets)]
        return (*latencies, *(_named(text, len(latencies) + number) for number, text in enumerate(counts)))

    @property
    def named_costs(self) -> tuple[Cost, ...]:
        """The costs that the search minimised besides latencies, parameters and multiply-adds."""
        return tuple(one for one in self.minimised if not one.is_latency and one.title not in COUNTED)

    def candidate(self, name: str) -> Candidate | None:
        """Return the network of the model ``name``, or None."""
        wanted = name.removesuffix(INT8_SUFFIX)
        return next((candidate for candidate in self.candidates if candidate.name == wanted), None)

    def model(self, name: str, device: str) -> ModelFile | None:
        """Return the file of the model ``name`` that was measured on ``device``, or None.

        The card of a file tells on which devices it was measured: the package of a device may be broken by now.
        """
        files = [model for one in self.candidates for model in one.models if model.name == name]
        measured = [model for model in files if device in model.measured_on]
        if not measured and len(files) > 1:
            # They were exported again since.
            measured = [model for model in files if model.file == f"{name}.{_format_of(device)}"]
        return next(iter(measured or (files if len(files) == 1 else ())), None)


def _format_of(device: str) -> str | None:
    """Return the format that ``device`` runs; None if it is of a package that cannot be imported."""
    try:
        return format_of(device)
    except InputError:
        return None


def gather(run: RunFolder) -> ReportData:
    """Read the data of ``run``. A latency table that is unusable is noted, and the other data is returned.

    Raises:
        RunError: the search has not finished, or a file of the run is damaged.
        InputError: a model's card is damaged.
    """
    configuration = run.configuration
    targets = tuple(_target(run, index, record) for index, record in enumerate(configuration.targets))
    verified = run.verified()
    models = _models(run)
    trained = {network.name: network for network in run.trained()}
    front = run.front()

    def candidate(network: FrontNetwork, accuracy: float | None) -> Candidate:
        return Candidate(
            network.name,
            network.genotype,
            network.spec,
            accuracy,
            network.parameters,
            network.multiply_adds,
            network.latency_estimates,
            trained.get(network.name),
            tuple(model for model in models if model.network == network.name),
            tuple(row for row in verified if row.network == network.name),
            network.validation,
            network.trained_epochs,
            network.dominated,
            network.costs,
        )

    candidates = [candidate(network, network.accuracy) for network in front]
    names = {network.name for network in front}
    usable = [target.target for target in targets if target.target is not None]
    candidates += [
        candidate(_beside(network, usable), None)
        for network in trained.values()
        if network.name not in names and sum(one.table.covers(network.spec) for one in usable) == len(targets)
    ]
    return ReportData(
        run.path,
        run.about,
        configuration,
        run.network,
        tuple(candidates),
        tuple(run.rejected()),
        targets,
        tuple(run.history()),
        tuple(verified),
        run.data,
        run.training_data if run.target_data_path.is_file() else None,
        tuple(run.data_changes()),
        tuple(run.trained()),
        read_ranking(run),
        read_baselines(run),
        tuple(run.steps()),
        _search_command(run),
        run.final_stage(),
        run.start(),
        read_comparison(run),
    )


def _target(run: RunFolder, index: int, record: TargetRecord) -> RunTarget:
    try:
        target = run.target(index)
        _ = target.predictor
    except TableError as error:
        return RunTarget(record, None, str(error))
    return RunTarget(record, target)


def _search_command(run: RunFolder) -> str | None:
    """Return the command that repeats the search, given beside the run's folder; None without its settings."""
    if not run.config_file.is_file():
        return None
    name = run.path.resolve().name
    return shlex.join(["cars-hw", "search", "--config", f"{name}/{run.config_file.name}", "--out", f"{name}-again"])


def _models(run: RunFolder) -> list[ModelFile]:
    files = []
    for path in sorted((run.path / "models").glob("*")):
        if path.suffix != ".json" and card_path(path).is_file():
            card = verified_card(path)
            files.append(ModelFile(path.stem, f"models/{path.name}", path.stat().st_size, card))
    return files


def _beside(network: TrainedNetwork, targets: Sequence[LatencyTarget]) -> FrontNetwork:
    """Return the record of a network that was trained outside the front, in the form of the front."""
    estimates = tuple(target.estimate(network.architecture) for target in targets)
    return FrontNetwork(
        name=network.name,
        genotype=network.genotype,
        spec=network.spec,
        accuracy=network.accuracy,
        latency_estimates=estimates,
        **both_costs(network.spec, network.genotype),
        objective="accuracy",
        validation=None,
        dominated=False,
        costs={},
        classifier=None,
    )
