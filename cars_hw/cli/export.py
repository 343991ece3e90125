"""``cars-hw export``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cars_hw.cli.changed_images import warn_of_changed_images
from cars_hw.cli.completion import complete_formats, complete_genotypes
from cars_hw.cli.options import (
    FOLDER,
    GENOTYPE,
    json_option,
    print_json,
    print_table,
    share_of,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.cli.settings import MOVED, NETWORK, NETWORK_PATHS, Converted, settings_options
from cars_hw.cli.verbosity import note
from cars_hw.config.codec import unstructure
from cars_hw.export.card import INT8_SUFFIX
from cars_hw.export.formats import FORMATS
from cars_hw.pipeline.settings import ExportSettings

if TYPE_CHECKING:
    from cars_hw.export.export import Exported
    from cars_hw.pipeline.run_folder import RunFolder


def _run(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the run says of its images and precision; nothing for a genotype."""
    from cars_hw.pipeline.run_folder import RunFolder

    path = Path(parameters["what"])
    if not path.is_dir():
        return {}
    run = RunFolder.open(path)
    return {"data": unstructure(run.training_data.source), "precision": run.configuration.precision}


@click.command("export")
@click.argument("what", metavar="RUN|GENOTYPE", shell_complete=complete_genotypes)
@click.option(
    "--format",
    "formats",
    default=",".join(FORMATS),
    shell_complete=complete_formats,
    show_default=True,
    help=f"Model formats, with commas between them: {', '.join(FORMATS)}, and those of installed packages, which "
    "cars-hw plugins lists.",
)
@settings_options(
    ExportSettings,
    "precision",
    "dynamic_batch",
    "int8",
    "accept_changes",
    "data.source",
    "data.root",
    "data.download",
    *NETWORK_PATHS,
    bases=(NETWORK,),
    converted=(
        Converted(
            "formats", lambda text, _: {"formats": [name.strip() for name in text.split(",") if name.strip()]}
        ),
    ),
    run=_run,
    help={"data.source": f"{MOVED['data.source']} Only int8 models need images, for their calibration."},
)
@click.option("--out", type=FOLDER, help="The folder of the files. [RUN/models; for a genotype, the current one]")
@click.option(
    "--hub",
    type=FOLDER,
    help="Also write a folder for each network of a run in this folder: weights, card, models and a README, as the "
    "Hugging Face hub takes them. Nothing is uploaded.",
)
@json_option
def command(what: str, settings: ExportSettings, out: Path | None, hub: Path | None, as_json: bool) -> None:
    """Export the trained networks of a run, or a genotype.

    Beside each model file, the command writes a card: a JSON file that describes preprocessing, classes, accuracy
    and latency. Classes and normalisation come from the run. Only int8 models need the images. A model is written
    only if its outputs agree with those of the network in torch. A genotype without a run has fresh weights: export
    one to measure it, or to train it elsewhere.
    """
    from cars_hw.export.export import export_genotype
    from cars_hw.pipeline.export import export_run
    from cars_hw.pipeline.run_folder import RunFolder

    if settings.data is not None and Path(what).is_dir():
        run = RunFolder.open(Path(what))
        _refuse_network_options()
        if settings.precision != "int8":
            warn_of_changed_images(run)
        with Bars() as bars:
            exported = export_run(
                run,
                data=settings.data,
                formats=settings.formats,
                precision=settings.precision or "fp32",
                out=out,
                dynamic_batch=settings.dynamic_batch,
                int8=settings.int8,
                accept_changes=settings.accept_changes,
                hub=hub,
                progress=bars.update,
            )
        if settings.precision == "int8":
            _note_float_only(exported)
        _print(exported, as_json)
        if out is None and not as_json:
            _print_next(run)
        return
    if settings.precision == "int8" or settings.int8 == "symmetric":
        raise click.UsageError("int8 is calibrated on images: it needs a run with trained networks")
    if hub is not None:
        raise click.UsageError("--hub is for a RUN: a genotype has no trained weights")
    named = GENOTYPE.convert(what, None, click.get_current_context())
    with Bars() as bars:
        exported = export_genotype(
            named.genotype,
            settings.network,
            out or Path(),
            name=named.name,
            formats=settings.formats,
            dynamic_batch=settings.dynamic_batch,
            progress=bars.update,
        )
    _print(exported, as_json)


def _print_next(run: RunFolder) -> None:
    """Print the command that measures the models, on the device of the first table or else on this machine."""
    device = next((target.device for target in run.configuration.targets), "ort")
    click.echo(f"Next: cars-hw verify {shlex.quote(str(run.path))} --device {shlex.quote(device)}")


def _refuse_network_options() -> None:
    """Refuse the options that describe the network of a genotype: those of a run are what they are."""
    context = click.get_current_context()
    names = {NETWORK.parameter, *(path.replace(".", "__") for path in NETWORK_PATHS)}
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} is for a GENOTYPE: the networks of a run have been trained")


def _note_float_only(exported: list[Exported]) -> None:
    """Tell which networks have no int8 model, since they were evaluated on other test images."""
    quantised = {model.name.removesuffix(INT8_SUFFIX) for model in exported if model.card.precision == "int8"}
    names = dict.fromkeys(model.name.removesuffix(INT8_SUFFIX) for model in exported)
    left_out = [name for name in names if name not in quantised]
    if left_out:
        note(
            f"Warning: {', '.join(left_out)} {'was' if len(left_out) == 1 else 'were'} evaluated on other test "
            "images than those of now, and exported in float only."
        )


def _print(exported: list[Exported], as_json: bool) -> None:
    if as_json:
        print_json([{"name": model.name, "path": str(model.path), **unstructure(model.card)} for model in exported])
        return
    rows = [
        (
            str(model.path),
            share_of(model.card.accuracy, model.card.test_images),
            "-" if model.card.test_images is None else f"{model.card.test_images:,}",
            f"{model.path.stat().st_size / 1e6:.2f} MB",
            f"{model.card.parity:.1e}",
        )
        for model in exported
    ]
    print_table("Exported", ("model", "accuracy (95% interval)", "test images", "size", "relative error"), rows)
