"""What is known of a search while it runs: its generations, the front so far, and the time that it takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cars_hw.config.search import EvolutionSettings
    from cars_hw.evolution.objectives import CostObjective

MESSAGES = 50
"""How many of the last messages are kept."""


class Dot(NamedTuple):
    """An architecture: its accuracy under shared weights, a fraction, and its costs in the objectives' units."""

    accuracy: float
    costs: tuple[float, ...]


class Best(NamedTuple):
    """The most accurate architecture; of equals the cheaper in the first cost.

    ``uppers`` are what is held against the limits: None for a cost without a limit.
    """

    accuracy: float
    costs: tuple[float, ...]
    uppers: tuple[float | None, ...]


@dataclass(frozen=True)
class Snapshot:
    """A generation, read from its record in the history; ``front`` is the cheapest first, each place once."""

    generation: int
    hypervolume: float
    best: Best
    front: tuple[Dot, ...]
    population: tuple[Dot, ...]


class TimeLeft(NamedTuple):
    """Seconds that are left, or the least that is left where what follows cannot be judged yet."""

    seconds: float
    at_least: bool = False


def snapshot(record: Mapping[str, Any], objectives: Sequence[CostObjective]) -> Snapshot:
    """Return what ``record``, a generation of a run's history, says; ``objectives`` are those of the search."""
    import numpy as np

    from cars_hw.evolution.pnsga3 import pareto_front

    dots = [Dot(member["accuracy"], tuple(member["costs"])) for member in record["population"]]
    rows = np.array([[1 - dot.accuracy, *dot.costs] for dot in dots])
    front = sorted({dots[row] for row in pareto_front(rows)}, key=lambda dot: (dot.costs, -dot.accuracy))
    return Snapshot(
        record["generation"], record["hypervolume"], best_of(record, objectives), tuple(front), tuple(dots)
    )


def best_of(record: Mapping[str, Any], objectives: Sequence[CostObjective]) -> Best:
    """Return the best of the population of ``record``; all of them keep to every budget."""
    from cars_hw.space.genotype import Genotype

    member = max(record["population"], key=lambda member: (member["accuracy"], -member["costs"][0]))
    genotype = Genotype.from_dict(member["genotype"])
    uppers = tuple(None if one.limit is None else one.upper(genotype) for one in objectives)
    return Best(member["accuracy"], tuple(member["costs"]), uppers)


class SearchStatus:
    """Where a search stands: it is told what happens, and draws nothing.

    Times are in seconds of any one clock.
    """

    def __init__(
        self, title: str, objectives: Sequence[CostObjective], settings: EvolutionSettings, now: float
    ) -> None:
        self.title = title
        self.objectives = tuple(objectives)
        self.generations = settings.generations
        self.epochs = settings.epochs_per_generation
        self.begun = now
        self.hypervolumes: list[float] = []
        self.last: Snapshot | None = None
        self.messages: deque[str] = deque(maxlen=MESSAGES)
        self.stage = ""
        self.done = self.total = 0
        # When the stage was first heard of, and when the last whole unit of it ended; and what was done then.
        self._first = self._marked = (now, 0)
        self._latest = now

    def add(self, *records: Mapping[str, Any]) -> None:
        """Take up generations, records of the run's history, in their order."""
        if records:
            self.hypervolumes += [record["hypervolume"] for record in records]
            self.last = snapshot(records[-1], self.objectives)

    def update(self, stage: str, done: int, total: int, now: float) -> None:
        """Take up that ``done`` of ``total`` steps of ``stage`` are done."""
        if stage != self.stage or done < self.done:
            self._first = self._marked = (now, done)
        # Judging a generation takes another time than an epoch: only whole ones tell what one takes.
        unit = 1 + self.epochs if stage == "generations" else 1
        if (done - self._first[1]) % unit == 0 and done > self._marked[1]:
            self._marked = (now, done)
        self.stage, self.done, self.total, self._latest = stage, done, total, now

    def log(self, line: str) -> None:
        """Take up a message."""
        self.messages.append(line)

    @property
    def doing(self) -> str:
        """What is being done, as people say it."""
        if not self.stage:
            return "preparing"
        if self.stage == "warm-up":
            return f"warm-up, epoch {min(self.done + 1, self.total)} of {self.total}"
        if self.stage != "generations":
            return f"{self.stage}, {self.done} of {self.total}"
        if self.done >= self.total:
            return "judging the finalists"
        number, step = divmod(self.done, 1 + self.epochs)
        what = f"epoch {step} of {self.epochs}" if step else "judging"
        return f"generation {number + 1} of {self.generations}, {what}"

    @property
    def share(self) -> float:
        """The share of the stage that is done."""
        return self.done / self.total if self.total else 0.0

    def left(self, now: float) -> TimeLeft | None:
        """Return what is left of the stage at its pace so far; of the warm-up, with the epochs that follow it.

        Judging comes on top of those, so that it is the least then; and so it is within a first generation. What an
        earlier process has done took no time of this one. None where nothing is known yet.
        """
        warming, whole = self.stage == "warm-up", self._marked != self._first
        (began, before), (latest, done) = self._first, self._marked if whole else (self._latest, self.done)
        if done <= before or latest <= began or (self.done == self.total and not warming):
            return None
        to_do = self.total - done + (self.generations * self.epochs if warming else 0)
        seconds = to_do * (latest - began) / (done - before) - (now - latest)
        return TimeLeft(max(seconds, 1.0), at_least=warming or not whole)
