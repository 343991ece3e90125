"""A trained network as a model file and its card, both of them in place or neither."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cars_hw.config.checksummed import digest
from cars_hw.config.codec import unstructure
from cars_hw.config.files import replacing
from cars_hw.config.measurement import Int8Scheme
from cars_hw.errors import ExportError
from cars_hw.export.card import NO_FIGURES, Figures, ModelCard, Preprocessing, card_path, verified_card
from cars_hw.export.classify import open_model, prepare
from cars_hw.export.format import ExportFormat, Usage
from cars_hw.export.formats import FORMATS, export_format, export_formats, format_of_file
from cars_hw.export.int8_refinement import refine
from cars_hw.export.lower import lower_network
from cars_hw.export.parity import check_parity
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.progress import Progress, counted
from cars_hw.progress_line import show
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.version import versions_of

INPUT: Final = "image"
"""What every network's input is called."""

INT8_BOUND: Final = 0.1
"""How far the logits of an int8 model may be from the float model's: trained networks were seen at 0.03 to 0.07."""

EVALUATED_IMAGES: Final = 1000
"""So many test images are run one by one."""


@dataclass(frozen=True)
class Exported:
    """A model file and its card."""

    name: str
    path: Path
    card: ModelCard


def export_model(
    network: Network,
    path: Path,
    model_format: str,
    *,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    figures: Figures = NO_FIGURES,
    dynamic_batch: bool = False,
) -> ModelCard:
    """Write ``network`` to ``path`` and its card to :func:`~cars_hw.export.card.card_path`.

    An ONNX model takes ``image`` (N, C_in, H, W), a TFLite model (N, H, W, C_in), and they return ``logits`` (N,
    classes); all float32. N is declared as 1, or as open with ``dynamic_batch``. The model carries genotype,
    network, preprocessing and class names as JSON in its metadata, too; ``preprocessing`` gets the format's layout.

    Raises:
        ExportError: the network cannot be exported, or the model does not compute what the network does; then
            nothing is written.
        InputError: preprocessing, class names or a figure do not fit the network; nothing is written.
    """
    written = export_format(model_format)
    preprocessing = replace(preprocessing, layout=written.layout)
    described = {
        "genotype": network.genotype.to_dict(),
        "network": unstructure(network.spec),
        "preprocessing": unstructure(preprocessing),
        "class_names": list(class_names),
    }
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in described.items()}
    usage = Usage(preprocessing.mean, preprocessing.std, preprocessing.scale, tuple(class_names))
    model = written.write(lower_network(network), dynamic_batch=dynamic_batch, metadata=metadata, usage=usage)
    with replacing(path) as temporary:
        temporary.write_bytes(model)
        card = ModelCard(
            genotype=network.genotype,
            network=network.spec,
            preprocessing=preprocessing,
            class_names=tuple(class_names),
            parity=check_parity(network, temporary, written),
            versions=versions(written),
            digest=digest(model),
            **vars(figures),
        )
        # The card goes first, so that a model that is there has one.
        card.write(card_path(path))
    return card


def export_genotype(
    genotype: Genotype,
    spec: NetworkSpec,
    out: Path,
    *,
    name: str,
    formats: Sequence[str] = tuple(FORMATS),
    dynamic_batch: bool = False,
    progress: Progress = show,
) -> list[Exported]:
    """Export the network of ``genotype`` under ``spec`` with fresh weights: to measure, or to train elsewhere.

    The same genotype always gives the same file, with numbers of the size that a trained network has.

    Pixels are scaled to -1 to 1, and classes have numbers for names: there is no data to take them from.

    Raises:
        ExportError: the file does not compute what the network does; it is not written.
    """
    network = seeded(lambda: Network(spec, genotype), repr(genotype))
    middle = (0.5,) * spec.in_channels
    exported = []
    for one in counted(export_formats(formats), progress, "exporting"):
        path = out / f"{name}{one.suffix}"
        card = export_model(
            network,
            path,
            one.name,
            preprocessing=Preprocessing.of(middle, middle, spec.resolution),
            class_names=[str(number) for number in range(spec.classes)],
            dynamic_batch=dynamic_batch,
        )
        exported.append(Exported(name, path, card))
    return exported


def export_int8(
    source: Path,
    path: Path,
    *,
    calibration: npt.NDArray[np.uint8],
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    scheme: Int8Scheme = "asymmetric",
    figures: Figures = NO_FIGURES,
) -> ModelCard:
    """Quantise the float32 model ``source``, which has its card beside it, to ``path``, and write its card.

    ``calibration`` and ``images`` are pixels (N, H, W, C); both models run the first :data:`EVALUATED_IMAGES` of
    ``images``, one by one. The card has the latencies and augmentations of ``figures``. Its accuracy is the share
    of these images that the int8 model gets right, and its parity the distance of its logits from those of the
    float model, relative to these.

    Raises:
        ExportError: the model cannot be quantised, or is further off than :data:`INT8_BOUND`; nothing is written.
        InputError: ``source`` or its card is missing or damaged.
    """
    card = verified_card(source)
    written = format_of_file(source)
    feeds = [{INPUT: prepare(pixels, card.preprocessing)} for pixels in calibration]
    model = refine(source.read_bytes(), written, feeds, scheme)
    batches = [prepare(pixels, card.preprocessing) for pixels in images[:EVALUATED_IMAGES]]
    with replacing(path) as temporary:
        temporary.write_bytes(model)
        float_logits, logits = (
            np.concatenate([*map(open_model(file, written), batches)]) for file in (source, temporary)
        )
        error = float(np.linalg.norm(logits - float_logits) / np.linalg.norm(float_logits))
        if not error <= INT8_BOUND:
            raise ExportError(
                f"{path.name}: in int8 the model's logits are off by {error:.1%}, allowed is {INT8_BOUND:.0%}; "
                "keep the float model"
            )
        accuracy = float((logits.argmax(axis=1) == labels[: len(logits)]).mean())
        known = {**vars(figures), "accuracy": accuracy, "test_images": len(logits)}
        card = replace(
            card,
            precision="int8",
            int8=scheme,
            parity=error,
            versions=versions(written),
            digest=digest(model),
            **known,
        )
        card.write(card_path(path))
    return card


def versions(written: ExportFormat) -> dict[str, str]:
    """Return the versions of the programs that take part in an export, and of those that read the images."""
    formats = dict.fromkeys(package for one in (*FORMATS.values(), written) for package in one.packages)
    names = ("cars-hw", "torch", "numpy", "pillow", *formats)
    return {"python": platform.python_version(), **versions_of(names)}
