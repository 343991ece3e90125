"""From a latency table and its device to the energy of networks: measured for a few, predicted for the others."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from cars_hw.config.checksummed import checksum
from cars_hw.config.codec import unstructure
from cars_hw.config.measurement import EnergyPlan
from cars_hw.devices.host.conditions import now
from cars_hw.devices.protocol import Device
from cars_hw.errors import DeviceError, InputError, TableError
from cars_hw.latency.energy import EnergyState, MeteredNetwork, fit_energy, spread
from cars_hw.latency.measure import name_of, write_models
from cars_hw.latency.predictor import DEFAULT_LEVEL, Predictor
from cars_hw.latency.profile import SAME_MACHINE
from cars_hw.latency.table import LatencyTable
from cars_hw.measurement.energy import measure_energy, require_energy_device
from cars_hw.measurement.energy_journal import EnergyJournal
from cars_hw.nn.cost import network_cost
from cars_hw.progress import Log, Progress
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec

SUFFIX: Final = ".energy.partial"
"""What the name of a table is followed by in that of the measurements of an unfinished energy."""


class EnergyPrediction(NamedTuple):
    """The energy of a network beyond rest and its upper bound, both in millijoules."""

    mj: float
    bound_mj: float


class EnergyPredictor:
    """Predicts the energy of networks by the energy in ``table``.

    The upper bound is ``margin`` (a fraction) above the prediction and holds for a share ``level`` of networks; few
    measured networks allow a lower level than the wanted one.

    Raises:
        InputError: the table has no energy, or the level is not between 0 and 1.
        TableError: the table has no predictor of the latency.
    """

    def __init__(self, table: LatencyTable, level: float = DEFAULT_LEVEL) -> None:
        self._state = require_energy(table)
        self._latency = Predictor(table)
        self._of_network: dict[NetworkSpec, Predictor] = {}
        self.margin, self.level = self._state.margin(level)

    def predict(self, architecture: Architecture) -> EnergyPrediction:
        """Return the energy of ``architecture``.

        Raises:
            TableError: the table is not for its network.
        """
        genotype, network = architecture
        if network not in self._of_network:
            # The predictors of one network at a time: a search asks for networks of all sizes.
            self._of_network = {network: self._latency.at(network)}
        ms = self._of_network[network].predict(genotype).ms
        mj = self._state.mj(ms, network_cost(network, genotype).multiply_adds)
        return EnergyPrediction(mj, mj * (1 + self.margin))


def require_energy(table: LatencyTable) -> EnergyState:
    """Return the energy of ``table``.

    Raises:
        InputError: it was not measured.
    """
    if table.energy is None:
        raise InputError(
            f"the table of {table.device} does not have the energy of networks", remedy="measure-energy"
        )
    return table.energy


def measure_table_energy(
    table: LatencyTable,
    device: Device,
    plan: EnergyPlan | None = None,
    *,
    out: Path | None = None,
    progress: Progress = show,
    log: Log = show.log,
) -> LatencyTable:
    """Return ``table`` with the energy of some of its networks, measured on ``device``, and a prediction.

    The networks are spread over the range of latencies. ``progress`` counts the models that are written, and those
    that are measured in each round. With ``out`` the table is written there, and until then every measurement is
    kept beside it: the same call goes on with them after an interruption, which ``log`` tells.

    Raises:
        InputError: the device does not tell its energy, or the table has less than four networks.
        TableError: the table is of another device, or has no predictor, or an interrupted measurement had other
            settings.
        DeviceError: the device fails, or an energy is not known well enough; see
            :func:`cars_hw.measurement.energy.measure_energy`.
    """
    plan = plan or EnergyPlan()
    require_same_device(table, device)
    try:
        meter = require_energy_device(device).energy_meter()
    finally:
        # Models are written meanwhile, which may fail, and nobody would free the lock of a phone.
        device.release()
    own = {"table": checksum(unstructure(replace(table, energy=None))), "meter": meter}
    wanted = {"networks": plan.networks, "max_error": plan.max_error}
    path = None if out is None else out.with_name(f"{out.name}{SUFFIX}")
    known = table.calibrated
    places = spread([network.measured.ms for network in table.calibration], plan.networks)
    chosen = [known[place] for place in places]
    journal = EnergyJournal(path, {**own, **wanted}, len(chosen))
    if journal.done:
        log(f"goes on after {journal.done} measurements of networks, which {path} has")
    predicted = left_out_latencies(table)
    latencies = [predicted[place] for place in places]
    adds = [float(network_cost(one.network, one.genotype).multiply_adds) for one in chosen]
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        models = write_models(device, chosen, Path(folder), table.precision, progress)
        names = dict(zip(models, map(name_of, chosen), strict=True))
        energies = measure_energy(
            device, models, plan, progress=progress, name_of=lambda path: names[path], journal=journal
        )
    try:
        fit = fit_energy(latencies, adds, [energy.mj for energy in energies])
    except DeviceError:
        journal.remove()
        raise
    networks = tuple(
        MeteredNetwork(one.genotype, one.network.channels, one.network.layers, one.network.resolution, energy)
        for one, energy in zip(chosen, energies, strict=True)
    )
    table = replace(table, energy=EnergyState(meter, now(), networks, *fit))
    if out is not None:
        table.write(out)
    journal.remove()
    return table


def left_out_latencies(table: LatencyTable) -> list[float]:
    """Return the latency in the quiet state, in milliseconds, that is predicted for each calibration network.

    The predictor is then one that was not fitted to this network: for other networks it is as good, and the upper
    bound of the energy has its error, too. Anchors are never left out.

    Raises:
        TableError: the table has no predictor, or not one residual for each network that was left out.
    """
    predictor = Predictor(table)
    assert table.predictor is not None
    residuals = iter(table.predictor.residuals)
    found = []
    for network, (genotype, spec) in zip(table.calibration, table.calibrated, strict=True):
        if network.anchor:
            found.append(predictor.at(spec).predict(genotype).ms)
        else:
            found.append(network.measured.ms / (1 + next(residuals)))
    return found


def require_same_device(table: LatencyTable, device: Device) -> None:
    """Check that ``table`` is of ``device``, on the same machine; a phone may have another address.

    The devices of all computers have the same names, so that the conditions have to tell machines apart.

    Raises:
        TableError: it is not.
    """
    conditions = device.conditions()
    present = {
        "device": conditions.get("device_identity", device.name),
        **{name: conditions.get(name) for name in SAME_MACHINE},
    }
    kept = {
        "device": table.conditions.get("device_identity", table.device),
        **{name: table.conditions.get(name) for name in SAME_MACHINE},
    }
    for what, value in kept.items():
        if present[what] != value:
            raise TableError(f"the table is for the {what} {value}, not for {present[what]}; profile that device")
