"""Algorithm 1 of CARS: parameters and architectures are optimised in turn, and one search gives a front."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cars_hw.config.codec import structure, unstructure
from cars_hw.config.evaluation import ClassCounts, SearchObjective
from cars_hw.config.search import EvolutionSettings
from cars_hw.errors import BudgetError, RunError
from cars_hw.evolution.hypervolume import hypervolume
from cars_hw.evolution.objectives import CostObjective, feasible
from cars_hw.evolution.pnsga3 import ObjectiveNormalization, pareto_front, reference_directions, survive
from cars_hw.evolution.population import CostScale, Finalist, Member, gains, objective_rows, quality
from cars_hw.evolution.variation import offspring
from cars_hw.progress import Progress, silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.fair_draws import FairDraws
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.widening import widened

M = TypeVar("M", bound=Member)

SAME_COST = 1e-6
"""Costs that differ by more than this fraction are different: sums are rounded in other ways elsewhere."""


class SharedWeights(Protocol):
    """The SuperNet as the search uses it: it trains architectures and evaluates them."""

    @property
    def trains(self) -> bool:
        """Whether there is something to train. Otherwise the search has generations only."""

    def train(self, draw: Callable[[int], Sequence[Architecture]]) -> float:
        """Train one epoch and return the mean loss; ``draw(B)`` returns the architectures of a step."""

    def remember(self) -> None:
        """Keep the present weights as those of the previous generation."""

    def counts(
        self, architectures: Sequence[Architecture], *, before: bool = False, full: bool = False
    ) -> list[ClassCounts]:
        """Return what each of ``architectures`` gets right of each class, all on the same batches in one order.

        The counts have a ``loss``, if the objective of the search is the loss.

        ``before`` evaluates under the remembered weights; ``full`` uses all validation images instead of the
        subset.
        """

    def state(self) -> dict[str, Any]:
        """Return the state for a resumed search: tensors and plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state` returned."""


def without_clones(members: Sequence[M], least: int, objective: SearchObjective = "accuracy") -> list[M]:
    """Return ``members`` without those that equal an earlier one in :func:`quality` and in every cost.

    Two architectures can be one network, for example with the edges of a node in another order. At least ``least``
    members are returned, clones in their order included if necessary.
    """
    seen: set[tuple[float, ...]] = set()
    first: list[M] = []
    clones: list[M] = []
    for member in members:
        alike = (quality(member.accuracy, member.loss, objective), *member.costs)
        (clones if alike in seen else first).append(member)
        seen.add(alike)
    return first + clones[: max(0, least - len(first))]


class Search:
    """One search: its population, its random state and its progress.

    The state is complete after each unit of work (an epoch of warm-up, a generation). A search that is restored
    from it gives the same results as one without an interruption.
    """

    def __init__(
        self,
        space: ArchitectureSpace,
        objectives: Sequence[CostObjective],
        weights: SharedWeights,
        settings: EvolutionSettings,
        *,
        seed: int,
        anchor: Architecture | None = None,
        first: Sequence[Architecture] = (),
    ) -> None:
        """Prepare a search; ``anchor``, an architecture that keeps to every limit, is required with a limit.

        ``first`` are among the first architectures; they must keep to every limit.
        """
        if not objectives:
            raise ValueError("a search needs at least one cost beside the error")
        limited = any(objective.limit is not None for objective in objectives)
        if limited and (anchor is None or not feasible(objectives, anchor)):
            uppers = () if anchor is None else tuple(objective.upper(anchor) for objective in objectives)
            raise BudgetError("no architecture that keeps to the budget is known", uppers)
        self.space = space
        self.objectives = tuple(objectives)
        self.weights = weights
        self.settings = settings
        self.anchor = anchor
        self.first = list(first)
        self.rng = np.random.default_rng(seed)
        self.directions = reference_directions(1 + len(objectives), settings.population)
        self.normalization = ObjectiveNormalization(1 + len(objectives))
        self.population: list[Member] = []
        self.history: list[dict[str, Any]] = []
        self.warmed_up = 0
        self.generation = 0
        # What draws from the space, or in the warm-up from a part of it.
        self._fair = FairDraws(space) if settings.draws == "fair" else None
        self._drawn_space = space
        # How costs are compared; known from the first candidates on.
        self.scales: list[CostScale] = []
        # Of the last candidates, by the architecture's key.
        self._counts: dict[Any, ClassCounts] = {}

    @property
    def finished(self) -> bool:
        """Whether all generations are done."""
        return self.generation >= self.settings.generations

    def run(self, checkpoint: Callable[[], None] = lambda: None, progress: Progress = silent) -> list[Finalist]:
        """Run the rest of the search and return the finalists, see :meth:`finalists`.

        ``checkpoint`` is called after each unit of work, when the state is complete.
        """
        settings = self.settings
        while self.weights.trains and self.warmed_up < settings.warmup_epochs:
            progress("warm-up", self.warmed_up, settings.warmup_epochs)
            self.warm_up()
            checkpoint()
        if self.weights.trains and settings.warmup_epochs:
            progress("warm-up", settings.warmup_epochs, settings.warmup_epochs)
        while not self.finished:
            self.evolve(progress)
            checkpoint()
        progress("generations", self.steps, self.steps)
        return self.finalists()

    @property
    def steps(self) -> int:
        """The number of steps that progress counts: each generation's architecture step and its epochs."""
        return self.settings.generations * (1 + self._epochs)

    @property
    def _epochs(self) -> int:
        """The epochs of a generation."""
        return self.settings.epochs_per_generation if self.weights.trains else 0

    def warm_up(self) -> None:
        """Train one epoch on architectures that are drawn uniformly (CARS, section 4.1).

        With a ``widening``, the first epochs draw from a part of the space; the last one always has all of it.
        """
        settings = self.settings
        self._drawn_space = widened(self.space, settings.widening, self.warmed_up, settings.warmup_epochs)
        if self._fair is not None:
            self._fair.space = self._drawn_space
        # The gain of the first generation is measured from weights that are one generation older.
        if self.warmed_up == max(0, settings.warmup_epochs - settings.epochs_per_generation):
            self.weights.remember()
        self.weights.train(self._drawn_from_space)
        self.warmed_up += 1

    def evolve(self, progress: Progress = silent) -> None:
        """Run one generation: an architecture step, then the parameter steps."""
        done = self.generation * (1 + self._epochs)
        progress("generations", done, self.steps)
        candidates = self.candidates()
        self.population = self.select(candidates)
        self.weights.remember()
        losses = []
        for epoch in range(self._epochs):
            progress("generations", done + 1 + epoch, self.steps)
            losses.append(self.weights.train(self.draw))
        self.generation += 1
        self.history.append(self._record(candidates, losses))

    def candidates(self) -> list[Member]:
        """Return parents and offspring, all evaluated under the present weights."""
        parents = [member.architecture for member in self.population]
        children = self._offspring(parents, self.settings.population) if parents else self._first()
        evaluated = parents + children
        counts = self.weights.counts(evaluated)
        self._counts = {architecture.key(): one for architecture, one in zip(evaluated, counts, strict=True)}
        qualities = [self._quality(one) for one in counts]
        earlier = [quality(one.accuracy, one.loss, self.settings.objective) for one in self.population]
        if self.settings.protection in ("speed", "both"):
            earlier += map(self._quality, self.weights.counts(children, before=True))
        else:
            earlier += qualities[len(parents) :]
        return [
            Member(*architecture, self._costs(architecture), self._score(one), now - before, one.loss)
            for architecture, one, now, before in zip(evaluated, counts, qualities, earlier, strict=True)
        ]

    def select(self, candidates: Sequence[Member]) -> list[Member]:
        """Return the survivors by pNSGA-III; only the first of clones where there are enough others."""
        candidates = without_clones(candidates, self.settings.population, self.settings.objective)
        if not self.scales:
            self.scales = [self._scale(index, candidates) for index in range(len(self.objectives))]
        rows = survive(
            self._rows(candidates),
            gains(candidates),
            self.settings.population,
            self.settings.protection,
            reference_directions=self.directions,
            normalization=self.normalization,
            random_state=self.rng,
        )
        return [candidates[row] for row in rows]

    def _scale(self, index: int, candidates: Sequence[Member]) -> CostScale:
        """Return how the cost with this index is compared, in multiples of its limit or else of the most expensive.

        Over sizes costs differ by factors, so that their logarithms are compared, from the cheapest candidate on:
        then the reference directions ask for networks everywhere between the cheapest and the limit.
        """
        objective = self.objectives[index]
        costs = [member.costs[index] for member in candidates]
        most = objective.limit or max(costs) or 1.0
        least = objective.at_least or min(costs)
        if self.space.sizes is None or not 0 < least < most:
            return CostScale(most)
        return CostScale(most, least)

    def draw(self, count: int) -> list[Architecture]:
        """Draw ``count`` architectures (B of Eq. 3) from the population, without replacement, or from the space."""
        share = self.settings.uniform_draws
        foreign = count if share == 1 else int(self.rng.binomial(count, share)) if share else 0
        wanted = min(count - foreign, len(self.population))
        chosen = self.rng.choice(len(self.population), size=wanted, replace=False)
        drawn = [self.population[int(index)].architecture for index in chosen]
        return drawn + self._drawn_from_space(foreign)

    def _drawn_from_space(self, count: int) -> list[Architecture]:
        source = self._drawn_space if self._fair is None else self._fair
        return [source.sample(self.rng) for _ in range(count)]

    def finalists(self) -> list[Finalist]:
        """Return the candidates for the front, evaluated under the final weights on all validation images.

        The search ends with an architecture step: the candidates are the population, which the last parameter steps
        have trained, and its offspring. All keep to every limit.
        """
        architectures = [member.architecture for member in self.population]
        # Twice as many as in a generation: each costs one evaluation, and the front becomes denser.
        architectures += self._offspring(architectures, 2 * self.settings.population)
        counts = self.weights.counts(architectures, full=True)
        final = [
            Finalist(*architecture, self._costs(architecture), self._score(one), loss=one.loss, validation=one)
            for architecture, one in zip(architectures, counts, strict=True)
        ]
        return without_clones(final, 1, self.settings.objective)

    def front(self, members: Sequence[M]) -> list[M]:
        """Return those of ``members`` (at least one) that no other dominates, cheapest first.

        They are compared as in the selection. Members without a loss, such as trained networks, are compared by
        their accuracy.
        """
        best = pareto_front(self._rows(members))
        return sorted((members[row] for row in best), key=lambda member: (member.costs, -member.accuracy))

    def state(self) -> dict[str, Any]:
        """Return the state of the search in JSON's types, without that of the weights."""
        return {
            "warmed_up": self.warmed_up,
            "generation": self.generation,
            "population": unstructure(self.population),
            "history": self.history,
            "scales": unstructure(self.scales),
            "rng": self.rng.bit_generator.state,
            "normalization": self.normalization.state(),
            **(
                {"first": [[one.genotype.to_dict(), unstructure(one.network)] for one in self.first]}
                if self.first
                else {}
            ),
            **({} if self._fair is None else {"fair_draws": self._fair.state()}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state` returned.

        Raises:
            RunError: a cost of the population is another now, as with a changed function of the user's.
        """
        self.warmed_up = state["warmed_up"]
        self.generation = state["generation"]
        self.population = list(structure(state["population"], tuple[Member, ...], "checkpoint"))
        for member in self.population:
            self._require_costs(member)
        self.history = list(state["history"])
        self.scales = list(structure(state["scales"], tuple[CostScale, ...], "checkpoint"))
        self.rng.bit_generator.state = state["rng"]
        self.normalization = ObjectiveNormalization.restore(state["normalization"])
        self.first = [
            Architecture(Genotype.from_dict(genotype), structure(network, NetworkSpec, "checkpoint"))
            for genotype, network in state.get("first", [])
        ]
        if self._fair is not None:
            self._fair.restore(state["fair_draws"])

    def _require_costs(self, member: Member) -> None:
        for objective, before in zip(self.objectives, member.costs, strict=True):
            now = objective.value(member.architecture)
            if not math.isclose(now, before, rel_tol=SAME_COST):
                raise RunError(
                    f"the {objective.name} of a network is {now:g} {objective.unit} and was {before:g} before the "
                    "search was interrupted; what computes it has changed, so its costs cannot be compared"
                )

    def _offspring(self, parents: Sequence[Architecture], count: int) -> list[Architecture]:
        return offspring(
            parents,
            count,
            self.space,
            self.settings.rates,
            self.rng,
            allowed=lambda architecture: feasible(self.objectives, architecture),
            anchor=self.anchor,
        )

    def _first(self) -> list[Architecture]:
        """Return the first architectures: ``first`` and random ones; over sizes also the cheapest that is known.

        Random draws are far from the cheapest, and a front begins there.
        """
        wanted = 2 * self.settings.population
        cheapest = [] if self.anchor is None or self.space.sizes is None else [self.anchor]
        begun = {one.key(): one for one in [*cheapest, *self.first]}
        drawn = self._offspring([], wanted - len(begun))
        return [*begun.values(), *(one for one in drawn if one.key() not in begun)]

    def _score(self, counts: ClassCounts) -> float:
        """Return the accuracy that is shown."""
        return counts.score(self.settings.printed_accuracy)

    def _quality(self, counts: ClassCounts) -> float:
        """Return the figure that the search maximises."""
        return quality(self._score(counts), counts.loss, self.settings.objective)

    def _rows(self, members: Sequence[Member]) -> NDArray[np.float64]:
        known = all(member.loss is not None for member in members)
        objective = self.settings.objective if known else self.settings.printed_accuracy
        return objective_rows(members, self.scales, objective)

    def _costs(self, architecture: Architecture) -> tuple[float, ...]:
        return tuple(objective.value(architecture) for objective in self.objectives)

    def _record(self, candidates: Sequence[Member], losses: Sequence[float]) -> dict[str, Any]:
        rows = self._rows(self.population)
        best = max(self.population, key=lambda member: (member.accuracy, -member.costs[0]))
        return {
            "generation": self.generation,
            "candidates": len(candidates),
            "loss": float(np.mean(losses)) if losses else None,
            "best_accuracy": best.accuracy,
            "best_counts": unstructure(self._counts[best.architecture.key()]),
            # The reference point is an error of 1 at the scale of every cost.
            "hypervolume": hypervolume(rows, np.ones(rows.shape[1])),
            "population": unstructure(self.population),
        }
