"""``cars-hw data``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cars_hw.cli.exit_codes import ExitCode
from cars_hw.cli.options import FOLDER, json_option, print_json, print_table
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import settings_options
from cars_hw.config.setting import Settings, setting
from cars_hw.formatting import printable

if TYPE_CHECKING:
    from cars_hw.data.check import Finding, FolderCheck

SHOWN = 5
"""Files that are listed of each finding; JSON has all of them."""

UNREAD = ("truncated", "unreadable", "unsupported")
"""The kinds of findings that are about images that cannot be read."""


@dataclass(frozen=True)
class CheckSettings(Settings):
    """Settings of ``cars-hw data check``."""

    resolution: tuple[int, int] | None = setting(
        None,
        help="The resolution of the network. Images that are smaller are listed as tiny. [16x16]",
        metavar="HxW",
    )
    skip_unreadable: bool = setting(False, help="Do not refuse the folder because of images that cannot be read.")


@click.group("data")
def command() -> None:
    """Check a folder of images."""


@command.command("check")
@settings_options(CheckSettings, "resolution", "skip_unreadable", file=False)
@json_option
@click.argument("folder", type=FOLDER)
def check(folder: Path, settings: CheckSettings, as_json: bool) -> None:
    """List everything that is wrong with the images in FOLDER, in one pass.

    The command reads every image once. It lists unreadable and truncated images, images of 16 bits, animations,
    copies of an image in one or several classes and parts, tiny images, classes with few images, imbalance, and
    files that are passed over. The exit code is 1 if a search would refuse the folder, otherwise 0.
    """
    from cars_hw.data.check import check_folder

    if not folder.is_dir():
        raise click.UsageError(f"there is no folder {folder}")
    with Bars() as bars:
        found = check_folder(
            folder,
            resolution=settings.resolution,
            skip_unreadable=settings.skip_unreadable,
            progress=bars.update,
        )
    if as_json:
        print_json(found)
    else:
        _print(found)
    if not found.usable:
        sys.exit(ExitCode.ERROR)


def _print(found: FolderCheck) -> None:
    names = list(dict.fromkeys(name for classes in found.parts.values() for name in classes))
    rows = [(name, *(f"{classes.get(name, 0):,}" for classes in found.parts.values())) for name in names]
    rows.append(("all", *(f"{sum(classes.values()):,}" for classes in found.parts.values())))
    # Without parts, the test part is drawn from all of the images: none of them is in a training part yet.
    columns = ("images",) if list(found.parts) == ["train"] else tuple(found.parts)
    print_table(str(found.folder), ("class", *columns), rows)
    for finding in found.findings:
        click.echo(printable(f"{'Error' if finding.refused else 'Note'}: {finding.text}"))
        for line in _files(finding):
            click.echo(f"  {printable(line)}")
    refused = sum(one.refused for one in found.findings)
    if refused:
        errors = f"{refused} error{'s' if refused > 1 else ''}"
        click.echo(f"A search refuses this folder: {errors}. Mend or remove what is named.{_skipped(found)}")
    else:
        click.echo("A search takes this folder.")


def _skipped(found: FolderCheck) -> str:
    """Return the option that goes on without images that cannot be read, if there are such images."""
    unread = any(finding.refused and finding.kind in UNREAD for finding in found.findings)
    return " --skip-unreadable leaves out the images that cannot be read." if unread else ""


def _files(finding: Finding) -> list[str]:
    lines = [*finding.files, *(" = ".join(files) for files in finding.copies)]
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"and {more} more: --json lists all"] if more > 0 else [])]
