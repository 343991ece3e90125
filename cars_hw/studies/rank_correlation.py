"""Is the SuperNet right? Accuracy under shared weights against accuracy trained alone, for a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from cars_hw.config.training import Recipe
from cars_hw.errors import InputError
from cars_hw.evolution.checkpoint import supernet_weights
from cars_hw.evolution.objectives import feasible
from cars_hw.latency.validation import kendall_tau
from cars_hw.pipeline.plan import DataSource, SearchPlan, plan_of, recipe_of
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import cost_objectives, load_data, supernet_weights_of
from cars_hw.pipeline.train import choose, train_run
from cars_hw.pipeline.workers import Log, Progress
from cars_hw.space.genotype import Genotype

FILE: Final = "ranking.json"

MINIMUM: Final = 4
"""Architectures that an order needs."""

TRIES: Final = 10_000
"""So many are drawn in search of those that keep to the budgets."""


@dataclass(frozen=True)
class Ranked:
    """One architecture with two accuracies, fractions: under the shared weights, on the validation images, and
    trained alone, on the test images. ``again`` is the latter of a second training, with another seed, where there
    was one. ``name`` is the front's, or begins with ``random``.
    """

    name: str
    genotype: Genotype
    shared: float
    standalone: float
    again: float | None = None

    @property
    def drawn(self) -> bool:
        """Whether it was drawn at random, and is not of the front."""
        return self.name.startswith("random")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "genotype": self.genotype.to_dict()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Ranked:
        """Build it from :meth:`to_dict`'s form; KeyError or TypeError where it is not that."""
        return cls(**{**value, "genotype": Genotype.from_dict(value["genotype"])})


@dataclass(frozen=True)
class Ranking:
    """What a sample came to. ``tau`` is Kendall's, None where either accuracy is the same for all."""

    networks: tuple[Ranked, ...]
    recipe: dict[str, Any]

    @property
    def tau(self) -> float | None:
        """Kendall's tau: 1 where both orders are the same, 0 where one says nothing of the other."""
        if not self.networks:
            return None
        return kendall_tau([one.shared for one in self.networks], [one.standalone for one in self.networks])

    @property
    def agreement(self) -> float | None:
        """Kendall's tau between two trainings of the same networks; None where they were trained once.

        It is what an order as good as a training itself would reach.
        """
        again = [one.again for one in self.networks if one.again is not None]
        if not again or len(again) < len(self.networks):
            return None
        return kendall_tau([one.standalone for one in self.networks], again)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "tau": self.tau,
            "agreement": self.agreement,
            "recipe": self.recipe,
            "networks": [one.to_dict() for one in self.networks],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Ranking:
        """Build it from :meth:`to_dict`'s form; KeyError or TypeError where it is not that."""
        return cls(tuple(Ranked.from_dict(one) for one in value["networks"]), dict(value["recipe"]))


def rank_run(
    run: RunFolder,
    *,
    data: DataSource,
    sample: int = 20,
    twice: bool = False,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str = "cpu",
    jobs: int | None = None,
    progress: Progress = lambda _name, _done, _total: None,
    log: Log = lambda _line: None,
) -> Ranking:
    """Train ``sample`` architectures of ``run`` alone, from scratch, and hold them against their shared accuracies.

    Half of them are spread over the front, the others are drawn at random among those that keep to the budgets.
    All are trained as the SuperNet is: with its channels and cells, on the search's data, by ``recipe`` (the run's
    unless given); with ``twice`` once more with the seed that follows. What was trained already with the same
    settings is not trained again. The result is written to the run. With a sample of 0 nothing is trained, and the
    report says that it was not asked for.

    Raises:
        InputError: a sample of 1 to 3, or fewer than 4 that keep to the budgets.
        RunError: the run has no front yet, or no weights.
        DatasetError: the data cannot be used.
    """
    if sample == 0:
        run.write_record(FILE, Ranking((), {}).to_dict())
        return Ranking((), {})
    plan = plan_of(run, data, device)
    bundle = load_data(plan)
    chosen = [(network.name, network.genotype) for network in choose(run.front(), sample // 2)]
    known = {genotype.key() for _, genotype in chosen}
    # Fewer where hardly any architecture keeps to the budgets.
    for number, genotype in enumerate(_drawn(plan, sample - len(chosen), known, seed), start=1):
        chosen.append((f"random-{number:02d}", genotype))
    if len(chosen) < MINIMUM:
        raise InputError(f"an order needs at least {MINIMUM} architectures; there are {len(chosen)}")
    weights = supernet_weights_of(plan, bundle)
    weights.supernet.load_state_dict(supernet_weights(run.checkpoint))
    shared = weights.accuracies([genotype for _, genotype in chosen], full=True)
    standalone = RunFolder(run.path / "ranking")
    # A run of its own, whose networks are the SuperNet's size.
    configuration = {**run.configuration, "network": weights.supernet.spec.to_dict()}
    if (standalone.path / "run.json").is_file():
        standalone.require(configuration)
    else:
        standalone = RunFolder.create(standalone.path, configuration, run.about)
    recipe = recipe or recipe_of(run)

    def train(seed: int, suffix: str) -> list[float]:
        """Return the accuracies of all, trained with ``seed`` and kept under names with ``suffix``."""
        trained = train_run(
            standalone,
            data=data,
            chosen=[(name + suffix, genotype) for name, genotype in chosen],
            recipe=recipe,
            seed=seed,
            device=device,
            jobs=jobs,
            inherit=False,
            progress=progress,
            log=log,
        )
        accuracy = {network.name: network.accuracy for network in trained}
        return [accuracy[name + suffix] for name, _ in chosen]

    once = train(seed, "")
    again = train(seed + 1, "-again") if twice else [None] * len(chosen)
    networks = [
        Ranked(name, genotype, accuracy, first, second)
        for (name, genotype), accuracy, first, second in zip(chosen, shared, once, again, strict=True)
    ]
    ranking = Ranking(tuple(networks), asdict(recipe))
    run.write_record(FILE, ranking.to_dict())
    return ranking


def read_ranking(run: RunFolder) -> Ranking | None:
    """Return what :func:`rank_run` has written, None before.

    Raises:
        RunError: the file is damaged.
    """
    return run.record(FILE, Ranking.from_dict)


def _drawn(plan: SearchPlan, count: int, known: set[Any], seed: int) -> list[Genotype]:
    """Return random architectures that keep to the budgets; fewer where hardly any do."""
    # Not the search's own random numbers: those architectures have been trained on.
    rng = np.random.default_rng((seed, 1))
    objectives = cost_objectives(plan)
    found: list[Genotype] = []
    for _ in range(TRIES):
        if len(found) == count:
            break
        genotype = plan.space.sample(rng)
        if genotype.key() not in known and feasible(objectives, genotype):
            known.add(genotype.key())
            found.append(genotype)
    return found


def spread(networks: Sequence[Ranked]) -> float:
    """Return the range of the accuracies trained alone, a fraction: an order means little where it is small."""
    accuracies = [one.standalone for one in networks]
    return max(accuracies) - min(accuracies)
