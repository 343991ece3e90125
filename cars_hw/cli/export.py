"""``cars-hw export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cars_hw.cli.completion import complete_data, complete_formats, complete_genotypes
from cars_hw.cli.options import (
    FOLDER,
    GENOTYPE,
    data_of,
    data_options,
    json_option,
    network_options,
    percent,
    print_json,
    print_table,
    spec_of,
)
from cars_hw.cli.progress_bars import Bars
from cars_hw.config.codec import unstructure
from cars_hw.export.formats import FORMATS

if TYPE_CHECKING:
    from cars_hw.config.measurement import Precision
    from cars_hw.export.export import Exported


@click.command("export")
@click.argument("what", metavar="RUN|GENOTYPE", shell_complete=complete_genotypes)
@click.option(
    "--format",
    "formats",
    default=",".join(FORMATS),
    shell_complete=complete_formats,
    show_default=True,
    help=f"Model formats, with commas between them: {', '.join(FORMATS)}.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    help="int8: quantise every model as well, calibrated on training images. [what the run was searched with]",
)
@click.option("--out", type=FOLDER, help="Where the files go. [RUN/models, or this folder for a genotype]")
@click.option("--dynamic-batch", is_flag=True, help="Let the ONNX model take any number of images at once.")
@click.option(
    "--data",
    shell_complete=complete_data,
    help="Other images than the run's: the model's normalisation, class names and int8 calibration are theirs.",
)
@data_options
@json_option
@network_options
def command(
    what: str,
    formats: str,
    precision: Precision | None,
    out: Path | None,
    dynamic_batch: bool,
    data: str | None,
    data_root: Path | None,
    download: bool,
    as_json: bool,
    **network: Any,  # noqa: ANN401 -- the options of network_options
) -> None:
    """Export the trained networks of a run, or a genotype.

    Every model gets a JSON beside it that says what it is and how to feed it, and is written only if it computes
    what the network computes. A genotype without a run has fresh weights: it is for measuring, or for
    training elsewhere.
    """
    from cars_hw.export.export import export_genotype
    from cars_hw.pipeline.export import export_run
    from cars_hw.pipeline.run_folder import RunFolder

    wanted = [name.strip() for name in formats.split(",") if name.strip()]
    if (Path(what) / "run.json").is_file():
        run = RunFolder.open(Path(what))
        source = data_of(run.configuration["data"], data, data_root, download)
        with Bars() as bars:
            exported = export_run(
                run,
                data=source,
                formats=wanted,
                precision=precision or run.configuration.get("precision", "fp32"),
                out=out,
                dynamic_batch=dynamic_batch,
                progress=bars.update,
            )
    elif Path(what).is_dir():
        run = RunFolder.open(Path(what))  # Says what is wrong with the folder.
        return
    else:
        if precision == "int8":
            raise click.UsageError("int8 is calibrated on images: it needs a run with trained networks")
        named = GENOTYPE.convert(what, None, click.get_current_context())
        spec = spec_of(**network)
        exported = export_genotype(
            named.genotype, spec, out or Path(), name=named.name, formats=wanted, dynamic_batch=dynamic_batch
        )
    _print(exported, as_json)


def _print(exported: list[Exported], as_json: bool) -> None:
    if as_json:
        print_json([{"name": model.name, "path": str(model.path), **unstructure(model.card)} for model in exported])
        return
    rows = [
        (
            str(model.path),
            percent(model.card.accuracy),
            f"{model.path.stat().st_size / 1e6:.2f} MB",
            f"{model.card.parity:.1e}",
        )
        for model in exported
    ]
    print_table("Exported", ("model", "accuracy", "size", "relative error"), rows)
