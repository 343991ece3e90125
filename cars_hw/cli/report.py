"""``cars-hw report``."""

from __future__ import annotations

from pathlib import Path

import click

from cars_hw.cli.options import FOLDER


@click.command("report")
@click.argument("run_path", metavar="RUN", type=FOLDER)
def command(run_path: Path) -> None:
    """Write one HTML page about a run: the front, the models, what was promised and what was measured.

    It is RUN/report.html, needs no other file and no network, and can be written again at any time.
    """
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.report.page import write_report

    click.echo(write_report(RunFolder.open(run_path)))
