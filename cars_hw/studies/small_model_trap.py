"""Figures 2 and 3 of the paper: does a population without protection lose its large networks?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import ClassVar, Final

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.codec import unstructure
from cars_hw.config.execution import HERE, Execution
from cars_hw.config.files import require_writable
from cars_hw.config.search import Protection
from cars_hw.config.training import Recipe
from cars_hw.errors import RunError
from cars_hw.executors.engine import require_engine
from cars_hw.executors.spread import Spread, spread
from cars_hw.formatting import figure, percent
from cars_hw.pipeline.objectives import cost_objectives
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.search_images import plan_data
from cars_hw.pipeline.supernet import supernet_spec
from cars_hw.progress import Log, Progress, no_log, prefixed, silent
from cars_hw.space.genotype import Genotype
from cars_hw.studies.learning_curves import LearningCurve, Training, learning_curve, three_sizes

TRAP: Final = ChecksummedFormat("cars-hw small-model trap", 1, "remake-study", RunError)

PLAIN: Final[Protection] = "none"

NAMES: Final[Mapping[Protection, str]] = {
    "none": "none (NSGA-III)",
    "size": "size",
    "speed": "speed",
    "both": "both",
}


@dataclass(frozen=True)
class Sizes:
    """What the population of a generation costs: least, median, most, their distance, standard deviation."""

    generation: int
    low: float
    median: float
    high: float
    spread: float
    deviation: float


@dataclass(frozen=True)
class Moved:
    """One search: its protection, its seed, and the sizes of its population after each generation."""

    protection: Protection
    seed: int
    sizes: tuple[Sizes, ...]

    PLAIN_NAMES: ClassVar = {"sizes": "generations"}
    DERIVED: ClassVar = ("kept",)

    @property
    def kept(self) -> float | None:
        """The last generation's spread as a fraction of the first's; None where the first had none."""
        first, last = self.sizes[0].spread, self.sizes[-1].spread
        return last / first if first > 0 else None


@dataclass(frozen=True)
class Trap:
    """What the experiment came to: all searches, and the learning curves. Costs are of ``cost``, in ``unit``."""

    cost: str
    unit: str
    searches: tuple[Moved, ...]
    curves: tuple[LearningCurve, ...]

    DERIVED: ClassVar = ("ratios", "verdict")

    @property
    def protections(self) -> list[Protection]:
        """The protections that were compared, plain NSGA-III first."""
        return list(dict.fromkeys(search.protection for search in self.searches))

    def spread(self, protection: Protection) -> float:
        """Return the spread after the last generation under ``protection``, the mean of all seeds."""
        return fmean(one.sizes[-1].spread for one in self.searches if one.protection == protection)

    def ratio(self, protection: Protection) -> float | None:
        """Return the last spread under ``protection`` divided by plain NSGA-III's; None where that has none."""
        plain = self.spread(PLAIN)
        return self.spread(protection) / plain if plain > 0 else None

    @property
    def ratios(self) -> dict[Protection, float | None]:
        """The :meth:`ratio` of every protection."""
        return {name: self.ratio(name) for name in self.protections if name != PLAIN}

    @property
    def verdict(self) -> list[str]:
        """What was found, in sentences."""
        return [self._trap(), *self._spreads(), self._learning()]

    def _trap(self) -> str:
        plain = [one for one in self.searches if one.protection == PLAIN]
        narrowed = all(one.sizes[-1].spread < one.sizes[0].spread for one in plain)
        others = [name for name in self.protections if name != PLAIN]
        wider = [name for name in others if self.spread(name) > self.spread(PLAIN)]
        narrows = "plain NSGA-III narrows the population"
        if narrowed and wider == others:
            found = f"The small-model trap appears: {narrows}, and every protection keeps it wider."
        elif narrowed and wider:
            kept = " and ".join(wider)
            found = f"The small-model trap appears in part: {narrows}, and only {kept} keeps it wider."
        elif narrowed:
            found = "Plain NSGA-III narrows the population, and no protection keeps it wider."
        else:
            found = "The small-model trap does not appear: plain NSGA-III keeps the range with some seed."
        return found + (" One seed does not exclude chance." if len(plain) == 1 else "")

    def _spreads(self) -> list[str]:
        last = self.searches[0].sizes[-1].generation
        told = []
        for name in self.protections:
            spread, ratio = f"{figure(self.spread(name))} {self.unit}", self.ratio(name)
            wider = "" if name == PLAIN or ratio is None else f", {ratio:.2f} times plain NSGA-III's"
            told.append(f"{spread} under {name}{wider}")
        return [f"After generation {last} the {self.cost} of a population span {'; '.join(told)}."]

    def _learning(self) -> str:
        told = [
            f"{curve.name} ({curve.parameters:,} parameters) {percent(curve.accuracies[0])} after the first epoch "
            f"and {percent(curve.accuracies[-1])} after the last"
            for curve in self.curves
        ]
        return f"Trained from scratch: {'; '.join(told)}."


