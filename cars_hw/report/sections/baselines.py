"""Whether the search was better than random search and than other strategies at the same cost."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

from cars_hw.report.curves import Curve, draw_curves, key
from cars_hw.report.data import ReportData
from cars_hw.report.markup import Html, join, table, tag, text
from cars_hw.report.plot import SMALL
from cars_hw.studies.strategy_comparison import Generation, StrategyComparison, summary


def section(report_data: ReportData) -> Html:
    """Return each strategy's hypervolume at trained accuracies, and how it came about over the generations."""
    found = report_data.baselines
    if found is None:
        return tag(
            "p",
            text("Not compared: no other strategy has searched at the same cost. "),
            tag("code", f"cars-hw baselines {report_data.name}"),
            text(" does it."),
        )
    trained = max(len(trial.networks) for trial in found.trials)
    note = (
        f"Each strategy searched with {_seeds(found)}, with the same epochs, generations, numbers of architectures "
        f"and budgets. Up to {trained} networks of each front were then trained alone, from scratch, for "
        f"{found.recipe.epochs} epochs. Hypervolume is the share of the box between nothing and an error of "
        f"{100 * found.reference[0]:.1f}% at {_box(found)} that a front dominates: larger is better. Under shared "
        "weights the box reaches to an error of 100%, and the population of each generation counts. Lines are "
        "means over seeds; the band is the range of the run's own."
    )
    plots = tag(
        "div",
        tag("figure", _curves(found, lambda one: one.hypervolume, "hypervolume under shared weights")),
        tag("figure", _curves(found, lambda one: one.spread, f"range of {found.cost}, {found.unit}")),
        class_="trends",
    )
    return join(
        [
            tag("p", verdict(found)),
            _figures(found),
            plots,
            key(found.strategies, [f"{name}: {summary(name)}" for name in found.strategies]),
            tag("p", note, class_="note"),
        ]
    )


def verdict(found: StrategyComparison) -> str:
    """Return in words against whom the run's own strategy held, front against front, seed by seed."""
    told = []
    for name in found.strategies:
        gaps = found.gaps(name)
        if name != found.own and gaps:
            above = sum(gap > 0 for gap in gaps)
            told.append(f"above {name} in {above} of {len(gaps)} seeds ({mean(gaps):+.4f} on average)")
    return f"At trained accuracies the search's hypervolume is {'; '.join(told)}."


def _seeds(found: StrategyComparison) -> str:
    return f"{len(found.seeds)} seeds" if len(found.seeds) > 1 else f"seed {found.seeds[0]}"


def _box(found: StrategyComparison) -> str:
    most = f"{found.reference[1]:.4g} {found.unit}"
    return most if len(found.reference) == 2 else f"{most} (and the other costs' limits)"


def _figures(found: StrategyComparison) -> Html:
    rows = []
    for name in found.strategies:
        finals = [found.final(trial) for trial in found.of(name)]
        last = [trial.generations[-1] for trial in found.of(name)]
        gaps = found.gaps(name) if name != found.own else []
        rows.append(
            [
                name,
                f"{mean(finals):.4f}",
                f"{min(finals):.4f} to {max(finals):.4f}",
                f"{mean(gaps):+.4f}" if gaps else "",
                f"{mean(one.spread for one in last):.4g} {found.unit}",
            ]
        )
    columns = ("strategy", "hypervolume", "over the seeds", "own is above by", "range at the end")
    return table(columns, rows, "The strategies at the same cost, fronts trained alone")


def _curves(found: StrategyComparison, figure: Callable[[Generation], float], title: str) -> Html:
    drawn = []
    for name in found.strategies:
        # All seeds of a strategy have as many generations; without weight sharing they are fewer than elsewhere.
        by_generation = list(
            zip(*([figure(one) for one in trial.generations] for trial in found.of(name)), strict=True)
        )
        points = [(number, mean(values)) for number, values in enumerate(by_generation, start=1)]
        band = [(min(values), max(values)) for values in by_generation] if name == found.own else []
        drawn.append(Curve(name, points, band))
    return draw_curves(drawn, "generation", title, SMALL)
