"""The state of a running search as a view shows it: stage, generations, front, time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cars_hw.config.evaluation import ClassCounts

if TYPE_CHECKING:
    from cars_hw.config.search import EvolutionSettings
    from cars_hw.config.training import EvaluatedClassifier
    from cars_hw.evolution.objectives import CostObjective

MESSAGES = 50
"""The number of messages that are kept: the last ones."""


class Dot(NamedTuple):
    """One architecture: accuracy under shared weights (a fraction), and costs in the units of the objectives."""

    accuracy: float
    costs: tuple[float, ...]


class Best(NamedTuple):
    """The most accurate architecture of a generation, and the cheapest of these by the first cost.

    ``accuracy`` is the figure that the search maximises, and ``counts`` is what it was counted from. ``uppers``
    are the upper bounds that are compared with the limits; None for a cost without a limit.
    """

    accuracy: float
    costs: tuple[float, ...]
    uppers: tuple[float | None, ...]
    counts: ClassCounts


@dataclass(frozen=True)
class Snapshot:
    """One generation. ``front`` is sorted by cost; architectures with equal figures are in it once."""

    generation: int
    hypervolume: float
    best: Best
    front: tuple[Dot, ...]
    population: tuple[Dot, ...]


class TimeLeft(NamedTuple):
    """The estimated time left, in seconds; a lower bound if ``at_least``."""

    seconds: float
    at_least: bool = False


def snapshot(record: Mapping[str, Any], objectives: Sequence[CostObjective]) -> Snapshot:
    """Return the generation in ``record``, a line of the run's history; ``objectives`` are those of the search."""
    import numpy as np

    from cars_hw.evolution.pnsga3 import pareto_front

    dots = [Dot(member["accuracy"], tuple(member["costs"])) for member in record["population"]]
    rows = np.array([[1 - dot.accuracy, *dot.costs] for dot in dots])
    front = sorted({dots[row] for row in pareto_front(rows)}, key=lambda dot: (dot.costs, -dot.accuracy))
    best = best_of(record, objectives)
    return Snapshot(record["generation"], record["hypervolume"], best, tuple(front), tuple(dots))


def best_of(record: Mapping[str, Any], objectives: Sequence[CostObjective]) -> Best:
    """Return the best architecture in the population of ``record``. The whole population is within the budgets."""
    from cars_hw.config.codec import structure
    from cars_hw.space.architecture import Architecture
    from cars_hw.space.genotype import Genotype
    from cars_hw.space.network_spec import NetworkSpec

    member = max(record["population"], key=lambda member: (member["accuracy"], -member["costs"][0]))
    network = structure(member["network"], NetworkSpec)
    architecture = Architecture(Genotype.from_dict(member["genotype"]), network)
    uppers = tuple(None if one.limit is None else one.upper(architecture) for one in objectives)
    counts = record["best_counts"]
    return Best(
        member["accuracy"],
        tuple(member["costs"]),
        uppers,
        ClassCounts(tuple(counts["images"]), tuple(counts["right"])),
    )


class SearchStatus:
    """The state of a search. It collects reports and draws nothing. ``classifier`` evaluates the architectures.

    Times are seconds of one clock, which the caller chooses.
    """

    def __init__(
        self,
        title: str,
        objectives: Sequence[CostObjective],
        settings: EvolutionSettings,
        now: float,
        classifier: EvaluatedClassifier = "shared",
    ) -> None:
        self.classifier = classifier
        self.title = title
        self.objectives = tuple(objectives)
        self.objective = settings.printed_accuracy
        self.generations = settings.generations
        # Without shared training, a generation is an evaluation alone.
        self.epochs = 0 if classifier == "untrained-probe" else settings.epochs_per_generation
        self.begun = now
        self.hypervolumes: list[float] = []
        self.last: Snapshot | None = None
        self.messages: deque[str] = deque(maxlen=MESSAGES)
        self.stage = ""
        self.done = self.total = 0
        # Time and finished steps at the first report of the stage, and at the end of its last whole unit.
        self._first = self._marked = (now, 0)
        self._latest = now

    def add(self, *records: Mapping[str, Any]) -> None:
        """Add generations: records of the run's history, in their order."""
        if records:
            self.hypervolumes += [record["hypervolume"] for record in records]
            self.last = snapshot(records[-1], self.objectives)

    def update(self, stage: str, done: int, total: int, now: float) -> None:
        """Note that ``done`` of ``total`` steps of ``stage`` are done."""
        if stage != self.stage or done < self.done:
            self._first = self._marked = (now, done)
        # An evaluation and an epoch differ in length, so that only whole generations give the pace.
        unit = 1 + self.epochs if stage == "generations" else 1
        if (done - self._first[1]) % unit == 0 and done > self._marked[1]:
            self._marked = (now, done)
        self.stage, self.done, self.total, self._latest = stage, done, total, now

    def log(self, line: str) -> None:
        """Add a message."""
        self.messages.append(line)

    @property
    def doing(self) -> str:
        """The present stage and step, in words."""
        if not self.stage:
            return "preparing"
        if self.stage == "warm-up":
            return f"warm-up, epoch {min(self.done + 1, self.total)} of {self.total}"
        if self.stage.startswith("final stage"):
            return f"{self.stage}, epoch {min(self.done + 1, self.total)} of {self.total}"
        if self.stage != "generations":
            return f"{self.stage}, {self.done} of {self.total}"
        if self.done >= self.total:
            return "evaluating the finalists"
        number, step = divmod(self.done, 1 + self.epochs)
        what = f"epoch {step} of {self.epochs}" if step else "evaluating"
        return f"generation {number + 1} of {self.generations}, {what}"

    @property
    def share(self) -> float:
        """The fraction of the stage that is done."""
        return self.done / self.total if self.total else 0.0

    def left(self, now: float) -> TimeLeft | None:
        """Return the time left at the pace of the present stage; None before its first step is done.

        In the warm-up and the first generation it is a lower bound: evaluations are not included. Steps of an
        earlier process do not count.
        """
        warming, whole = self.stage == "warm-up", self._marked != self._first
        (began, before), (latest, done) = self._first, self._marked if whole else (self._latest, self.done)
        if done <= before or latest <= began or (self.done == self.total and not warming):
            return None
        to_do = self.total - done + (self.generations * self.epochs if warming else 0)
        seconds = to_do * (latest - began) / (done - before) - (now - latest)
        return TimeLeft(max(seconds, 1.0), at_least=warming or not whole)
