"""``cars-hw classify``."""

from __future__ import annotations

from pathlib import Path

import click

from cars_hw.cli.options import FILE, json_option, percent, print_json, print_table
from cars_hw.cli.settings import settings_options
from cars_hw.pipeline.settings import ClassifySettings


@click.command("classify")
@settings_options(ClassifySettings, "top", file=False)
@json_option
@click.argument("model", type=FILE)
@click.argument("images", metavar="IMAGE...", type=FILE, nargs=-1, required=True)
def command(model: Path, images: tuple[Path, ...], settings: ClassifySettings, as_json: bool) -> None:
    """Classify images with an exported model.

    MODEL is a file that `cars-hw export` wrote. The JSON file beside it, the model's card, says how an IMAGE file
    is resized and normalised, and has the names of the classes.
    """
    from cars_hw.export.classify import load_classifier

    classes_of = load_classifier(model)
    found = [(image, classes_of(image)[: settings.top]) for image in images]
    if as_json:
        records = [(str(image), [one._asdict() for one in classes]) for image, classes in found]
        print_json([{"image": image, "classes": classes} for image, classes in records])
        return
    rows = [(str(image), one.name, percent(one.probability)) for image, classes in found for one in classes]
    print_table("", ("image", "class", "probability"), rows)
