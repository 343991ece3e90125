"""``cars-hw report``."""

from __future__ import annotations

from pathlib import Path

import click

from cars_hw.cli.options import FOLDER


@click.command("report")
@click.argument("run_path", metavar="RUN", type=FOLDER)
def command(run_path: Path) -> None:
    """Write one HTML page about a run.

    It shows the front, the models, and the predicted and the measured latencies. The page is RUN/report.html; it
    works without other files and without an internet connection.
    """
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.report.page import write_report

    click.echo(write_report(RunFolder.open(run_path)))
