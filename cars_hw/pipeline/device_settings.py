"""The settings of the commands that measure a device and predict by its table: what ``--config FILE`` holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cars_hw.config.execution import HERE, Execution
from cars_hw.config.measurement import (
    QUIET,
    EnergyPlan,
    MeasurePlan,
    Meter,
    Precision,
    SustainedPlan,
    require_state,
)
from cars_hw.config.setting import Settings, setting
from cars_hw.config.shared_help import (
    LOAD,
    METER,
    NETWORK,
    STATES,
    SUSTAINED,
    TABLE,
    THREADS,
    level,
)
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.wanted_sizes import WantedSizes

_PROFILE_SUSTAINED = (
    "Also measure the sustained state, for a product that runs networks all the time: at the end, three networks "
    "run under load, with pauses in which the device cools down. This takes 15 to 25 minutes more. search and "
    "predict use it with --state sustained. For phones and boards."
)


@dataclass(frozen=True)
class ProfileSettings(Settings):
    """Settings of ``cars-hw profile``."""

    devices: tuple[str, ...] = setting(
        help="The device to measure; cars-hw devices lists them. Repeatable: several devices are measured side by "
        "side, with a table for each. android:* stands for every phone on the cable.",
        option="--device",
        metavar="DEVICE",
    )
    network: NetworkSpec = setting(NETWORKS["quick"], help=NETWORK)
    sizes: SizeGrid | None = setting(None, help="The sizes that the table is for, instead of the network's own.")
    wanted: WantedSizes | None = setting(
        None, help="The latencies for which the range of sizes is found. It replaces sizes."
    )
    precision: Precision = setting(
        "fp32",
        help="Precision of the models that are measured. A search with an int8 table limits the int8 latency.",
    )
    threads: int = setting(1, help=THREADS, minimum=1)
    calibration: int = setting(
        60,
        help="Number of whole networks that the predictor is fitted to. More networks take longer to measure; with "
        "few networks, the upper bound holds less often.",
        minimum=4,
    )
    seed: int = setting(
        0, help="Decides which random networks are used for calibration, and the order of the sessions.", minimum=0
    )
    measurement: MeasurePlan = setting(MeasurePlan(), help="How often a model is measured; its seed is not used.")
    sustained: bool = setting(False, help=_PROFILE_SUSTAINED)
    load: SustainedPlan = setting(SustainedPlan(), help=LOAD)
    execution: Execution = setting(HERE, help="The machines that the devices are attached to.")

    ADDED: ClassVar = frozenset({"execution"})


@dataclass(frozen=True)
class PredictSettings(Settings):
    """Settings of ``cars-hw predict``."""

    table: Path = setting(help=TABLE)
    level: float = level()
    state: str = setting(
        QUIET,
        help=f"State of the machine that the latencies are for: {STATES}",
        kind="state",
    )
    channels: int | None = setting(
        None,
        help="Channels of the network; required for a GENOTYPE if the table is for several numbers of channels.",
        minimum=1,
        maximum=4096,
    )
    layers: int | None = setting(
        None,
        help="Number of cells of the network; required for a GENOTYPE if the table is for several.",
        minimum=3,
        maximum=1000,
    )
    resolution: tuple[int, int] | None = setting(
        None,
        metavar="HxW",
        help="Resolution of the network in pixels; required for a GENOTYPE if the table is for several.",
    )
    quantile: float | None = setting(
        None,
        help="Print only one latency: this share of random networks has an upper bound below it. Use it as a "
        "budget in scripts.",
        minimum=0,
        maximum=1,
    )
    at_most_ms: float | None = setting(
        None,
        help="End with exit code 3 if the upper bound of a network is above this latency, such as 20ms. Use it to "
        "let a build fail.",
        option="--at-most",
        unit="ms",
        above=0,
        kind="latency",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_state(self.state)


@dataclass(frozen=True)
class MeasureSettings(Settings):
    """Settings of ``cars-hw measure``."""

    device: str = setting(help="What to measure on; see: cars-hw devices.", metavar="DEVICE")
    network: NetworkSpec = setting(NETWORKS["quick"], help=NETWORK)
    threads: int = setting(1, help=THREADS, minimum=1)
    measurement: MeasurePlan = setting(MeasurePlan(), help="How often a network is measured.")
    sustained: bool = setting(False, help=SUSTAINED)
    load: SustainedPlan = setting(SustainedPlan(), help=LOAD)

    ADDED: ClassVar = frozenset({"sustained", "load"})


@dataclass(frozen=True)
class EnergySettings(Settings):
    """Settings of ``cars-hw energy``."""

    table: Path = setting(help="The latency table that gets the energy; its device must be available.")
    device: str | None = setting(
        None,
        help="The device of the table, by another name: a phone by its address in the network. [the table's]",
        metavar="DEVICE",
    )
    meter: Meter = setting("auto", help=METER)
    plan: EnergyPlan = setting(EnergyPlan(), help="How long networks run.")


@dataclass(frozen=True)
class ValidateSettings(Settings):
    """Settings of ``cars-hw validate``."""

    table: Path = setting(help="A latency table, as cars-hw profile writes it; its device must be available.")
    sample: int | None = setting(None, help="Number of random networks to measure. [30]", minimum=1)
    seed: int = setting(1, help="Decides which random networks are measured.", minimum=0)
    level: float = level()
    zoo: bool = setting(False, help="Measure the published genotypes too.")
    measurement: MeasurePlan = setting(MeasurePlan(), help="How often a network is measured.")
