"""``cars-hw classify``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cars_hw.cli.exit_codes import ExitCode
from cars_hw.cli.hints import message_of
from cars_hw.cli.options import FILE, json_option, percent, print_json, print_table, share_of
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import settings_options
from cars_hw.config.setting import Settings, setting
from cars_hw.errors import DatasetError
from cars_hw.formatting import printable
from cars_hw.progress import counted

if TYPE_CHECKING:
    from cars_hw.cli.outputs import ClassifiedOutput, UnreadableOutput
    from cars_hw.export.classify import Classifier, Guess


MANY: Final = 20
"""From so many images on, progress is shown."""


@dataclass(frozen=True)
class Classified:
    """An image with its classes, the likeliest first; or what cannot be read, with the reason.

    ``folder_class`` is the class that its folder is called by, None without one.
    """

    image: str
    classes: tuple[Guess, ...] = ()
    folder_class: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class ClassifySettings(Settings):
    """Settings of ``cars-hw classify``."""

    top: int | None = setting(
        None, help="Classes to list for each image. [5 for one image, 1 for several]", minimum=1
    )


@click.command("classify")
@settings_options(ClassifySettings, "top", file=False)
@json_option
@click.argument("model", type=FILE)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
def command(model: Path, images: tuple[str, ...], settings: ClassifySettings, as_json: bool) -> None:
    """Classify images with an exported model.

    MODEL is a file that `cars-hw export` wrote. The JSON file beside it, the model's card, says how an IMAGE file
    is decoded, resized and normalised, and has the names of the classes.

    IMAGE is a file, a folder or a pattern in quotes such as 'photos/**/*.jpg'. A folder stands for all images in it
    and below it. If every image lies below a folder with the name of a class, the command takes these names as the
    true classes and also prints the accuracy. It reports each file that it cannot read, classifies the others, and
    ends with exit code 1.
    """
    from cars_hw.export.classify import Classifier

    found = _classified(Classifier(model), images)
    readable = [one for one in found if one.problem is None]
    top = settings.top or (5 if len(found) == 1 else 1)
    if as_json:
        print_json([_record(one, top) for one in found])
    elif readable:
        print_table(
            "",
            ("image", "class", "probability"),
            [(one.image, each.name, percent(each.probability)) for one in readable for each in one.classes[:top]],
        )
    if readable and all(one.folder_class is not None for one in readable):
        right = sum(one.classes[0].name == one.folder_class for one in readable)
        share = share_of(right / len(readable), len(readable))
        of = f"{len(readable):,} image{'' if len(readable) == 1 else 's'}"
        # Neither the file nor its card says which images trained the network.
        click.echo(
            f"Accuracy by the names of the folders: {share} of {of}. If the network was trained on some of "
            "them, it is probably less accurate on others.",
            err=as_json,
        )
    problems = [one.problem for one in found if one.problem is not None]
    for problem in problems:
        click.echo(f"Error: {printable(problem)}", err=True)
    if problems:
        sys.exit(ExitCode.ERROR)


def _classified(classifier: Classifier, named: Sequence[str]) -> list[Classified]:
    from cars_hw.data.find import NotFound, image_files

    def one(file: Path | NotFound) -> Classified:
        if isinstance(file, NotFound):
            return Classified(file.name, problem=file.problem)
        try:
            return Classified(str(file), tuple(classifier(file)), _folder_class(file, names))
        except DatasetError as error:
            return Classified(str(file), problem=message_of(error))

    names = frozenset(classifier.card.class_names)
    files = list(image_files(named))
    if len(files) < MANY:
        return [one(file) for file in files]
    with Bars() as bars:
        return [one(file) for file in counted(files, bars.update, "classifying")]


def _folder_class(image: Path, names: frozenset[str]) -> str | None:
    """Return the name of the nearest folder around ``image`` that is called like a class."""
    return next((parent.name for parent in image.absolute().parents if parent.name in names), None)


def _record(one: Classified, top: int) -> ClassifiedOutput | UnreadableOutput:
    from cars_hw.cli.outputs import ClassifiedOutput, ClassOutput, UnreadableOutput

    if one.problem is not None:
        return UnreadableOutput(one.image, one.problem)
    classes = tuple(ClassOutput(each.name, each.probability) for each in one.classes[:top])
    return ClassifiedOutput(one.image, classes, one.folder_class)
