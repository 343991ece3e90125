"""``cars-hw report``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from cars_hw.cli.changed_images import warn_of_changed_images
from cars_hw.cli.options import FOLDER, track_option, warn_of_tables
from cars_hw.cli.verbosity import strict_option


@click.command("report")
@click.argument("run_path", metavar="RUN", type=FOLDER)
@track_option("the page")
@strict_option
def command(run_path: Path, track: tuple[str, ...]) -> None:
    """Write one HTML page about a run.

    It shows the front, the models, and the predicted and the measured latencies. The page is RUN/report.html; it
    works without other files and without an internet connection.
    """
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.report.page import write_report

    run = RunFolder.open(run_path)
    warn_of_changed_images(run)
    page = write_report(run)
    click.echo(page)
    if track:
        from cars_hw.tracking.trackers import open_trackers

        with closing(open_trackers(track, run.path, "report", fresh=True)) as tracker:
            tracker.artefact(page)
    warn_of_tables(run)
