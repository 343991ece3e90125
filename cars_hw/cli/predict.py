"""``cars-hw predict``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cars_hw.cli.model_argument import GENOTYPE_OR_MODEL, GenotypeOrModel
from cars_hw.cli.options import (
    describe_states,
    describe_sustained,
    json_option,
    milliseconds,
    percent,
    print_json,
    print_table,
    warn_of_noise,
)
from cars_hw.cli.settings import settings_options
from cars_hw.cli.verbosity import strict_option
from cars_hw.config.measurement import SUSTAINED
from cars_hw.config.units import in_milliseconds
from cars_hw.errors import BudgetError, InputError
from cars_hw.formatting import state_name
from cars_hw.pipeline.device_settings import PredictSettings
from cars_hw.space.architecture import Architecture

if TYPE_CHECKING:
    from cars_hw.cli.outputs import PredictOutput
    from cars_hw.latency import LatencyTable, Predictor
    from cars_hw.pipeline.latency_target import LatencyTarget
    from cars_hw.space.architecture_space import ArchitectureSpace
    from cars_hw.space.network_spec import NetworkSpec


@click.command("predict")
@settings_options(
    PredictSettings, "table", "channels", "layers", "resolution", "level", "state", "quantile", "at_most_ms"
)
@strict_option
@json_option
@click.argument("genotypes", metavar="[GENOTYPE|MODEL]...", type=GENOTYPE_OR_MODEL, nargs=-1)
def command(settings: PredictSettings, as_json: bool, genotypes: tuple[GenotypeOrModel, ...]) -> None:
    """Predict latencies from a table.

    For each GENOTYPE, the command prints the latency, its upper bound, the latency in the usual state, that in the
    sustained state if the table has it, and the share of each part of the network. A MODEL is a file that
    `cars-hw export` wrote: its card has the genotype and the size. With --at-most, the command ends with exit
    code 3 if an upper bound is above that latency.

    Without a GENOTYPE, the command prints the smallest upper bound of all networks that a search can propose, and
    quantiles of the upper bounds of random networks. With a table over sizes, these networks have any size of the
    table, unless --channels, --layers and --resolution choose one.
    """
    import numpy as np

    from cars_hw.latency import LatencyTable, fastest_genotype
    from cars_hw.pipeline.latency_target import LatencyTarget

    if genotypes and settings.quantile is not None:
        raise click.UsageError("--quantile is one of random networks: give it without a GENOTYPE")
    if settings.at_most_ms is not None and not genotypes:
        raise click.UsageError("--at-most is for networks: give a GENOTYPE or a MODEL")
    table = LatencyTable.read(settings.table)
    warn_of_noise(table, settings.table)
    target = LatencyTarget(table, level=settings.level, state=settings.state)
    if genotypes:
        records = [_prediction(target, one, settings) for one in genotypes]
        _print_predictions(target, records, as_json)
        _require_at_most(target, records)
        return
    space, rng = _space(table, settings), np.random.default_rng(0)
    bounds = [target.predict(space.sample(rng)).bound_ms for _ in range(1000)]
    if settings.quantile is not None:
        ms = float(np.quantile(bounds, settings.quantile))
        if as_json:
            from cars_hw.cli.outputs import QuantileOutput

            print_json(QuantileOutput(settings.quantile, ms, **_about(target, space.largest)))
        else:
            click.echo(f"{ms:.4g}ms")
        return
    smallest = target.predictor_of(space.smallest)
    found = {"smallest": smallest.bound(fastest_genotype(space.cells_for(space.smallest), smallest.bound, rng))}
    found |= {f"{share}% of random": float(np.quantile(bounds, share / 100)) for share in (10, 50, 90)}
    if as_json:
        from cars_hw.cli.outputs import BoundsOutput

        print_json(BoundsOutput(found, **_about(target, space.largest), sizes=space.sizes))
        return
    print_table("Upper bounds", ("networks", "latency"), [(name, milliseconds(ms)) for name, ms in found.items()])
    of = "" if space.sizes is None else f"The networks have {space.sizes.describe(space.network.parts)}. "
    click.echo(of + _state_line(target))


def _network(table: LatencyTable, settings: PredictSettings) -> NetworkSpec:
    """Return the network that the settings name; a table over sizes does not choose one of them by itself."""
    if table.sizes is not None:
        sizes = table.sizes
        ranges = {"channels": sizes.channels, "layers": sizes.layers, "resolution": sizes.resolutions}
        missing = [
            f"--{name}" for name, values in ranges.items() if len(values) > 1 and getattr(settings, name) is None
        ]
        if missing:
            raise click.UsageError(
                f"the table is for networks of {table.describe()}: choose one with {' and '.join(missing)}"
            )
    return _changed(table, settings)


def _changed(table: LatencyTable, settings: PredictSettings) -> NetworkSpec:
    """Return the network of the table at the size that the settings name."""
    return table.spec.with_changes(
        channels=settings.channels, layers=settings.layers, resolution=settings.resolution
    )


def _space(table: LatencyTable, settings: PredictSettings) -> ArchitectureSpace:
    """Return the architectures that a search with this table can propose, at the size that the settings name."""
    from cars_hw.space.architecture_space import ArchitectureSpace
    from cars_hw.space.size_grid import SizeGrid
    from cars_hw.space.space_of import space_of

    network = _changed(table, settings)
    if table.sizes is None:
        return ArchitectureSpace(space_of(network), network)
    channels = table.sizes.channels if settings.channels is None else (settings.channels,)
    layers = table.sizes.layers if settings.layers is None else (settings.layers,)
    resolutions = table.sizes.resolutions if settings.resolution is None else ()
    sizes = SizeGrid(channels, layers, resolutions)
    largest = sizes.largest(network)
    return ArchitectureSpace(space_of(network), largest, sizes if len(sizes) > 1 else None)


def _about(target: LatencyTarget, network: NetworkSpec) -> dict[str, Any]:
    """Return what JSON says of all figures: their network and state, and why the table is unreliable."""
    return {"network": network, "state": target.state, "quality_warnings": target.quality_warnings}


def _state_line(target: LatencyTarget) -> str:
    machine = target.table.machine
    states = "" if len(machine.states) < 2 and machine.usual_factor == 1 else f" {describe_states(machine)}"
    loaded = describe_sustained(target.table)
    of_load = "" if loaded is None else f" {loaded}"
    return f"Latencies are those of {state_name(target.state)} of {target.device_name}.{states}{of_load}"


def _sustained(
    target: LatencyTarget, predictor: Predictor, named: GenotypeOrModel
) -> tuple[float | None, float | None]:
    """Return the latency in the sustained state, of the median run and of 90% of the runs; None without one."""
    state = target.table.sustained
    if state is None:
        return None, None
    ms = predictor.in_state(SUSTAINED).predict(named.genotype).ms
    return ms * state.p50_factor / state.p90_factor, ms


def _network_of(target: LatencyTarget, asked: GenotypeOrModel, settings: PredictSettings) -> NetworkSpec:
    """Return the network of what was asked for: a model's own, or the one that the settings name.

    Raises:
        InputError: the model has another precision than those of the table, or another scheme of int8.
    """
    if asked.card is None:
        return _network(target.table, settings)
    if any(one is not None for one in (settings.channels, settings.layers, settings.resolution)):
        raise click.UsageError(f"{asked.name} is a model of one size: leave out --channels, --layers, --resolution")
    if asked.card.precision != target.precision:
        raise InputError(
            f"{asked.name} is a model of {asked.card.precision}, and {settings.table} is for {target.precision}"
        )
    if asked.card.int8 == "symmetric":
        raise InputError(f"{asked.name} is a symmetric model of int8, and {settings.table} is for asymmetric ones")
    return asked.card.network


def _prediction(target: LatencyTarget, asked: GenotypeOrModel, settings: PredictSettings) -> PredictOutput:
    from cars_hw.cli.outputs import PredictOutput

    network = _network_of(target, asked, settings)
    predictor = target.predictor_of(network)
    bound_ms = predictor.bound(asked.genotype)
    limit_ms = settings.at_most_ms
    sustained_p50_ms, sustained_ms = _sustained(target, predictor, asked)
    return PredictOutput(
        name=asked.name,
        genotype=asked.genotype,
        bound_ms=bound_ms,
        usual_ms=target.usual_ms(Architecture(asked.genotype, network)),
        **vars(predictor.breakdown(asked.genotype)),
        **_about(target, network),
        sustained_p50_ms=sustained_p50_ms,
        sustained_ms=sustained_ms,
        limit_ms=limit_ms,
        within_budget=None if limit_ms is None else bound_ms <= limit_ms,
    )


def _require_at_most(target: LatencyTarget, records: Sequence[PredictOutput]) -> None:
    """Check that every network keeps to the limit.

    Raises:
        BudgetError: one does not; the message names all of them.
    """
    over = [
        f"{one.name} ({in_milliseconds(one.bound_ms)})"
        for one in records
        if one.limit_ms is not None and one.bound_ms > one.limit_ms
    ]
    if over:
        assert records[0].limit_ms is not None
        raise BudgetError(
            f"the upper bound of the latency on {target.device_name} is above "
            f"{in_milliseconds(records[0].limit_ms)}: {', '.join(over)}"
        )


def _print_predictions(target: LatencyTarget, records: Sequence[PredictOutput], as_json: bool) -> None:
    if as_json:
        print_json(records)
        return
    loaded = target.table.sustained is not None
    rows = [
        (
            one.name,
            milliseconds(one.ms),
            milliseconds(one.bound_ms),
            milliseconds(one.usual_ms),
            *((milliseconds(one.sustained_p50_ms), milliseconds(one.sustained_ms)) if loaded else ()),
            *(percent(part / one.ms, 0) for part in (one.stem, sum(one.cells), one.head, one.other)),
            ", ".join(f"{kind} {percent(ms / one.ms, 0)}" for kind, ms in list(one.operations.items())[:3]),
        )
        for one in records
    ]
    parts = ("stem", target.table.spec.parts, "head", "any network")
    of_load = ("sustained, median run", "sustained, 90% of runs") if loaded else ()
    columns = ("genotype", "latency", "upper bound", "usual state", *of_load, *parts, "slowest operations")
    networks = {one.network for one in records}
    title = networks.pop().describe() if target.table.sizes is not None and len(networks) == 1 else ""
    print_table(title, columns, rows)
    click.echo(_state_line(target))
