"""A front in print: its table, the states that its latencies are for, and the warning of the usual state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from cars_hw.cli.options import milliseconds, percent, print_table
from cars_hw.cli.verbosity import warn_of_quality
from cars_hw.config.evaluated import shared_adjective, training_words
from cars_hw.config.measurement import USUAL
from cars_hw.formatting import dominated_words, figure, printable, state_name
from cars_hw.pipeline.further_table import resolution_option
from cars_hw.space.network_spec import size_words

if TYPE_CHECKING:
    from cars_hw.pipeline.budget_use import BudgetUse, SizesEnd
    from cars_hw.pipeline.larger_networks import LargerNetworks
    from cars_hw.pipeline.latency_target import LatencyEstimate
    from cars_hw.pipeline.networks import FrontNetwork
    from cars_hw.space.network_spec import NetworkSpec
    from cars_hw.space.size_grid import SizeGrid


def print_front(front: Sequence[FrontNetwork], sizes: SizeGrid | None = None) -> None:
    """Print the front, a line a network, and the states of the machine that its latencies are for.

    The size of each network is told where sizes differ, and after a search over ``sizes``, which chose it.
    """
    devices = [estimate.device for estimate in front[0].latency_estimates] if front else []
    objective = front[0].objective.replace("-", " ") if front else "accuracy"
    specs = [network.spec for network in front]
    sized, size = sizes is not None or len(set(specs)) > 1, short_sizes(specs, sizes)
    training = "short training" if any(network.trained_epochs for network in front) else _evaluated(front)
    columns = ["network", *(["size"] if sized else []), f"{objective} ({training})", "95% interval"]
    costs = list(front[0].costs) if front else []
    columns += ["parameters", "multiply-adds", *(f"{name}{_unit(name)}" for name in costs)]
    for device in devices:
        columns += [f"latency on {device}", "in the usual state", "upper bound", "measured"]
    rows = [
        [
            network.name,
            *([size(network.spec)] if sized else []),
            percent(network.accuracy),
            _interval(network),
            f"{network.parameters:,}",
            f"{network.multiply_adds:,}",
            *(figure(network.costs[name]) for name in costs),
            *(
                text
                for estimate in network.latency_estimates
                for text in map(
                    milliseconds,
                    (estimate.predicted_ms, estimate.usual_ms, estimate.bound_ms, estimate.measured_ms),
                )
            ),
        ]
        for network in front
    ]
    print_table("Pareto front", columns, rows)
    dominated = dominated_words([network.name for network in front if network.dominated])
    for line in [*_images(front), *([dominated] if dominated else []), *_states(front)]:
        click.echo(printable(line))


def short_sizes(networks: Sequence[NetworkSpec], sizes: SizeGrid | None = None) -> Callable[[NetworkSpec], str]:
    """Return what makes the size of one of ``networks`` a cell of a table: ``24 ch, 9 cells (2+4+3)``.

    If they differ in their resolution, or the search was over ``sizes`` of several, it is told, too.
    """
    size = size_words(networks, always=sizes is not None and bool(sizes.resolutions))
    return lambda network: size(network).replace(" channels", " ch").replace(" pixels", "")


def _unit(name: str) -> str:
    """Return the unit of a cost behind its name; nothing where its plug-in is not installed."""
    from cars_hw.pipeline.costs import unit_of

    unit = unit_of(name)
    return f", {unit}" if unit else ""


def _evaluated(front: Sequence[FrontNetwork]) -> str:
    """Return the word for the classifier under shared weights: ``shared``, ``linear probe``."""
    classifier = front[0].classifier if front else None
    return shared_adjective(classifier or "shared").replace("-", " ")


def _interval(network: FrontNetwork) -> str:
    if network.validation is None:
        return "-"
    low, high = network.validation.interval(network.objective)
    return f"{percent(low)} to {percent(high)}"


def _images(front: Sequence[FrontNetwork]) -> list[str]:
    """Return a line on the images behind the accuracies, and one if networks may only have learnt a class."""
    counted = [network.validation for network in front if network.validation is not None]
    if not counted:
        return []
    training = training_words(front[0].trained_epochs, front[0].classifier or "shared")
    lines = [
        f"Accuracies are those {training} on {counted[0].total:,} validation images. These images chose "
        "the front, so its best accuracies are too high on average; cars-hw train gives the accuracies on test "
        "images."
    ]
    poor = sum(not one.beats_majority for one in counted)
    if poor:
        lines.append(
            f"{poor} of {len(front)} networks {'is' if poor == 1 else 'are'} not shown to be better than the most "
            f"frequent class as every image's answer, which is right for {percent(counted[0].majority_share)}."
        )
    return lines


def _states(front: Sequence[FrontNetwork]) -> list[str]:
    """Return a line for each device: the state of its latencies, the usual latency, the quality of its table."""
    lines = []
    for network, one in _slowest(front):
        line = (
            f"Latencies are those of {state_name(one.state)} of {one.device}"
            if one.limit_ms is None
            else f"The budget of {milliseconds(one.limit_ms)} holds in {state_name(one.state)} of {one.device}"
        )
        if one.usual_ms is not None:
            line += f"; in the usual state, {network.name}, the slowest, takes {milliseconds(one.usual_ms)}"
        if one.quality_warnings:
            line += f". Its latency table is unreliable: {'; '.join(one.quality_warnings)}"
        lines.append(f"{line}.")
    return lines


def print_budget_use(uses: Sequence[BudgetUse]) -> None:
    """Print how much of each budget is used, and why not more: which larger networks were tried."""
    for use in uses:
        click.echo(printable(use.sentence))
        if use.larger is not None:
            click.echo(printable(f"{use.larger.sentence}{more_training(use.larger)}."))
        if use.end is not None:
            click.echo(printable(f"{use.end_of_sizes}; {larger_sizes(use.end)}"))


def more_training(larger: LargerNetworks) -> str:
    """Return the option with which a search trains larger networks, or for longer; empty if they were tried."""
    if not larger.stage:
        return "; --final 0.3 trains larger networks"
    if larger.compared is None:
        return "; a larger --final trains more networks"
    return "; a larger --final trains them for longer" if larger.more_accurate else ""


def larger_sizes(end: SizesEnd) -> str:
    """Return the options that allow larger networks: of the table, or by another table."""
    if end.wider is None:
        return f"for larger ones, make a table with: {end.table_command}"
    wider = end.wider
    options = f"--channels {_option(wider.channels, 4)} --layers {_option(wider.layers, 1)}"
    if wider.resolutions:
        options += f" --resolution {_resolutions(wider.resolutions)}"
    return f"allow larger ones with {options}"


def _resolutions(resolutions: Sequence[tuple[int, int]]) -> str:
    """Return ``resolutions`` as the option takes them."""
    if all(height == width for height, width in resolutions):
        return _option([height for height, _ in resolutions], 4)
    return resolution_option(resolutions)


def _option(values: Sequence[int], step: int) -> str:
    """Return ``values`` as the option of a size takes them, whose ranges have this step: ``8..48``, ``8,16,20``."""
    if len(values) > 2 and list(values) == [*range(values[0], values[-1], step), values[-1]]:
        return f"{values[0]}..{values[-1]}"
    return ",".join(map(str, values))


def warn_of_usual(front: Sequence[FrontNetwork]) -> None:
    """Warn if networks of the front exceed a budget in the usual state of its device."""
    for index, (network, one) in enumerate(_slowest(front)):
        over = sum(other.latency_estimates[index].usually_over_limit for other in front)
        if over:
            warn_of_quality(
                f"in the usual state of {one.device}, {over} of {len(front)} networks exceed the budget of "
                f"{milliseconds(one.limit_ms)}: {network.name} takes {milliseconds(one.usual_ms)}. The budget "
                f"holds in {state_name(one.state)}; to hold it in the usual state, search with --state {USUAL}."
            )


def _slowest(front: Sequence[FrontNetwork]) -> list[tuple[FrontNetwork, LatencyEstimate]]:
    """Return for each device the network that is the slowest in the usual state, with its latency there."""
    devices = range(len(front[0].latency_estimates)) if front else ()
    found = []
    for index in devices:
        slowest = max(front, key=lambda network: _usual_ms(network.latency_estimates[index]))
        found.append((slowest, slowest.latency_estimates[index]))
    return found


def _usual_ms(one: LatencyEstimate) -> float:
    return one.predicted_ms if one.usual_ms is None else one.usual_ms
