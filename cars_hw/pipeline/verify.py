"""The last step of a run: its exported models are measured against what was promised."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cars_hw.config.measurement import MeasurePlan, Precision
from cars_hw.devices.protocol import Device, Measurement
from cars_hw.errors import RunError
from cars_hw.export.card import ModelCard, card_path
from cars_hw.export.write import build_network
from cars_hw.latency.table import LatencyTable
from cars_hw.measurement.schedule import measure
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.latency_target import Promises
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.progress import Progress, silent


@dataclass(frozen=True)
class Verified:
    """One exported model: promised and measured, in milliseconds; accuracy a fraction of the test images.

    ``drift`` is how much slower the table's reference network ran beside it than when the table was made, a
    fraction; None without a table.
    """

    name: str
    device: str
    precision: Precision
    accuracy: float | None
    parameters: int
    predicted_ms: float | None
    bound_ms: float | None
    asked_ms: float | None
    measured_ms: float
    spread: float
    drift: float | None = None

    @property
    def deviation(self) -> float | None:
        """How much slower (positive) or faster than predicted it is, a fraction of the prediction."""
        return self.measured_ms / self.predicted_ms - 1 if self.predicted_ms else None

    @property
    def within_budget(self) -> bool | None:
        """Whether it keeps to the budget; None where none was asked for."""
        return None if self.asked_ms is None else self.measured_ms <= self.asked_ms

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "deviation": self.deviation, "within_budget": self.within_budget}


def verify_run(
    run: RunFolder,
    device: Device,
    *,
    plan: MeasurePlan | None = None,
    progress: Progress = silent,
) -> list[Verified]:
    """Measure every exported model of ``run`` on ``device``, and note it in the run and in the models' cards.

    Raises:
        RunError: nothing has been exported for this device.
        DeviceError: the device fails.
    """
    paths = sorted((run.path / "models").glob(f"*.{device.model_format}"))
    if not paths:
        raise RunError(
            f"{run.path} has no {device.model_format} models to measure; first run: cars-hw export {run.path}"
        )
    cards = [ModelCard.read(card_path(path)) for path in paths]
    promises = Promises(run)
    measured, drift = _measure(device, paths, promises.table(device.name), plan, progress)
    rows = []
    for path, card, measurement in zip(paths, cards, measured, strict=True):
        promise = promises.on(device.name, card.precision, card.genotype)
        rows.append(
            Verified(
                name=path.stem,
                device=device.name,
                precision=card.precision,
                accuracy=card.accuracy,
                parameters=network_cost(card.network, card.genotype).parameters,
                predicted_ms=promise.predicted_ms if promise else None,
                bound_ms=promise.bound_ms if promise else None,
                asked_ms=promise.asked_ms if promise else None,
                measured_ms=measurement.ms,
                spread=measurement.spread,
                drift=drift,
            )
        )
        replace(card, measured_ms=measurement.ms).write(card_path(path))
    others = [row for row in run.verified() if row.get("device") != device.name]
    run.write_verified([*others, *(row.to_dict() for row in rows)])
    return rows


def _measure(
    device: Device,
    paths: Sequence[Path],
    table: LatencyTable | None,
    plan: MeasurePlan | None,
    progress: Progress,
) -> tuple[list[Measurement], float | None]:
    """Return a measurement of each of ``paths``, and how much slower ``table``'s reference is by now."""
    if table is None or table.reference is None:
        return measure(device, paths, plan, progress=progress).models, None
    usual_ms = table.reference.usual_ms
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        beside = Path(folder) / f"reference.{device.model_format}"
        build_network(table.spec, table.reference.genotype, beside, device.model_format, table.precision)
        found = measure(device, paths, plan, reference=beside, usual_ms=usual_ms, progress=progress)
    assert found.reference is not None
    return found.models, found.reference.ms / usual_ms - 1
