"""Whole networks on a device."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from cars_hw.devices.protocol import Device, Measurement, MeasurePlan, Progress
from cars_hw.genotype import Genotype
from cars_hw.latency.models import build_network
from cars_hw.spec import NetworkSpec


def measure_genotypes(
    device: Device,
    spec: NetworkSpec,
    genotypes: Sequence[Genotype],
    plan: MeasurePlan | None = None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Return the latency of each genotype's network under ``spec``, exported with fresh weights.

    ``progress`` is called with the model sessions done so far.

    Raises:
        InputError: the device runs a format that this version cannot write.
        DeviceError: the device fails.
    """
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        models = [Path(folder) / f"{index}.{device.model_format}" for index in range(len(genotypes))]
        for genotype, model in zip(genotypes, models, strict=True):
            build_network(spec, genotype, model, device.model_format)
        return device.measure(models, plan or MeasurePlan(), progress)
