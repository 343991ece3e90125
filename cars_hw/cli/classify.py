"""``cars-hw run``."""

from __future__ import annotations

from pathlib import Path

import click

from cars_hw.cli.options import FILE, json_option, percent, print_json, print_table


@click.command("run")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many classes to name.")
@json_option
@click.argument("model", type=FILE)
@click.argument("image", type=FILE)
def command(model: Path, image: Path, top: int, as_json: bool) -> None:
    """Classify the file IMAGE with the exported MODEL and the card that lies beside it.

    The card says to what size the image is brought, how it is normalised, and what the classes are called.
    """
    from cars_hw.export.classify import classify

    guesses = classify(model, image)[:top]
    if as_json:
        print_json([guess._asdict() for guess in guesses])
        return
    print_table("", ("class", "probability"), [(guess.name, percent(guess.probability)) for guess in guesses])
