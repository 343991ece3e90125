"""Which networks a run is compared with: those whose latency is in the range of the run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.setting import Settings, milliseconds
from cars_hw.devices import Device
from cars_hw.errors import RunError
from cars_hw.export.lower import lower_network
from cars_hw.export.onnx import ONNX
from cars_hw.export.write import write_graph
from cars_hw.latency.measure import name_of
from cars_hw.measurement.naming import naming
from cars_hw.measurement.schedule import measure
from cars_hw.nn.network import Network
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.progress import Progress, counted
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.studies.front_membership import OutOfRange
from cars_hw.studies.references import make, write_onnx

MARGIN: Final = 1.25
"""References are compared if they are at most this many times slower or faster than the range of the run."""

SESSIONS: Final = 2
PATIENCE_S: Final = 20.0
"""The measurement that decides which references are trained has so many sessions and seconds at most."""

FILE: Final = "reference-latencies.json"

LATENCIES: Final = ChecksummedFormat("cars-hw reference latencies", 1, "remake-study", RunError)


@dataclass(frozen=True)
class ReferenceLatency(Settings):
    """The measured latency of a reference with fresh weights, in milliseconds."""

    name: str
    ms: float = milliseconds()


@dataclass(frozen=True)
class ReferenceLatencies(Settings):
    """The latencies that decided which references are trained, on ``threads`` of ``device`` for ``network``."""

    device: str
    threads: int
    network: NetworkSpec
    latencies: tuple[ReferenceLatency, ...]


@dataclass(frozen=True)
class Range:
    """The latencies of a run's networks on a device, in milliseconds. ``high_ms`` is the budget if there is one."""

    low_ms: float
    high_ms: float

    def has(self, ms: float) -> bool:
        """Return whether ``ms`` is within the range or close to it."""
        return self.low_ms / MARGIN <= ms <= self.high_ms * MARGIN


def target_on(run: RunFolder, device: Device) -> LatencyTarget | None:
    """Return the latency target of ``run`` on ``device`` with as many threads; None if there is none.

    Raises:
        TableError: its table cannot be read.
    """
    threads = device.conditions()["threads"]
    for index, record in enumerate(run.configuration.targets):
        if (record.device, record.threads, record.precision) == (device.name, threads, "fp32"):
            return run.target(index)
    return None


def range_of(target: LatencyTarget, networks: Iterable[Architecture]) -> Range:
    """Return the range from the fastest of ``networks`` to the budget, or without one to the slowest."""
    predicted = [target.predict(one).ms for one in networks]
    return Range(min(predicted), max(predicted) if target.limit_ms is None else target.limit_ms)


def scaled(
    genotype: Genotype, sizes: SizeGrid, network: NetworkSpec, target: LatencyTarget, budget_ms: float
) -> Architecture | None:
    """Return ``genotype`` at the size of ``sizes`` that comes nearest below ``budget_ms``; None if none is below.

    As in a search, the upper bound of the predicted latency is compared with the budget. ``network`` has everything
    but the size.
    """
    found: tuple[float, Architecture] | None = None
    for spec in sizes.networks(network):
        one = Architecture(genotype, spec)
        bound = target.predict(one).bound_ms
        if bound <= budget_ms and (found is None or bound > found[0]):
            found = bound, one
    return None if found is None else found[1]


def measured_range(
    device: Device, plan: MeasurePlan, networks: Sequence[Architecture], progress: Progress
) -> Range:
    """Return the range of the measured latencies of ``networks``, which have fresh weights."""
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        paths = [Path(folder) / f"{index}.{device.model_format}" for index in range(len(networks))]
        with torch.random.fork_rng(devices=[]):
            for (genotype, spec), path in zip(networks, paths, strict=True):
                write_graph(lower_network(Network(spec, genotype).eval()), path, device.model_format)
        with naming(dict(zip(paths, map(name_of, networks), strict=True))):
            found = [one.ms for one in measure(device, paths, _short(plan), progress=progress).models]
    return Range(min(found), max(found))


def within(
    models: Mapping[str, str], latencies: Mapping[str, float], wanted: Range
) -> tuple[dict[str, str], tuple[OutOfRange, ...]]:
    """Return those of ``models`` whose latency is in the ``wanted`` range, and the others, the fastest first."""
    chosen = {name: model for name, model in models.items() if wanted.has(latencies[name])}
    others = sorted((latencies[name], name) for name in models if name not in chosen)
    return chosen, tuple(OutOfRange(name, ms) for ms, name in others)


def reference_latencies(
    device: Device,
    models: Mapping[str, str],
    network: NetworkSpec,
    plan: MeasurePlan,
    *,
    folder: Path,
    progress: Progress,
) -> dict[str, float]:
    """Return the latencies of torchvision's ``models`` with fresh weights, by the names they are given.

    They are kept in ``folder``, so that a command that is repeated trains the same networks. With another device,
    other threads or another network they are measured again.

    Raises:
        RunError: the file in ``folder`` is damaged.
        DeviceError: the device fails.
    """
    path, threads = folder / FILE, device.conditions()["threads"]
    kept = LATENCIES.read_record(path, ReferenceLatencies) if path.is_file() else None
    known = {}
    if kept is not None and (kept.device, kept.threads, kept.network) == (device.name, threads, network):
        known = {one.name: one.ms for one in kept.latencies}
    missing = [name for name in models if name not in known]
    if not missing:
        return {name: known[name] for name in models}
    found = _measured(device, [models[name] for name in missing], network, plan, progress)
    known |= dict(zip(missing, found, strict=True))
    latencies = tuple(ReferenceLatency(name, ms) for name, ms in known.items())
    LATENCIES.write_record(path, ReferenceLatencies(device.name, threads, network, latencies))
    return {name: known[name] for name in models}


def _measured(
    device: Device, models: Sequence[str], network: NetworkSpec, plan: MeasurePlan, progress: Progress
) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        paths = [Path(folder) / f"{index}{ONNX.suffix}" for index in range(len(models))]
        with torch.random.fork_rng(devices=[]):
            for model, path in counted(list(zip(models, paths, strict=True)), progress, "writing references"):
                write_onnx(make(model, network.input_shape, network.classes), network.input_shape, path)
        with naming(dict(zip(paths, models, strict=True))):
            return [one.ms for one in measure(device, paths, _short(plan), progress=progress).models]


def _short(plan: MeasurePlan) -> MeasurePlan:
    return replace(
        plan,
        sessions=min(plan.sessions, SESSIONS),
        patience_seconds=min(plan.patience_seconds, PATIENCE_S),
    )
