"""What a search aims at on one device, and what is known of a network's latency there.

:class:`LatencyTarget` is the only holder of a table, its limit and its predictor. The command line makes one for
each table; the search, the confirmation of the front, the export, the verification and the report use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from cars_hw.config.measurement import QUIET, SUSTAINED, USUAL, Precision, require_state
from cars_hw.config.setting import Settings, count, milliseconds, predicted
from cars_hw.config.units import in_milliseconds
from cars_hw.devices import Device, Measurement, ModelFormat, format_of, open_device
from cars_hw.errors import CarsHwError, InputError
from cars_hw.evolution.objectives import CostObjective
from cars_hw.export.card import CardLatency
from cars_hw.latency import LatencyTable, Prediction, Predictor
from cars_hw.latency.measure_energy import EnergyPredictor
from cars_hw.latency.predictor import DEFAULT_LEVEL
from cars_hw.latency.profile import SAME_MACHINE
from cars_hw.latency.validation import require_device
from cars_hw.pipeline.costs import ENERGY
from cars_hw.pipeline.records import TargetRecord
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec

MOST_PREDICTORS: Final = 512
"""A target keeps the predictors of at most so many networks; one takes some 25 kB and more."""


@dataclass(frozen=True)
class LatencyEstimate(Settings):
    """A network's latency on one device, in milliseconds: the prediction, its upper bound, and the limit.

    The figures are those of ``state``. ``usual_ms`` is the prediction for the usual state of the machine.
    ``limit_ms`` is None where the search had no limit. ``measured_ms`` is the latency that was measured when the
    front was confirmed, with untrained weights; None if the network was not measured. All figures are for models
    of ``precision`` that run on ``threads`` threads. ``quality_warnings`` are the reasons why the table behind the
    figures is unreliable.
    """

    device: str
    predicted_ms: float = predicted()
    bound_ms: float = predicted()
    limit_ms: float | None = milliseconds()
    measured_ms: float | None = milliseconds(None)
    precision: Precision = "fp32"
    threads: int = count(1, minimum=1)
    state: str = QUIET
    usual_ms: float | None = predicted(None)
    quality_warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_state(self.state)

    @property
    def over_limit(self) -> bool:
        """Whether the measured latency exceeds the limit; False without a measurement or a limit."""
        return self.limit_ms is not None and self.measured_ms is not None and self.measured_ms > self.limit_ms

    @property
    def usually_over_limit(self) -> bool:
        """Whether the latency in the usual state exceeds the limit; False if one of them is not known."""
        return self.limit_ms is not None and self.usual_ms is not None and self.usual_ms > self.limit_ms


@dataclass(frozen=True)
class LatencyTarget:
    """A device's latency table, and the latency that a network may have there.

    ``limit_ms`` is in milliseconds; None minimises the latency without a limit. ``device`` is the open device, or
    None where it is not available; the front is confirmed on the devices that are. The limit is compared with the
    predictor's upper bound, which holds for a share ``level`` of networks. ``state`` is the state of the machine in
    which the limit holds: ``quiet``, ``usual``, ``sustained``, or a quantile over the time such as ``0.9``.
    Networks that are predicted to be faster than ``at_least_ms`` are of no interest.

    Methods that take an architecture raise TableError if the table is not for its network, lacks an entry or has no
    predictor.

    Raises:
        InputError: the limit is not positive, what is of interest is not below it, the state is unknown, or it was
            not measured.
        TableError: ``device`` is another device than the table's, or runs models on another number of threads.
    """

    table: LatencyTable
    limit_ms: float | None = None
    device: Device | None = field(default=None, compare=False, repr=False)
    level: float = DEFAULT_LEVEL
    state: str = QUIET
    at_least_ms: float | None = None

    def __post_init__(self) -> None:
        if self.limit_ms is not None and not self.limit_ms > 0:
            raise InputError(f"a latency limit must be positive, not {self.limit_ms} ms")
        if self.at_least_ms is not None and not 0 < self.at_least_ms < (self.limit_ms or math.inf):
            limit = "" if self.limit_ms is None else f" and below the limit of {in_milliseconds(self.limit_ms)}"
            raise InputError(
                f"the smallest latency of interest must be positive{limit}, not {in_milliseconds(self.at_least_ms)}"
            )
        self.table.factor(self.state)
        if self.device is not None:
            require_device(self.table, self.device)

    @property
    def device_name(self) -> str:
        """The name of the table's device, such as ``ort``."""
        return self.table.device

    @property
    def precision(self) -> Precision:
        """The precision of the models that the table is for."""
        return self.table.precision

    @property
    def threads(self) -> int:
        """The number of threads that the models run on."""
        return self.table.threads

    @property
    def model_format(self) -> ModelFormat | None:
        """The format that the device runs; None for a device that cars-hw does not know by name."""
        return format_of(self.table.device)

    @cached_property
    def quality_warnings(self) -> tuple[str, ...]:
        """The reasons why the table is unreliable; empty for a reliable one."""
        of_state = self.table.sustained_warnings() if self.state == SUSTAINED else []
        return (*self.table.quality_warnings(), *of_state)

    @cached_property
    def predictor(self) -> Predictor:
        """The predictor of the table's own network; that of another network is :meth:`predictor_of`.

        Raises:
            TableError: the table lacks an entry or the predictor.
        """
        return Predictor(self.table, self.level, self.state)

    @cached_property
    def _usual(self) -> Predictor:
        return self.predictor.in_state(USUAL)

    @cached_property
    def _predictors(self) -> dict[NetworkSpec, tuple[Predictor, Predictor]]:
        """The predictors of the latest networks: for the state of the limit, and for the usual one."""
        return {}

    def _of(self, network: NetworkSpec) -> tuple[Predictor, Predictor]:
        known = self._predictors.get(network)
        if known is None:
            if len(self._predictors) >= MOST_PREDICTORS:
                # The oldest. A predictor is made in milliseconds, from costs that all of them share.
                del self._predictors[next(iter(self._predictors))]
            known = self._predictors[network] = self.predictor.at(network), self._usual.at(network)
        return known

    def predictor_of(self, network: NetworkSpec) -> Predictor:
        """Return the predictor for genotypes of ``network``. The latest ones are kept."""
        return self._of(network)[0]

    def predict(self, architecture: Architecture) -> Prediction:
        """Return the latency of ``architecture`` and its upper bound, in milliseconds."""
        return self._of(architecture.network)[0].predict(architecture.genotype)

    def usual_ms(self, architecture: Architecture) -> float:
        """Return the predicted latency of ``architecture`` in the usual state, in milliseconds."""
        return self._of(architecture.network)[1].predict(architecture.genotype).ms

    def in_state(self, measured: Measurement) -> float:
        """Return the latency that ``measured`` has in the state of the limit, in milliseconds."""
        return self.table.in_state(measured, self.state)

    def estimate(self, architecture: Architecture, measured_ms: float | None = None) -> LatencyEstimate:
        """Return the latency of ``architecture``, with what the device took if it was measured."""
        ms, bound_ms = self.predict(architecture)
        return LatencyEstimate(
            self.device_name,
            ms,
            bound_ms,
            self.limit_ms,
            measured_ms,
            self.precision,
            self.threads,
            self.state,
            self.usual_ms(architecture),
            self.quality_warnings,
        )

    def card_latency(self, architecture: Architecture, measured_ms: float | None = None) -> CardLatency:
        """Return what the card of the model of ``architecture`` says of its latency here."""
        ms, bound_ms = self.predict(architecture)
        return CardLatency(self.device_name, self.threads, self.state, ms, bound_ms, self.level, measured_ms)

    def objective(self) -> CostObjective:
        """Return the cost that a search minimises: the predicted latency, limited by its upper bound.

        Raises:
            TableError: the table lacks an entry or the predictor.
        """
        # A table that cannot predict is an error now, and not at the first architecture.
        _ = self.predictor
        return CostObjective(
            name=f"latency on {self.device_name}",
            unit="ms",
            value=lambda architecture: self.predict(architecture).ms,
            bound=lambda architecture: self.predict(architecture).bound_ms,
            limit=self.limit_ms,
            at_least=self.at_least_ms,
        )

    @cached_property
    def energy_predictor(self) -> EnergyPredictor:
        """What predicts the energy of networks.

        Raises:
            InputError: the table does not have the energy.
        """
        return EnergyPredictor(self.table, self.level)

    def energy_objective(self, limit_mj: float | None) -> CostObjective:
        """Return the energy as a cost: the predicted one in millijoules, limited by its upper bound.

        Raises:
            InputError: the table does not have the energy.
        """
        predictor = self.energy_predictor
        return CostObjective(
            name=ENERGY,
            unit="mJ",
            value=lambda architecture: predictor.predict(architecture).mj,
            bound=lambda architecture: predictor.predict(architecture).bound_mj,
            limit=limit_mj,
        )

    def exceeded_by(self, ms: float) -> bool:
        """Return whether a latency of ``ms`` milliseconds is over the limit."""
        return self.limit_ms is not None and ms > self.limit_ms

    def available_device(self) -> tuple[Device | None, str]:
        """Return the device of the table, opened, if it is on this machine; otherwise None and the reason.

        A device under other conditions than the table's, such as another runtime version, is not available.
        """
        if self.device is not None:
            return self.device, ""
        try:
            device = open_device(self.device_name, self.threads)
            require_device(self.table, device)
            now = device.conditions()
        except CarsHwError as error:
            return None, str(error)
        for name in SAME_MACHINE:
            if now.get(name) != self.table.conditions.get(name):
                return None, f"{name} is {now.get(name)} here, and {self.table.conditions.get(name)} in the table"
        return device, ""

    def record(self) -> TargetRecord:
        """Return what ``run.json`` keeps of the target, beside the copy of the table."""
        return TargetRecord(
            device=self.device_name,
            limit_ms=self.limit_ms,
            level=self.level,
            profiled=self.table.created,
            precision=self.precision,
            threads=self.threads,
            state=self.state,
            at_least_ms=self.at_least_ms,
        )


def energy_target(targets: Iterable[LatencyTarget]) -> LatencyTarget:
    """Return the one of ``targets`` whose table has the energy of networks.

    Raises:
        InputError: none of the tables has it, or several have.
    """
    found = [target for target in targets if target.table.energy is not None]
    if not found:
        raise InputError(
            "the cost energy needs a latency table that has the energy of networks", remedy="measure-energy"
        )
    if len(found) > 1:
        names = ", ".join(target.device_name for target in found)
        raise InputError(f"the energy is that of one device, and the tables of {names} have it: give one of them")
    return found[0]


def targets_for_models(
    targets: Iterable[LatencyTarget], model_format: ModelFormat, precision: Precision
) -> list[LatencyTarget]:
    """Return those of ``targets`` whose devices run models of this format and precision."""
    wanted = (model_format, precision)
    return [target for target in targets if (target.model_format, target.precision) == wanted]
