"""``cars-hw predict``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cars_hw.cli.options import (
    GENOTYPE,
    Named,
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
from cars_hw.config.codec import unstructure
from cars_hw.config.measurement import SUSTAINED
from cars_hw.formatting import state_name
from cars_hw.pipeline.settings import PredictSettings
from cars_hw.space.architecture import Architecture

if TYPE_CHECKING:
    from cars_hw.latency import LatencyTable, Predictor
    from cars_hw.pipeline.latency_target import LatencyTarget
    from cars_hw.space.architecture_space import ArchitectureSpace
    from cars_hw.space.network_spec import NetworkSpec


@click.command("predict")
@settings_options(PredictSettings, "table", "channels", "layers", "resolution", "level", "state", "quantile")
@strict_option
@json_option
@click.argument("genotypes", metavar="[GENOTYPE]...", type=GENOTYPE, nargs=-1)
def command(settings: PredictSettings, as_json: bool, genotypes: tuple[Named, ...]) -> None:
    """Predict latencies from a table.

    For each GENOTYPE, the command prints the latency, its upper bound, the latency in the usual state, that in the
    sustained state if the table has it, and the share of each part of the network. Without a GENOTYPE, it prints
    the smallest upper bound of all networks that a search can propose, and quantiles of the upper bounds of random
    networks. With a table over sizes, these networks have any size of the table, unless --channels, --layers and
    --resolution choose one.
    """
    import numpy as np

    from cars_hw.latency import LatencyTable, fastest_genotype
    from cars_hw.pipeline.latency_target import LatencyTarget

    if genotypes and settings.quantile is not None:
        raise click.UsageError("--quantile is one of random networks: give it without a GENOTYPE")
    table = LatencyTable.read(settings.table)
    warn_of_noise(table, settings.table)
    target = LatencyTarget(table, level=settings.level, state=settings.state)
    if genotypes:
        _print_predictions(target, _network(table, settings), genotypes, as_json)
        return
    space, rng = _space(table, settings), np.random.default_rng(0)
    bounds = [target.predict(space.sample(rng)).bound_ms for _ in range(1000)]
    if settings.quantile is not None:
        ms = float(np.quantile(bounds, settings.quantile))
        if as_json:
            print_json({"quantile": settings.quantile, "bound_ms": ms, **_about(target, space.largest)})
        else:
            click.echo(f"{ms:.4g}ms")
        return
    smallest = target.predictor_of(space.smallest)
    found = {"smallest": smallest.bound(fastest_genotype(space.cells_for(space.smallest), smallest.bound, rng))}
    found |= {f"{share}% of random": float(np.quantile(bounds, share / 100)) for share in (10, 50, 90)}
    if as_json:
        sizes = {} if space.sizes is None else {"sizes": unstructure(space.sizes)}
        print_json({"bounds_ms": found, **sizes, **_about(target, space.largest)})
        return
    print_table("Upper bounds", ("networks", "latency"), [(name, milliseconds(ms)) for name, ms in found.items()])
    of = "" if space.sizes is None else f"The networks have {space.sizes.describe()}. "
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
    from cars_hw.space.search_space import SearchSpace
    from cars_hw.space.size_grid import SizeGrid

    network = _changed(table, settings)
    if table.sizes is None:
        return ArchitectureSpace(SearchSpace(), network)
    channels = table.sizes.channels if settings.channels is None else (settings.channels,)
    layers = table.sizes.layers if settings.layers is None else (settings.layers,)
    resolutions = table.sizes.resolutions if settings.resolution is None else ()
    sizes = SizeGrid(channels, layers, resolutions)
    largest = sizes.largest(network)
    return ArchitectureSpace(SearchSpace(), largest, sizes if len(sizes) > 1 else None)


def _about(target: LatencyTarget, network: NetworkSpec) -> dict[str, Any]:
    """Return what JSON says of all figures: their network and state, and why the table is unreliable."""
    return {
        "network": unstructure(network),
        "state": target.state,
        "quality_warnings": list(target.quality_warnings),
    }


def _state_line(target: LatencyTarget) -> str:
    machine = target.table.machine
    states = "" if len(machine.states) < 2 and machine.usual_factor == 1 else f" {describe_states(machine)}"
    loaded = describe_sustained(target.table)
    of_load = "" if loaded is None else f" {loaded}"
    return f"Latencies are those of {state_name(target.state)} of {target.device_name}.{states}{of_load}"


def _sustained(target: LatencyTarget, predictor: Predictor, named: Named) -> dict[str, float]:
    """Return the latency in the sustained state, of the median run and of 90% of the runs; nothing without one."""
    state = target.table.sustained
    if state is None:
        return {}
    ms = predictor.in_state(SUSTAINED).predict(named.genotype).ms
    return {"sustained_p50_ms": ms * state.p50_factor / state.p90_factor, "sustained_ms": ms}


def _print_predictions(
    target: LatencyTarget, network: NetworkSpec, genotypes: tuple[Named, ...], as_json: bool
) -> None:
    predictor, records = target.predictor_of(network), []
    for named in genotypes:
        breakdown = asdict(predictor.breakdown(named.genotype))
        records.append(
            {
                "name": named.name,
                "genotype": named.genotype.to_dict(),
                "bound_ms": predictor.bound(named.genotype),
                "usual_ms": target.usual_ms(Architecture(named.genotype, network)),
                **_sustained(target, predictor, named),
                **breakdown,
                **_about(target, network),
            }
        )
    if as_json:
        print_json(records)
        return
    rows = [
        (
            record["name"],
            milliseconds(record["ms"]),
            milliseconds(record["bound_ms"]),
            milliseconds(record["usual_ms"]),
            *(milliseconds(record[name]) for name in ("sustained_p50_ms", "sustained_ms") if name in record),
            *(
                percent(part / record["ms"], 0)
                for part in (record["stem"], sum(record["cells"]), record["head"], record["other"])
            ),
            ", ".join(
                f"{kind} {percent(ms / record['ms'], 0)}" for kind, ms in list(record["operations"].items())[:3]
            ),
        )
        for record in records
    ]
    parts = ("stem", "cells", "head", "any network")
    loaded = () if target.table.sustained is None else ("sustained, median run", "sustained, 90% of runs")
    columns = ("genotype", "latency", "upper bound", "usual state", *loaded, *parts, "slowest operations")
    print_table(network.describe() if target.table.sizes is not None else "", columns, rows)
    click.echo(_state_line(target))
