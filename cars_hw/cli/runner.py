"""``cars-hw runner``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from cars_hw.cli.options import FILE, json_option, print_json
from cars_hw.cli.settings import settings_options
from cars_hw.cli.verbosity import note
from cars_hw.config.setting import Settings, setting


@dataclass(frozen=True)
class FetchSettings(Settings):
    """Settings of ``cars-hw runner fetch``. The default is TensorFlow's nightly build, whose digest changes."""

    address: str = setting(
        "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
        "android_aarch64_benchmark_model",
        help="The address of the tool.",
        option="--from",
    )
    sha256: str | None = setting(
        None,
        help="What its SHA-256 must be. Without this option, the SHA-256 is printed and the file is not stored. "
        "Exception: if the stored tool came from the same address, the new file is stored if it has the same "
        "SHA-256.",
    )


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
@settings_options(FetchSettings, "address", "sha256", file=False)
def fetch(settings: FetchSettings) -> None:
    """Download the tool, and store it if its SHA-256 is the expected one.

    No other command downloads a program. The program runs on the phone, not on this machine.
    """
    from cars_hw.devices.android.runner import fetch as fetched

    note(f"fetching {settings.address}")
    runner = fetched(settings.address, settings.sha256)
    click.echo(f"{runner.path}: SHA-256 {runner.sha256}")


@command.command("show")
@json_option
def show(as_json: bool) -> None:
    """Show which tool is stored, its SHA-256 and where it came from."""
    from cars_hw.devices.android.runner import stored

    runner = stored()
    if as_json:
        from cars_hw.cli.outputs import RunnerOutput

        print_json(None if runner is None else RunnerOutput(str(runner.path), runner.sha256, runner.source))
    elif runner is None:
        click.echo("none is stored; phones use their own /data/local/tmp/benchmark_model")
    else:
        click.echo(f"{runner.path}: SHA-256 {runner.sha256}, from {runner.source}")
