"""The result of a comparison of search strategies: what ``baselines.json`` holds. Reading it needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from cars_hw.config.evaluated import shared_adjective
from cars_hw.config.setting import Settings, count, fraction, seed_field, setting
from cars_hw.config.training import EvaluatedClassifier, Recipe
from cars_hw.errors import InputError
from cars_hw.evolution.hypervolume import hypervolume
from cars_hw.evolution.strategies import STRATEGIES
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.significance import Interval, interval_of
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

FILE: Final = "baselines.json"

STANDALONE: Final = "standalone"
"""Evolution without weight sharing: every architecture is trained for one epoch, at the same cost."""


@dataclass(frozen=True)
class Trained(Settings):
    """A network of a front, trained from scratch. ``spec`` is what its genotype fills.

    ``costs`` are in the objectives' units. ``shared`` is the accuracy that chose the front, on validation images:
    under shared weights, or after the trainings of the final stage. ``standalone`` is the accuracy after training,
    on the test images. Both are fractions, and ``test_images`` is the number of images behind the latter.
    """

    genotype: Genotype = setting(kind="genotype")
    spec: NetworkSpec = setting()
    costs: tuple[float, ...] = setting(minimum=-1e12, maximum=1e12)
    shared: float = fraction()
    standalone: float = fraction()
    test_images: int | None = count(None, minimum=1)

    PLAIN_NAMES: ClassVar = {"spec": "network"}

    @property
    def interval(self) -> Interval | None:
        """The 95% confidence interval of the accuracy after training; None where its images are not known."""
        return interval_of(self.standalone, self.test_images)


@dataclass(frozen=True)
class Generation(Settings):
    """A population under shared weights.

    ``hypervolume`` is a fraction of the reference box. ``least``, ``most`` and ``deviation`` (the standard
    deviation) describe the population's first cost, in its unit.
    """

    hypervolume: float = setting(minimum=-1e9, maximum=1e9)
    least: float = setting(minimum=-1e12, maximum=1e12)
    most: float = setting(minimum=-1e12, maximum=1e12)
    deviation: float = setting(minimum=0, maximum=1e12)

    @property
    def spread(self) -> float:
        """The range of the first cost, in its unit."""
        return self.most - self.least


@dataclass(frozen=True)
class Trial(Settings):
    """One search by one strategy with one seed; its generations evaluated ``evaluated`` architectures.

    ``final_hypervolume`` is the recorded one of a comparison that was read from a file.
    """

    strategy: str = setting(choices=(*STRATEGIES, STANDALONE))
    seed: int = seed_field()
    evaluated: int = count()
    generations: tuple[Generation, ...] = setting()
    networks: tuple[Trained, ...] = setting()
    final_hypervolume: float | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.generations or not self.networks:
            raise InputError("a trial has at least one generation and one network")


@dataclass(frozen=True)
class StrategyComparison(Settings):
    """The searches (trials) of all strategies. The run's own strategy is the first.

    ``cost`` and ``unit`` are those of the first objective. ``reference`` is the reference point of the final
    hypervolumes: an error (a fraction) and a value of each cost. ``recipe`` trained the networks of the fronts.
    """

    cost: str
    unit: str
    reference: tuple[float, ...] = setting(above=0, maximum=1e12)
    trials: tuple[Trial, ...] = setting()
    recipe: Recipe = setting()

    DERIVED: ClassVar = ("final_hypervolumes",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.trials or len(self.reference) < 2:
            raise InputError("a comparison has at least one trial and one cost")
        for trial in self.trials:
            if any(1 + len(one.costs) != len(self.reference) for one in trial.networks):
                raise InputError(f"a network must have {len(self.reference) - 1} costs, as the reference point")
            same = next(one for one in self.trials if one.strategy == trial.strategy)
            if len(trial.generations) != len(same.generations):
                raise InputError("all trials of a strategy must have equally many generations")

    @property
    def strategies(self) -> list[str]:
        """The strategies' names, the run's own first."""
        return list(dict.fromkeys(trial.strategy for trial in self.trials))

    @property
    def own(self) -> str:
        """The name of the run's own strategy."""
        return self.trials[0].strategy

    @property
    def seeds(self) -> list[int]:
        """The seeds, in ascending order."""
        return sorted({trial.seed for trial in self.trials})

    @property
    def precision(self) -> str:
        """A sentence on the images behind the trained accuracies and on their widest confidence interval."""
        networks = [one for trial in self.trials for one in trial.networks]
        intervals = [one.interval for one in networks if one.interval is not None]
        if not intervals:
            return ""
        widest = 100 * max(high - low for low, high in intervals)
        return (
            f"Each accuracy after training is on {networks[0].test_images:,} test images; its 95% interval is up "
            f"to {widest:.1f} percentage points wide."
        )

    def of(self, strategy: str) -> list[Trial]:
        """Return the trials of ``strategy``, by seed."""
        return sorted((one for one in self.trials if one.strategy == strategy), key=lambda one: one.seed)

    def final(self, trial: Trial) -> float:
        """Return the hypervolume of a trial's front at its trained accuracies, a fraction of the reference box."""
        if trial.final_hypervolume is not None:
            return trial.final_hypervolume
        rows = [[1 - one.standalone, *one.costs] for one in trial.networks]
        return fraction_dominated(np.array(rows), np.array(self.reference))

    @property
    def final_hypervolumes(self) -> list[float]:
        """The hypervolume of each trial's front at its trained accuracies, in the order of the trials."""
        return [self.final(trial) for trial in self.trials]

    def gaps(self, strategy: str) -> list[float]:
        """Return, for each seed, the final hypervolume of the run's own strategy minus that of ``strategy``."""
        theirs = {trial.seed: self.final(trial) for trial in self.of(strategy)}
        return [self.final(trial) - theirs[trial.seed] for trial in self.of(self.own) if trial.seed in theirs]


def summary(strategy: str, classifier: EvaluatedClassifier) -> str:
    """Return one line that describes ``strategy``; ``classifier`` is that of the run's search."""
    if strategy == STANDALONE:
        return (
            "evolution without weight sharing: every architecture is trained from scratch, for one epoch; "
            "the accuracies of its last population are those of these trainings, by each network's own classifier"
        )
    found = STRATEGIES[strategy]
    return found.untrained or found.summary if classifier == "untrained-probe" else found.summary


def population_evaluated(strategy: str, classifier: EvaluatedClassifier) -> str:
    """Return what evaluated the populations of ``strategy``: ``shared``, ``linear probe``, or ``one epoch alone``.

    ``classifier`` is that of the strategies with shared weights.
    """
    return "one epoch alone" if strategy == STANDALONE else shared_adjective(classifier).replace("-", " ")


def read_baselines(run: RunFolder) -> StrategyComparison | None:
    """Return the comparison that ``compare_run`` wrote, None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    return run.record(FILE, StrategyComparison)


def fraction_dominated(rows: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the hypervolume of ``rows``, an objective a column, as a fraction of the box up to ``reference``."""
    return hypervolume(rows / reference, np.ones(len(reference)))