def small_model_trap(
    plan: SearchPlan,
    out: Path,
    *,
    protections: Sequence[Protection] = ("size", "speed"),
    seeds: int = 1,
    recipe: Recipe | None = None,
    jobs: int | None = None,
    execution: Execution = HERE,
    progress: Progress = silent,
    log: Log = no_log,
) -> Trap:
    """Search by ``plan`` without protection and under each of ``protections``, and train three sizes from scratch.

    Searches differ in nothing but their protection and their seed, 0 to ``seeds`` - 1; each is a run folder below
    ``out``. The three networks are the smallest, the middle and the largest of 300 that are drawn; they have
    the SuperNet's channels and cells, and are trained by ``recipe`` (the preset's unless given). ``jobs`` searches
    and trainings are worked on side by side, on a CPU one a core by default, or by a cluster (``execution``). What
    is there is not done again, and what was interrupted resumes. The result is written to ``out`` as
    ``small-model-trap.json``.

    Raises:
        RunError: ``out`` was started with other settings.
        DatasetError: the data cannot be used, or does not fit the network.
        TrainingError: the loss of a network is no longer a number.
    """
    require_engine(execution)
    require_writable(out / "small-model-trap.json")
    objective = cost_objectives(plan)[0]
    searches = {
        f"{protection}-{seed}": with_protection(plan, protection, seed)
        for protection in dict.fromkeys((PLAIN, *protections))
        for seed in range(seeds)
    }
    spec = supernet_spec(plan, plan_data(plan, progress))
    networks = three_sizes(plan.space, spec, plan.seed)
    recipe = recipe or plan.preset.recipe
    tasks = [_Task(out, name, planned, None, recipe) for name, planned in searches.items()]
    tasks += [_Task(out, name, plan, genotype, recipe) for name, genotype in networks.items()]
    spread(_work, tasks, Spread(out, plan.device, jobs, execution), progress, log)
    moved = [
        Moved(planned.preset.evolution.protection, planned.seed, sizes_of(RunFolder(out / "searches" / name)))
        for name, planned in searches.items()
    ]
    # All are there, so that nothing is trained.
    curves = [_curve(_Task(out, name, plan, genotype, recipe)) for name, genotype in networks.items()]
    trap = Trap(objective.name, objective.unit, tuple(moved), tuple(curves))
    configured = unstructure(replace(configuration(plan), recipe=recipe))
    TRAP.write(out / "small-model-trap.json", {"configuration": configured, **unstructure(trap)})
    return trap


@dataclass(frozen=True)
class _Task:
    """A search by ``plan``, or the standalone training of ``genotype``."""

    out: Path
    name: str
    plan: SearchPlan
    genotype: Genotype | None
    recipe: Recipe


def _work(task: _Task, progress: Progress, log: Log) -> None:
    if task.genotype is not None:
        _curve(task, progress, log)
        return
    folder = task.out / "searches" / task.name
    run_search(
        task.plan,
        folder,
        resume=(folder / "run.json").is_file(),
        progress=prefixed(progress, task.name),
        log=no_log,
    )


def _curve(
    task: _Task,
    progress: Progress = silent,
    log: Log = no_log,
) -> LearningCurve:
    assert task.genotype is not None
    data = plan_data(task.plan)
    training = Training(supernet_spec(task.plan, data), data, task.recipe, task.plan.seed, task.plan.device)
    return learning_curve(task.name, task.genotype, training, task.out / "curves", progress=progress, log=log)


def with_protection(plan: SearchPlan, protection: Protection, seed: int) -> SearchPlan:
    """Return ``plan`` with another protection and another seed."""
    evolution = replace(plan.preset.evolution, protection=protection)
    return replace(plan, seed=seed, preset=replace(plan.preset, evolution=evolution))


def sizes_of(run: RunFolder) -> tuple[Sizes, ...]:
    """Return the sizes of the population after each generation of ``run``, by its first cost."""
    found = []
    for record in run.history():
        costs = [float(member["costs"][0]) for member in record["population"]]
        low, high = min(costs), max(costs)
        found.append(Sizes(record["generation"], low, median(costs), high, high - low, pstdev(costs)))
    return tuple(found)


def rows_of(trap: Trap) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of the searches as text."""
    first, last = trap.searches[0].sizes[0].generation, trap.searches[0].sizes[-1].generation
    columns = [
        "protection, seed",
        f"range, generation {first}",
        f"range, generation {last}",
        "kept",
        f"standard deviation, {last}",
        "relative to none",
    ]
    plain = {one.seed: one.sizes[-1].spread for one in trap.searches if one.protection == PLAIN}
    rows = []
    for one in trap.searches:
        beside = plain[one.seed]
        rows.append(
            [
                f"{NAMES[one.protection]}, {one.seed}",
                f"{figure(one.sizes[0].spread)} {trap.unit}",
                f"{figure(one.sizes[-1].spread)} {trap.unit}",
                percent(one.kept, 0),
                f"{figure(one.sizes[-1].deviation)} {trap.unit}",
                f"{one.sizes[-1].spread / beside:.2f}" if beside > 0 else "no range to compare with",
            ]
        )
    return columns, rows
