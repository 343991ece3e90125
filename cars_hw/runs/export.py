"""The third step of a run: its trained networks become model files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cars_hw.data import load
from cars_hw.errors import InputError, RunError
from cars_hw.export.card import ModelCard, Preprocessing
from cars_hw.export.export import export_onnx
from cars_hw.genotype import Genotype
from cars_hw.latency.models import seeded
from cars_hw.network import Network
from cars_hw.runs.folder import RunFolder
from cars_hw.runs.promises import Promises
from cars_hw.runs.search import DataSource
from cars_hw.runs.train import load_trained
from cars_hw.spec import NetworkSpec

FORMATS = ("onnx",)


@dataclass(frozen=True)
class Exported:
    """A model file and its card."""

    name: str
    path: Path
    card: ModelCard


def require_formats(formats: Sequence[str]) -> None:
    """Check that every one of ``formats`` can be written.

    Raises:
        InputError: one cannot.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(f"unknown format '{', '.join(unknown)}'; this version writes: {', '.join(FORMATS)}")


def export_run(
    run: RunFolder,
    *,
    data: DataSource,
    formats: Sequence[str] = FORMATS,
    out: Path | None = None,
    dynamic_batch: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Exported]:
    """Export every trained network of ``run`` to ``out``, the run's own ``models/`` by default.

    Raises:
        RunError: no network has been trained.
        ExportError: a file does not compute what its network does; it is not written.
    """
    require_formats(formats)
    trained = run.trained()
    if not trained:
        raise RunError(f"no network of {run.path} has been trained; first run: cars-hw train {run.path}")
    bundle = load(data.source, root=data.root, download=data.download, resolution=run.network.resolution)
    promises = Promises(run)
    exported = []
    for done, network in enumerate(trained):
        progress(done, len(trained))
        promise = next(iter(promises.of(network.genotype)), None)
        path = run.model_path(network.name, "onnx") if out is None else out / f"{network.name}.onnx"
        card = export_onnx(
            load_trained(run, network),
            path,
            preprocessing=Preprocessing(bundle.mean, bundle.std, bundle.resolution),
            class_names=bundle.class_names,
            accuracy=network.accuracy,
            predicted_ms=promise.predicted_ms if promise else None,
            bound_ms=promise.bound_ms if promise else None,
            dynamic_batch=dynamic_batch,
        )
        exported.append(Exported(network.name, path, card))
    progress(len(trained), len(trained))
    return exported


def export_genotype(
    genotype: Genotype,
    spec: NetworkSpec,
    out: Path,
    *,
    name: str,
    formats: Sequence[str] = FORMATS,
    dynamic_batch: bool = False,
) -> Exported:
    """Export the network of ``genotype`` under ``spec`` with fresh weights: to measure, or to train elsewhere.

    The same genotype always gives the same file, with numbers of the size that a trained network has.

    Pixels are scaled to -1 to 1, and classes have numbers for names: there is no data to take them from.

    Raises:
        ExportError: the file does not compute what the network does; it is not written.
    """
    require_formats(formats)
    path = out / f"{name}.onnx"
    middle = (0.5,) * spec.in_channels
    card = export_onnx(
        seeded(lambda: Network(spec, genotype), repr(genotype)),
        path,
        preprocessing=Preprocessing(middle, middle, spec.resolution),
        class_names=[str(number) for number in range(spec.classes)],
        dynamic_batch=dynamic_batch,
    )
    return Exported(name, path, card)
