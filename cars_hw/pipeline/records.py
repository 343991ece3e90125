"""What a run's files hold besides networks: its configuration, its generations, and its measured models.

Every field is checked when a file is read: its type by the codec, its bounds here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.measurement import QUIET, Precision, require_state
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.setting import Settings, count, fraction, milliseconds, predicted, seed_field, setting
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.errors import InputError
from cars_hw.evolution.halving import Rungs
from cars_hw.evolution.nominees import Nominee
from cars_hw.evolution.population import Member
from cars_hw.export.card import INT8_SUFFIX
from cars_hw.measurement.energy import Energy
from cars_hw.measurement.sustained import Sustained
from cars_hw.pipeline.time_plan import TimePlan
from cars_hw.significance import Interval, interval_of
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.families import CHOICES
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.space_of import space_of


@dataclass(frozen=True)
class TargetRecord(Settings):
    """A latency target of a run: the fields of ``LatencyTarget``, and when its table was made."""

    device: str
    limit_ms: float | None = milliseconds()
    level: float = setting(above=0, below=1)
    profiled: str = setting()
    precision: Precision = setting()
    threads: int = count(minimum=1)
    state: str = setting()
    at_least_ms: float | None = milliseconds(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_state(self.state)


@dataclass(frozen=True)
class RunConfiguration(Settings):
    """All settings that decide the result of a search. Its tables are beside it, in the order of ``targets``.

    With ``sizes``, each network has one of these sizes, and ``network`` has the largest. ``supernet_channels`` and
    ``supernet_layers`` are None where they are the network's. ``standalone_epochs`` is 0 where weights are shared.
    ``from_run`` is the folder of the run whose shared weights the search started from; None for fresh weights.
    """

    data: str
    seed: int = seed_field()
    network: NetworkSpec = setting()
    operations: tuple[str, ...] = setting(choices=CHOICES)
    targets: tuple[TargetRecord, ...] = setting()
    precision: Precision = setting()
    costs: tuple[str, ...] = setting()
    proxy: bool = setting()
    supernet_channels: int | None = setting(minimum=1, maximum=4096)
    supernet_layers: int | None = setting(minimum=3, maximum=1000)
    evolution: EvolutionSettings = setting()
    training: SharedTraining = setting()
    recipe: Recipe = setting()
    standalone_epochs: int = count()
    sizes: SizeGrid | None = None
    final: FinalSettings = setting(FinalSettings())
    from_run: str | None = None

    ADDED: ClassVar = frozenset({"from_run"})

    @property
    def architectures(self) -> ArchitectureSpace:
        """The architectures that the search could propose."""
        return ArchitectureSpace(space_of(self.network, self.operations), self.network, self.sizes)

    def describe_networks(self) -> str:
        """Return a text for people: of which networks the search was."""
        return self.network.describe() if self.sizes is None else self.sizes.describe_networks(self.network)

    def size_of(self, network: NetworkSpec) -> str:
        """Return a text for people: the size of ``network``, with its resolution if the search has several."""
        return network.size if self.sizes is None else self.sizes.describe_size(network)


@dataclass(frozen=True)
class RunAbout:
    """What is known of a run besides its settings: when it was created, and by which versions.

    ``time`` is the time that the length of the search was chosen for; None where no time was given. ``chosen`` are
    the paths of the settings that cars-hw chose, for the time or because of ``from_run``.
    """

    created: str
    versions: dict[str, str]
    torch_threads: int
    time: TimePlan | None = None
    chosen: tuple[str, ...] = ()

    ADDED: ClassVar = frozenset({"time", "chosen"})


@dataclass(frozen=True)
class StartRecord(Settings):
    """What a search took from an earlier run: the content of ``start.json``.

    ``run`` is the folder of the earlier run, and ``digest`` that of the state of its search. ``network`` is the
    earlier SuperNet, and ``supernet`` the new one. The new one has ``weights``; ``taken`` of them come from the
    earlier one: those of all sizes up to ``common``. ``classifier`` tells whether its classifier was taken, too.
    ``fresh_operations`` are operations that the earlier search did not propose. ``epochs`` is how long the weights
    had been trained. ``population`` is the number of last architectures of the earlier run that begin the new
    population. ``same_images`` tells whether the images and their division are the same. ``judging_images`` is the
    number of images that may evaluate architectures; ``known_images`` of them were training images of the earlier
    run, None where this is not known: if the images cannot be compared, or if the earlier run had other images and
    started from a run itself. ``known_test_images`` and ``test_images`` are the same for the test images.
    """

    run: str
    digest: str
    network: NetworkSpec
    supernet: NetworkSpec
    common: NetworkSpec
    taken: int = count()
    weights: int = count(minimum=1)
    classifier: bool = setting()
    fresh_operations: tuple[str, ...] = setting()
    epochs: int = count()
    population: int = count(0)
    same_images: bool = True
    known_images: int | None = count(None)
    judging_images: int = count(0)
    known_test_images: int | None = count(None)
    test_images: int = count(0)

    ADDED: ClassVar = frozenset({"known_test_images", "test_images"})

    def describe(self) -> list[str]:
        """Return lines for people: what was taken, and what is fresh."""
        share = self.taken / self.weights
        lines = [
            f"starts from the weights of {self.run}, after {self.epochs} epochs: {share:.1%} of the weights are "
            f"taken{'' if share == 1 else f', those of {self.common.size}'}; "
            f"{self.population} of its architectures begin the population"
        ]
        fresh = [
            *([] if self.common.size == self.supernet.size else ["the weights of larger sizes"]),
            *([] if self.classifier else ["the classifier (the classes differ)"]),
            *([f"{', '.join(self.fresh_operations)} (not searched before)"] if self.fresh_operations else []),
            "the momenta of the optimiser",
        ]
        lines.append(f"fresh: {', '.join(fresh)}")
        if self.known_images != 0:
            lines.append(
                f"{_number(self.known_images)} of {self.judging_images:,} images that may evaluate architectures "
                "were training images before: accuracies under shared weights may be too high"
            )
        if self.known_tests:
            lines.append(self.known_tests)
        return lines

    @property
    def known_tests(self) -> str:
        """A sentence without its period if test images trained the weights, or may have; empty otherwise."""
        if self.known_test_images == 0:
            return ""
        return (
            f"{_number(self.known_test_images)} of {self.test_images:,} test images were training images before: "
            "test accuracies of networks that start from shared weights may be too high"
        )


def _number(known: int | None) -> str:
    return "it is not known how many" if known is None else f"{known:,}"


@dataclass(frozen=True)
class RunRecord:
    """The content of ``run.json``."""

    about: RunAbout
    configuration: RunConfiguration


@dataclass(frozen=True)
class GenerationRecord(Settings):
    """A generation: ``candidates`` were evaluated, and ``population`` survived.

    ``loss`` is the mean training loss. ``best_accuracy`` is the highest accuracy of a member, a fraction (with the
    objective ``balanced-accuracy`` the balanced accuracy), and ``best_counts`` what this member gets right of the
    evaluated images, by class. ``hypervolume`` is a fraction of the space of error and costs; with the objective
    ``loss``, the error is that of the loss, 1 - exp(-loss).
    """

    generation: int = count()
    candidates: int = count()
    loss: float | None = setting(minimum=-1e30, maximum=1e30)
    best_accuracy: float = fraction()
    best_counts: ClassCounts = setting()
    hypervolume: float = setting(minimum=-1e9, maximum=1e9)
    population: tuple[Member, ...] = setting()


@dataclass(frozen=True)
class FinalStage(Settings):
    """The final stage of a search: its networks, cheapest first, and the plan of its rungs.

    ``searched`` is the cost of the search before it, and ``planned`` the cost of the stage by its plan. Both are in
    passes of an image times millions of multiply-adds. ``recipe`` is that of the trainings; its ``epochs`` are
    those at the end of the last rung.
    """

    rungs: Rungs = setting()
    recipe: Recipe = setting()
    searched: float = setting(minimum=0, maximum=1e30)
    planned: float = setting(minimum=0, maximum=1e30)
    networks: tuple[Nominee, ...] = setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(len(one.results) > len(self.rungs.epochs) for one in self.networks):
            raise InputError(f"a network must have at most {len(self.rungs.epochs)} results")

    @property
    def share(self) -> float:
        """The share of the whole cost that the stage takes by its plan."""
        return self.planned / (self.searched + self.planned)

    @property
    def done(self) -> int:
        """The number of rungs that are finished."""
        return max(len(one.results) for one in self.networks)

    def epochs_of(self, network: Nominee) -> int:
        """Return the epochs that ``network`` has been trained for."""
        return self.rungs.epochs[len(network.results) - 1] if network.results else 0


@dataclass(frozen=True)
class Verified(Settings):
    """One exported model: its predicted and measured latency in milliseconds, its accuracy on the test images.

    ``predicted_ms`` is None if the run has no table for this device, precision and number of threads. Accuracy
    and ``spread`` are fractions. ``test_images`` is the number of images behind the accuracy.

    ``measured_ms`` is that of ``state``, the state of the machine in which the limit holds, and ``usual_ms`` is
    what the model takes in the usual state of the machine when the table was made. ``quiet`` is False if the
    model was never measured in the quiet state, or the device was slower than the quiet state of the table.
    ``quality_warnings`` are the reasons why the table is unreliable, ``device_warnings`` those why the device was
    slower than it can be. ``sustained`` is what the model takes after minutes of load; None if not measured.
    ``energy`` is that of a run of the model, None if not measured, and ``predicted_mj`` what the table predicts in
    millijoules, with its upper bound ``bound_mj``; None if it has no energy. ``limit_mj`` is the limit of it.
    ``origin`` is a digest of the model's file and of what tells the machine from others; None if it was not kept.

    ``drift`` is the change in latency of the table's reference network in the quiet state since the table was
    made, a fraction; positive is slower, and it is None without a table.
    """

    name: str = setting(name=True)
    device: str = setting()
    precision: Precision = setting()
    threads: int = count(minimum=1)
    accuracy: float | None = fraction()
    parameters: int = count()
    predicted_ms: float | None = predicted()
    bound_ms: float | None = predicted()
    limit_ms: float | None = milliseconds()
    measured_ms: float = milliseconds()
    spread: float = setting(minimum=0, maximum=1e9)
    drift: float | None = setting(None, minimum=-1, maximum=1e9)
    state: str = QUIET
    usual_ms: float | None = milliseconds(None)
    test_images: int | None = count(None, minimum=1)
    quiet: bool = True
    quality_warnings: tuple[str, ...] = ()
    device_warnings: tuple[str, ...] = ()
    sustained: Sustained | None = None
    energy: Energy | None = None
    predicted_mj: float | None = predicted(None)
    bound_mj: float | None = predicted(None)
    limit_mj: float | None = setting(None, above=0, unit="mJ")
    origin: str | None = None

    ADDED: ClassVar = frozenset(
        {"device_warnings", "sustained", "energy", "predicted_mj", "bound_mj", "limit_mj", "origin"}
    )
    DERIVED: ClassVar = ("deviation", "within_budget", "within_energy")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_state(self.state)

    @property
    def deviation(self) -> float | None:
        """The measured latency relative to the prediction, as a fraction of it: positive is slower."""
        return self.measured_ms / self.predicted_ms - 1 if self.predicted_ms else None

    @property
    def network(self) -> str:
        """The name of the trained network: that of the model without the suffix of int8."""
        return self.name.removesuffix(INT8_SUFFIX)

    @property
    def interval(self) -> Interval | None:
        """The 95% confidence interval of the accuracy; None where the accuracy or its images are not known."""
        return interval_of(self.accuracy, self.test_images)

    @property
    def within_budget(self) -> bool | None:
        """Whether the measured latency keeps to the limit; None without a limit."""
        return None if self.limit_ms is None else self.measured_ms <= self.limit_ms

    @property
    def within_energy(self) -> bool | None:
        """Whether the measured energy keeps to the limit; None without a limit or a measurement."""
        return None if self.limit_mj is None or self.energy is None else self.energy.mj <= self.limit_mj


def names_by_state(rows: Sequence[Verified]) -> dict[str, list[str]]:
    """Return the names of the models of ``rows`` by the state of the machine whose latencies the rows have."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.state, []).append(row.name)
    return found


@dataclass(frozen=True)
class VerifiedModels:
    """The content of ``verified.json``: a row for each model and device."""

    models: tuple[Verified, ...]
