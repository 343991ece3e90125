"""The third step of a run: its trained networks become model files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cars_hw.config.data import DataSource
from cars_hw.config.files import require_writable
from cars_hw.config.measurement import Int8Scheme, Precision
from cars_hw.data import DataBundle, Dataset, mixed_order
from cars_hw.devices import ModelFormat
from cars_hw.errors import DataChangedError, InputError, RunError
from cars_hw.export.card import (
    CARD,
    INT8_SUFFIX,
    Augmentations,
    CardLatency,
    Figures,
    ModelCard,
    Preprocessing,
    card_path,
)
from cars_hw.export.export import EVALUATED_IMAGES, Exported, export_int8, export_model
from cars_hw.export.formats import FORMATS, export_formats
from cars_hw.export.hub import write_hub_folder
from cars_hw.export.int8_refinement import CALIBRATION_IMAGES
from cars_hw.pipeline.latency_target import LatencyTarget, targets_for_models
from cars_hw.pipeline.network_training import model_of
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.run_data import RunData, load_for_training
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import ExportSettings
from cars_hw.pipeline.trained_weights import load_trained
from cars_hw.progress import Progress
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture


def export_run(
    run: RunFolder,
    *,
    data: DataSource | None = None,
    formats: Sequence[str] = tuple(FORMATS),
    precision: Precision = "fp32",
    out: Path | None = None,
    dynamic_batch: bool = False,
    int8: Int8Scheme = "asymmetric",
    accept_changes: bool = False,
    hub: Path | None = None,
    progress: Progress = show,
) -> list[Exported]:
    """Export every trained network of ``run`` to ``out``, the run's own ``models/`` by default; all formats of one.

    With the precision ``int8`` every model is followed by its quantised one, calibrated on training images and
    evaluated in its runtime on up to :data:`~cars_hw.export.export.EVALUATED_IMAGES` test images, of which each
    class has its share; the accuracy of a float model is on all of them. A model's card has the latencies that the
    run's tables for its format and precision predict; no table is for int8 models whose scheme ``int8`` is
    symmetric.

    Classes and normalisation are those of the run. Models take images of the resolution of their network. An export
    to float needs no images. An export to int8 needs images, the same as the run's; ``data`` is where they lie now.
    A network that was evaluated on other test images is exported in float only. With ``accept_changes`` images may
    have been added, removed or changed since the search, which is written to the run.

    In ``hub`` every network gets a folder of its name for a model hub, see
    :func:`~cars_hw.export.hub.write_hub_folder`.

    Raises:
        InputError: a symmetric scheme is given for models of fp32, or a folder in ``hub`` has other files.
        RunError: no network has been trained, a file of the run is damaged, or another process writes to it;
            or ``out`` is in another run.
        DataChangedError: the images are not those of the run, or the test images are not those that any network
            was evaluated on.
        ExportError: a file does not compute what its network does, or cannot be quantised; it is not written.
    """
    wanted = export_formats(formats)
    if int8 == "symmetric" and precision != "int8":
        raise InputError(f"symmetric is a scheme of int8; {precision} models are not quantised", remedy="int8")
    settings = ExportSettings(
        data,
        tuple(one.name for one in wanted),
        precision,
        dynamic_batch=dynamic_batch,
        int8=int8,
        accept_changes=accept_changes,
        network=run.network,
    )
    with run.lock():
        return _export(run, settings, out, hub, progress)


def _export(
    run: RunFolder,
    settings: ExportSettings,
    out: Path | None,
    hub: Path | None,
    progress: Progress,
) -> list[Exported]:
    folder, wanted = _folder_for(run, out), export_formats(settings.formats)
    for one in wanted:
        one.require_precision(settings.precision or "fp32")
    trained = run.trained()
    if not trained:
        raise RunError(f"no network of {run.path} has been trained", remedy="train", run=run.path)
    manifest = run.training_data
    data = _images(run, settings, trained, progress)
    targets = run.targets()
    exported: list[Exported] = []
    total = len(trained) * len(wanted)
    for number, network in enumerate(trained):
        loaded, before = load_trained(run, network), len(exported)
        architecture = network.architecture
        for place, one in enumerate(wanted):
            progress("exporting", number * len(wanted) + place, total)
            path = folder / f"{network.name}{one.suffix}"
            if out is not None:
                _require_same(path, architecture)
            figures = Figures(
                network.accuracy,
                network.test.total,
                _latencies(targets, one.name, "fp32", architecture),
                Augmentations.of(network.recipe),
            )
            card = export_model(
                loaded,
                path,
                one.name,
                preprocessing=Preprocessing(
                    manifest.mean, manifest.std, network.spec.resolution, manifest.decoding
                ),
                class_names=manifest.class_names,
                figures=figures,
                dynamic_batch=settings.dynamic_batch,
            )
            exported.append(Exported(network.name, path, card))
            # The accuracies of a network in both precisions are of the same images.
            if settings.precision == "int8" and data is not None and _is_of(network, data):
                # Tables have latencies of asymmetric models.
                known = targets if settings.int8 == "asymmetric" else ()
                figures = replace(figures, latencies=_latencies(known, one.name, "int8", architecture))
                data = data.at(run, network.spec.resolution)
                exported.append(_int8(exported[-1], data.bundle, settings.int8, figures))
        if hub is not None:
            model = model_of(manifest, loaded, network.recipe, network.test)
            write_hub_folder(
                model, hub / network.name, name=network.name, data=manifest.name, exported=exported[before:]
            )
    progress("exporting", total, total)
    run.add_step("export", replace(settings, data=None if data is None else data.source))
    return exported


def _images(
    run: RunFolder, settings: ExportSettings, trained: Sequence[TrainedNetwork], progress: Progress
) -> RunData | None:
    """Return the images that ``settings`` need: for int8, or because it is said where they are; otherwise None.

    Raises:
        DataChangedError: the images are not those of the run, or the test images are not those that any network
            was evaluated on.
    """
    given, known = settings.data, run.training_data.source.source
    if settings.precision != "int8" and (given is None or given.absolute().source == known):
        return None
    data = load_for_training(run, given, progress, accept=settings.accept_changes)
    if settings.precision == "int8" and not any(_is_of(network, data) for network in trained):
        names = ", ".join(network.name for network in trained)
        raise DataChangedError(
            f"the test images in {data.source.source} are not those that {names} {_was(len(trained))} evaluated on",
            remedy="train-changed",
            run=run.path,
        )
    data.write_down(run, "export")
    return data


def _is_of(network: TrainedNetwork, data: RunData) -> bool:
    """Whether ``network`` was evaluated on the test images of ``data``, as its int8 model would be."""
    return network.test_digest == data.test_digest


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _folder_for(run: RunFolder, out: Path | None) -> Path:
    """Return the folder for the models of ``run``, after a check that it can be written and is no other run's.

    Raises:
        RunError: ``out`` is another run, or in one.
    """
    own = run.path / "models"
    folder = out or own
    require_writable(folder / "model")
    resolved = folder.resolve()
    for parent in (resolved, *resolved.parents):
        if (parent / "run.json").is_file() and parent != run.path.resolve():
            raise RunError(
                f"{folder} is in the run {parent}, whose models are of other networks", remedy="other-out"
            )
    return folder


def _require_same(path: Path, architecture: Architecture) -> None:
    """Check that ``path`` is free, or has a model of ``architecture``.

    Raises:
        RunError: it has another one, or something else.
    """
    if not path.exists():
        return
    card = card_path(path)
    if CARD.is_one(card):
        try:
            known = ModelCard.read(card)
            same = Architecture(known.genotype, known.network).key() == architecture.key()
        except InputError:
            # A card that is damaged is made again.
            same = True
        if same:
            return
    raise RunError(f"{path} exists and is no model of this network", remedy="other-out")


def _latencies(
    targets: Sequence[LatencyTarget], model_format: ModelFormat, precision: Precision, architecture: Architecture
) -> tuple[CardLatency, ...]:
    """Return what the tables for models of this format, precision and size predict, one for the same conditions."""
    found: dict[tuple[str, int, str], CardLatency] = {}
    for target in targets_for_models(targets, model_format, precision):
        if not target.table.covers(architecture.network):
            continue
        latency = target.card_latency(architecture)
        found.setdefault(latency.conditions, latency)
    return tuple(found.values())


def _int8(model: Exported, bundle: DataBundle, scheme: Int8Scheme, figures: Figures) -> Exported:
    """Export ``model`` in int8, and evaluate it on the test images."""
    path = model.path.with_name(f"{model.name}{INT8_SUFFIX}{model.path.suffix}")
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(bundle.train), generator=generator)[:CALIBRATION_IMAGES]
    # No more than are evaluated: the test part may be larger than the memory.
    evaluated = _evaluated(bundle.test.labels)
    card = export_int8(
        model.path,
        path,
        calibration=pixels_of(bundle.train.select(chosen)),
        images=pixels_of(bundle.test.select(evaluated)),
        labels=bundle.test.labels[evaluated].numpy(),
        scheme=scheme,
        figures=figures,
    )
    return Exported(f"{model.name}{INT8_SUFFIX}", path, card)


def _evaluated(labels: Tensor) -> Tensor:
    """Return which test images evaluate an int8 model: int64 of shape ``(images,)``.

    If there are more than :data:`EVALUATED_IMAGES`, they are so many in which each class has its share: those of a
    folder are in the order of their classes.
    """
    if len(labels) <= EVALUATED_IMAGES:
        return torch.arange(len(labels))
    return mixed_order(labels, torch.Generator().manual_seed(0))[:EVALUATED_IMAGES]


def pixels_of(part: Dataset) -> npt.NDArray[np.uint8]:
    """Return the images of ``part`` as files have them, of shape (N, H, W, C)."""
    pixels: npt.NDArray[np.uint8] = part.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels
