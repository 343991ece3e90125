"""The search compared with random search and with other strategies at the same cost."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

from markupsafe import Markup

from cars_hw.config.evaluated import shared_words, training_words
from cars_hw.report.curves import Curve, draw_curves
from cars_hw.report.data import ReportData
from cars_hw.report.plot import SMALL
from cars_hw.studies.strategy_comparison import STANDALONE, Generation, StrategyComparison, summary


def view(report: ReportData) -> dict[str, Any]:
    """Return each strategy's hypervolume at standalone accuracies, and its values by generation."""
    found = report.baselines
    if found is None:
        return {"found": None}
    most = f"{found.reference[1]:.4g} {found.unit}"
    # The populations of this strategy have no shared weights.
    mixed = STANDALONE in found.strategies
    alone = f", and for {STANDALONE} those after one epoch of training each network alone" if mixed else ""
    words = f"of the population ({STANDALONE}: trained)" if mixed else shared_words(report.classifier)
    return {
        "found": found,
        "verdict": verdict(found),
        "evaluated": training_words(0, report.classifier) + alone,
        "rows": [_row(found, name) for name in found.strategies],
        "plots": [
            _curves(found, lambda one: one.hypervolume, f"hypervolume {words}"),
            _curves(found, lambda one: one.spread, f"range of {found.cost}, {found.unit}"),
        ],
        "summaries": [f"{name}: {summary(name, report.classifier)}" for name in found.strategies],
        "seeds": f"{len(found.seeds)} seeds" if len(found.seeds) > 1 else f"seed {found.seeds[0]}",
        "trained": max(len(trial.networks) for trial in found.trials),
        "box": most if len(found.reference) == 2 else f"{most} (and the limits of the other costs)",
    }


def verdict(found: StrategyComparison) -> str:
    """Return a sentence that compares the run's own strategy with every other one, seed by seed."""
    compared = []
    for name in found.strategies:
        gaps = found.gaps(name)
        if name != found.own and gaps:
            above = sum(gap > 0 for gap in gaps)
            compared.append(f"above {name} in {above} of {len(gaps)} seeds ({mean(gaps):+.4f} on average)")
    return f"By standalone accuracy, the hypervolume of the search is {'; '.join(compared)}."


def _row(found: StrategyComparison, name: str) -> tuple[str, ...]:
    finals = [found.final(trial) for trial in found.of(name)]
    gaps = found.gaps(name) if name != found.own else []
    spread = mean(trial.generations[-1].spread for trial in found.of(name))
    return (
        name,
        f"{mean(finals):.4f}",
        f"{min(finals):.4f} to {max(finals):.4f}",
        f"{mean(gaps):+.4f}" if gaps else "",
        f"{spread:.4g} {found.unit}",
    )


def _curves(found: StrategyComparison, figure: Callable[[Generation], float], title: str) -> Markup:
    drawn = []
    for name in found.strategies:
        # All seeds of one strategy have equally many generations; strategies differ in their number.
        by_generation = list(
            zip(*([figure(one) for one in trial.generations] for trial in found.of(name)), strict=True)
        )
        points = [(number, mean(values)) for number, values in enumerate(by_generation, start=1)]
        band = [(min(values), max(values)) for values in by_generation] if name == found.own else []
        drawn.append(Curve(name, points, band))
    return draw_curves(drawn, "generation", title, SMALL)
