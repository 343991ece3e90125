"""``--within`` of ``cars-hw search``: the length of the search is chosen by the estimate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import given_paths
from cars_hw.cli.verbosity import note
from cars_hw.config.units import format_seconds

if TYPE_CHECKING:
    from cars_hw.pipeline.estimate import Estimate
    from cars_hw.pipeline.plan import SearchPlan


class Chosen(NamedTuple):
    """A plan whose length was chosen for a time, and its estimate."""

    plan: SearchPlan
    estimate: Estimate


def choose_length(plan: SearchPlan, seconds: float, jobs: int | None) -> Chosen:
    """Return ``plan`` with its length chosen so that it takes ``seconds`` at most, and say what was chosen.

    Raises:
        InputError: no useful search fits, or there is nothing to choose.
    """
    from cars_hw.child_processes import launched
    from cars_hw.pipeline.pace import measure_pace
    from cars_hw.pipeline.within import WARM_UP, describe_choice, fit_within

    if launched() > 1:
        raise click.UsageError(
            "--within estimates a search in one process: choose the length with --dry-run --within in one process, "
            "and give the options that it prints"
        )
    with Bars() as bars:
        pace = measure_pace(plan, jobs, final=True, progress=bars.update)
    # The warm-up of a search from trained weights does not follow from its length.
    kept = {WARM_UP} if plan.from_run is not None else set()
    fitted = fit_within(plan, seconds, pace, given_paths() | kept)
    for line in describe_choice(fitted, pace):
        note(line)
    return Chosen(fitted.plan, fitted.estimate)


def _epochs(number: int) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"


def shorten(plan: SearchPlan, *, keep_generations: bool) -> SearchPlan:
    """Return ``plan`` with the defaults of a search that starts from trained weights, and say what they are.

    With ``keep_generations`` the length is chosen afterwards.

    Raises:
        RunError: the run that it starts from cannot be read, or does not fit.
    """
    from cars_hw.pipeline.from_run import shortened

    found = shortened(plan, given_paths(), keep_generations=keep_generations)
    before, now = plan.preset.evolution, found.preset.evolution
    rates = [one.preset.training.learning_rate for one in (plan, found)]
    changes = [f"{_epochs(now.epochs)} instead of {before.epochs}"] if now.epochs != before.epochs else []
    if keep_generations:
        # The number of epochs is chosen afterwards.
        changes = []
    if now.warmup_epochs != before.warmup_epochs:
        changes.append(f"{_epochs(now.warmup_epochs)} of warm-up instead of {before.warmup_epochs}")
    elif "evolution.warmup_epochs" not in given_paths():
        changes.append(f"{_epochs(now.warmup_epochs)} of warm-up")
    if rates[0] != rates[1]:
        changes.append(f"a learning rate of {rates[1]:g} instead of {rates[0]:g}")
    if changes:
        note(f"The search starts from trained weights: {', '.join(changes)}.")
    return found


def chosen_before(plan: SearchPlan, seconds: float | None, out: Path) -> SearchPlan:
    """Return ``plan`` with the length that was chosen when the search in ``out`` began.

    Raises:
        RunError: the run cannot be read.
    """
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.pipeline.within import as_chosen

    found = as_chosen(plan, RunFolder.open(out), given_paths())
    if seconds is not None and found.time is None:
        note("The search began without --within, and keeps its length.")
    elif seconds is not None and found.time is not None and found.time.within != seconds:
        note(f"The search keeps the length that was chosen for {format_seconds(found.time.within)} when it began.")
    return found
