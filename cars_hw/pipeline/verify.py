"""The last step of a run: its exported models are measured and compared with the prediction and the limit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cars_hw.config.checksummed import checksum
from cars_hw.config.measurement import QUIET, SUSTAINED, EnergyPlan, MeasurePlan, SustainedPlan
from cars_hw.devices.protocol import Device, Measurement, warnings_of
from cars_hw.errors import RunError, TableError
from cars_hw.export.card import CardLatency, ModelCard, card_path, verified_card
from cars_hw.export.write import build_network
from cars_hw.latency.profile import SAME_MACHINE
from cars_hw.latency.table import LatencyTable
from cars_hw.measurement.energy import Energy, measure_energy, require_energy_device
from cars_hw.measurement.naming import naming
from cars_hw.measurement.schedule import MAX_SLOWER, Measured, measure
from cars_hw.measurement.sustained import Sustained, measure_sustained, require_load_device
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.costs import ENERGY, parse_cost
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.records import Verified
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import VerifySettings
from cars_hw.progress import Progress
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture


def verify_run(
    run: RunFolder,
    device: Device,
    *,
    plan: MeasurePlan | None = None,
    sustained: SustainedPlan | None = None,
    energy: EnergyPlan | None = None,
    progress: Progress = show,
) -> list[Verified]:
    """Measure every exported model of ``run`` on ``device``; write the figures to the run and to the models' cards.

    With ``sustained``, measure them after minutes of load, too. A limit that holds in the sustained state is then
    compared with the 90th percentile of these runs, and otherwise with an estimate: the latency in the quiet state
    times the factor of the table. If the device has several limits, each model is compared with the one of which
    it uses the largest share. With ``energy``, measure the energy of a run of each model, too. Without one of
    the two, a row keeps what an earlier verification measured of the same model file on the same machine.

    Raises:
        RunError: nothing has been exported for this device, a file of the run is damaged, or another process
            writes to the run.
        InputError: a model or its card is damaged, or the device cannot run a model for minutes.
        TableError: the run's tables of this device are for another number of threads.
        DeviceError: the device fails.
    """
    with run.lock():
        return _verify(run, device, plan, sustained, energy=energy, progress=progress)


def _verify(
    run: RunFolder,
    device: Device,
    plan: MeasurePlan | None,
    sustained: SustainedPlan | None,
    *,
    energy: EnergyPlan | None,
    progress: Progress,
) -> list[Verified]:
    if sustained is not None:
        require_load_device(device)
    if energy is not None:
        try:
            require_energy_device(device)
        finally:
            # What follows may fail before anything is measured.
            device.release()
    paths = sorted((run.path / "models").glob(f"*.{device.model_format}"))
    if not paths:
        raise RunError(f"{run.path} has no {device.model_format} models to measure", remedy="export", run=run.path)
    cards = [verified_card(path) for path in paths]
    # What is damaged is found before the device is measured.
    before = run.verified()
    conditions = device.conditions()
    threads = int(conditions["threads"])
    device_name = _name_in(run.targets(), device.name, conditions.get("device_identity"))
    targets = _targets_on(run.targets(), device_name, threads)
    found = _measure(device, paths, targets[0].table if targets else None, plan, progress)
    loads: list[Sustained | None] = [None] * len(paths)
    if sustained is not None:
        loads = [*measure_sustained(device, paths, sustained, progress=progress)]
    spent: list[Energy | None] = [None] * len(paths)
    if energy is not None:
        spent = [*measure_energy(device, paths, energy, progress=progress)]
    limit_mj = _energy_limit(run)
    slower = found.machine.slower_than_expected
    rows = []
    for path, card, measurement, load, own in zip(paths, cards, found.models, loads, spent, strict=True):
        architecture = Architecture(card.genotype, card.network)
        fitting = _most_used_first(targets, card, measurement, load)
        predicting = next((one for one in fitting if one.table.covers(card.network)), None)
        # A budget holds for every size, also for one that no table predicts.
        target = predicting or next(iter(fitting), None)
        estimate = predicting.estimate(architecture) if predicting is not None else None
        measured_ms = _in_state(measurement, load, target)
        rows.append(
            Verified(
                name=path.stem,
                device=device_name,
                precision=card.precision,
                threads=threads,
                accuracy=card.accuracy,
                test_images=card.test_images,
                parameters=network_cost(card.network, card.genotype).parameters,
                predicted_ms=estimate.predicted_ms if estimate else None,
                bound_ms=estimate.bound_ms if estimate else None,
                limit_ms=target.limit_ms if target is not None else None,
                measured_ms=measured_ms,
                spread=measurement.spread,
                drift=None if slower is None else slower - 1,
                state=target.state if target is not None else QUIET,
                usual_ms=measurement.in_state((target.table if target else found).machine.usual_factor),
                quiet=measurement.quiet_sessions > 0 and (slower is None or slower <= MAX_SLOWER),
                quality_warnings=estimate.quality_warnings if estimate else (),
                device_warnings=warnings_of(device),
                sustained=load,
                energy=own,
                # The limit is that of the device whose table has the energy.
                limit_mj=limit_mj if target is not None and target.table.energy is not None else None,
                origin=_origin(card, conditions),
                **_predicted_energy(predicting, architecture),
            )
        )
        latency = (
            CardLatency(
                device_name, threads, target.state if target is not None else QUIET, measured_ms=measured_ms
            )
            if predicting is None
            else predicting.card_latency(architecture, measured_ms)
        )
        card.with_latency(latency).write(card_path(path))
    rows = [_with_earlier(row, before) for row in rows]
    run.write_verified([*(row for row in before if row.device != device_name), *rows])
    settings = VerifySettings(
        device.name,
        threads,
        plan or MeasurePlan(),
        sustained=sustained is not None,
        load=sustained or SustainedPlan(),
        energy=energy is not None,
        metering=energy or EnergyPlan(),
        meter=getattr(device, "meter", "auto"),
    )
    run.add_step("verify", settings)
    return rows


def _with_earlier(row: Verified, before: Sequence[Verified]) -> Verified:
    """Return ``row`` with what an earlier verification of the same model measured besides, and this one did not.

    A limit in the sustained state is compared with figures of now, so that earlier ones are not beside them.
    """
    for one in before:
        # The devices of all computers have the same names, and a phone may have the address of another one.
        if (one.name, one.device, one.origin) == (row.name, row.device, row.origin):
            load = row.sustained or (None if row.state == SUSTAINED else one.sustained)
            return replace(row, energy=row.energy or one.energy, sustained=load)
    return row


def _origin(card: ModelCard, conditions: Mapping[str, Any]) -> str:
    """Return a digest of the file of the model of ``card`` and of what tells the machine from others."""
    machine = {name: conditions.get(name) for name in ("device_identity", *SAME_MACHINE)}
    return checksum({"model": card.digest, **machine})


def _in_state(measurement: Measurement, load: Sustained | None, target: LatencyTarget | None) -> float:
    """Return the latency in milliseconds in the state of the target; without one, in the quiet state."""
    if target is None:
        return measurement.ms
    return load.p90_ms if load is not None and target.state == SUSTAINED else target.in_state(measurement)


def _energy_limit(run: RunFolder) -> float | None:
    """Return the limit of the energy in millijoules with which ``run`` was searched; None without one."""
    costs = dict(parse_cost(text) for text in run.configuration.costs)
    return costs.get(ENERGY)


def _predicted_energy(target: LatencyTarget | None, architecture: Architecture) -> dict[str, float]:
    """Return the predicted energy and its bound, in millijoules; nothing if the table does not have the energy."""
    if target is None or target.table.energy is None:
        return {}
    mj, bound_mj = target.energy_predictor.predict(architecture)
    return {"predicted_mj": mj, "bound_mj": bound_mj}


def _name_in(targets: Sequence[LatencyTarget], name: str, identity: str | None) -> str:
    """Return the name that the tables of ``targets`` have for a device: a phone may have another address now."""
    same = (one.device_name for one in targets if one.table.conditions.get("device_identity") == identity)
    return name if identity is None else next(same, name)


def _targets_on(targets: Sequence[LatencyTarget], device: str, threads: int) -> list[LatencyTarget]:
    """Return those of ``targets`` that are for ``device`` with this many threads; none where no table is of it.

    Raises:
        TableError: there are tables of the device, and all are for other numbers of threads.
    """
    known = sorted({target.threads for target in targets if target.device_name == device})
    if known and threads not in known:
        numbers = f"{' or '.join(map(str, known))} thread{'s' if known != [1] else ''}"
        raise TableError(
            f"the run's tables of {device} are for {numbers}, the device runs with {threads}, and their latencies "
            f"cannot be compared; measure with {numbers}, or search with a table that was profiled with {threads}"
        )
    return [target for target in targets if (target.device_name, target.threads) == (device, threads)]


def _most_used_first(
    targets: Sequence[LatencyTarget], card: ModelCard, measured: Measurement, load: Sustained | None
) -> list[LatencyTarget]:
    """Return those of ``targets`` that are for the model of ``card``: first the one whose limit it uses most.

    A device may have several limits, such as one in the quiet and one in the usual state. The model is compared
    with the first of the result, so that a limit that is missed does not go unnoticed behind one that is kept.
    """
    # Tables of int8 are for asymmetric models.
    fitting = [one for one in targets if card.int8 != "symmetric" and one.precision == card.precision]

    def use(target: LatencyTarget) -> float:
        return 0.0 if target.limit_ms is None else _in_state(measured, load, target) / target.limit_ms

    return sorted(fitting, key=use, reverse=True)


def _measure(
    device: Device,
    paths: Sequence[Path],
    table: LatencyTable | None,
    plan: MeasurePlan | None,
    progress: Progress,
) -> Measured:
    """Return a measurement of each of ``paths``, beside the reference network of ``table`` if there is one."""
    if table is None or table.reference is None:
        return measure(device, paths, plan, progress=progress)
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        beside = Path(folder) / f"reference.{device.model_format}"
        build_network(table.spec, table.reference.genotype, beside, device.model_format, table.precision)
        expected_ms = table.reference.measured.ms
        with naming({beside: "the reference network of the table"}):
            return measure(device, paths, plan, reference=beside, expected_ms=expected_ms, progress=progress)
