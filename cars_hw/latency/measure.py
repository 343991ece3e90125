"""Whole networks on a device."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from cars_hw.config.measurement import MeasurePlan, Precision, SustainedPlan
from cars_hw.devices.protocol import Device
from cars_hw.export.write import build_network
from cars_hw.measurement.naming import naming
from cars_hw.measurement.schedule import Clock, Measured, measure
from cars_hw.measurement.sustained import Sustained, measure_sustained
from cars_hw.progress import Progress, counted
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.zoo import whole_zoo


def measure_genotypes(
    device: Device,
    spec: NetworkSpec,
    genotypes: Sequence[Genotype],
    plan: MeasurePlan | None = None,
    progress: Progress = show,
    *,
    precision: Precision = "fp32",
    reference: Architecture | None = None,
    expected_ms: float | None = None,
) -> Measured:
    """Return the latency of each genotype's network under ``spec``; see :func:`measure_architectures`."""
    architectures = [Architecture(genotype, spec) for genotype in genotypes]
    return measure_architectures(
        device,
        architectures,
        plan,
        progress,
        precision=precision,
        reference=reference,
        expected_ms=expected_ms,
    )


def measure_architectures(
    device: Device,
    architectures: Sequence[Architecture],
    plan: MeasurePlan | None = None,
    progress: Progress = show,
    *,
    precision: Precision = "fp32",
    reference: Architecture | None = None,
    expected_ms: float | None = None,
) -> Measured:
    """Return the latency of each of ``architectures``, exported with fresh weights at ``precision``.

    ``progress`` counts the models that are written, then the sessions. :func:`cars_hw.measurement.schedule.measure`
    explains ``reference`` and ``expected_ms``.

    Raises:
        InputError: the device runs a format that this version cannot write.
        DeviceError: the device fails.
    """
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        models = write_models(device, architectures, Path(folder), precision, progress)
        names = dict(zip(models, map(name_of, architectures), strict=True))
        beside = None
        if reference is not None:
            beside = Path(folder) / f"reference.{device.model_format}"
            build_network(reference.network, reference.genotype, beside, device.model_format, precision)
            names[beside] = name_of(reference)
        with naming(names):
            return measure(device, models, plan, reference=beside, expected_ms=expected_ms, progress=progress)


def sustained_architectures(
    device: Device,
    architectures: Sequence[Architecture],
    plan: SustainedPlan | None = None,
    progress: Progress = show,
    *,
    precision: Precision = "fp32",
    clock: Clock | None = None,
) -> list[Sustained]:
    """Return what each of ``architectures`` takes after minutes of load, exported with fresh weights.

    ``progress`` counts the models that are written, then the seconds of load of each.

    Raises:
        InputError: the device cannot run a model for minutes, or runs a format that this version cannot write.
        DeviceError: the device fails.
    """
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        models = write_models(device, architectures, Path(folder), precision, progress)
        with naming(dict(zip(models, map(name_of, architectures), strict=True))):
            return measure_sustained(device, models, plan, progress=progress, clock=clock)


def name_of(architecture: Architecture) -> str:
    """Return what messages call the network of ``architecture``: its name in the zoo, or else its genotype."""
    genotype = architecture.genotype
    name = next((name for name, entry in whole_zoo().items() if entry.genotype == genotype), genotype.to_darts())
    return f"the network {name} ({architecture.network.size})"


def write_models(
    device: Device, architectures: Sequence[Architecture], folder: Path, precision: Precision, progress: Progress
) -> list[Path]:
    """Write ``architectures`` into ``folder`` in the format of ``device``; return the files in the same order."""
    models = [folder / f"{index}.{device.model_format}" for index in range(len(architectures))]
    written = list(zip(architectures, models, strict=True))
    for (genotype, network), model in counted(written, progress, "writing models"):
        build_network(network, genotype, model, device.model_format, precision)
    return models
