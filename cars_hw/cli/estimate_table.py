"""The table of what a search will take, which ``cars-hw search --dry-run`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cars_hw.cli.options import print_json, print_table
from cars_hw.cli.progress_bars import Bars
from cars_hw.config.codec import unstructure
from cars_hw.config.units import format_seconds

if TYPE_CHECKING:
    from cars_hw.pipeline.estimate import Estimate
    from cars_hw.pipeline.plan import SearchPlan


def print_estimate(plan: SearchPlan, estimated: Estimate | None, jobs: int | None, as_json: bool) -> None:
    """Print what the search of ``plan`` will take: as ``estimated``, or by a few steps that are timed now."""
    from cars_hw.pipeline.estimate import estimate

    if estimated is None:
        with Bars() as bars:
            found = estimate(plan, jobs, progress=bars.update)
    else:
        found = estimated
    if as_json:
        chosen = {"evolution": unstructure(plan.preset.evolution), "final": unstructure(plan.preset.final)}
        print_json({**unstructure(found), **chosen})
        return
    rows = [
        (part.name, f"{part.times:,}", f"{1e3 * part.seconds:.3g} ms", format_seconds(part.total_seconds))
        for part in found.parts
    ]
    print_table("", ("work", "times", "each", "in all"), rows)
    click.echo(
        f"About {format_seconds(found.seconds)} and {found.memory_mb:,.0f} MB of "
        f"{'GPU memory' if found.on_gpu else 'memory'}; training the front, exporting and measuring come on top."
    )
    if plan.sizes is not None:
        click.echo("The times are means over sizes: a population of larger networks takes longer.")
