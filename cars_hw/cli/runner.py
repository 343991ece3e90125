"""``cars-hw runner``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from cars_hw.cli.options import FILE, json_option, print_json
from cars_hw.cli.verbosity import note

OFFICIAL: Final = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
    "android_aarch64_benchmark_model"
)
"""TensorFlow's own build for arm64 phones, made every night: its digest changes."""


@click.group("runner")
def command() -> None:
    """Choose the program that runs models on phones.

    The program is benchmark_model, the tool of TensorFlow Lite and LiteRT, built for the processor of the phone.
    cars-hw uses the tool that a command below has stored, otherwise /data/local/tmp/benchmark_model on the phone.
    `fetch` downloads a tool, by default the nightly build of TensorFlow for arm64 phones; no other command does.
    """


@command.command("use")
@click.argument("path", type=FILE)
def use(path: Path) -> None:
    """Store a copy of the tool at PATH, which you built or downloaded yourself."""
    from cars_hw.devices.android.runner import use as store

    runner = store(path)
    click.echo(f"{runner.path}: SHA-256 {runner.sha256}")


@command.command("fetch")
@click.option("--from", "address", default=OFFICIAL, show_default=True, help="The address of the tool.")
@click.option(
    "--sha256",
    help="What its SHA-256 must be. Without this option, the SHA-256 is printed and the file is not stored. "
    "Exception: if the stored tool came from the same address, the new file is "
    "stored if it has the same SHA-256.",
)
def fetch(address: str, sha256: str | None) -> None:
    """Download the tool, and store it if its SHA-256 is the expected one.

    No other command downloads a program. The program runs on the phone, not on this machine.
    """
    from cars_hw.devices.android.runner import fetch as fetched

    note(f"fetching {address}")
    runner = fetched(address, sha256)
    click.echo(f"{runner.path}: SHA-256 {runner.sha256}")


@command.command("show")
@json_option
def show(as_json: bool) -> None:
    """Show which tool is stored, its SHA-256 and where it came from."""
    from cars_hw.devices.android.runner import stored

    runner = stored()
    if as_json:
        print_json(None if runner is None else {**runner._asdict(), "path": str(runner.path)})
    elif runner is None:
        click.echo("none is stored; phones use their own /data/local/tmp/benchmark_model")
    else:
        click.echo(f"{runner.path}: SHA-256 {runner.sha256}, from {runner.source}")
