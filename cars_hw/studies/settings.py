"""The settings of the commands that compare: what ``--config FILE`` holds, and what a run keeps of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from cars_hw.config.data import DataSource
from cars_hw.config.execution import HERE, Execution
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.setting import MOST_SEED, Settings, setting
from cars_hw.config.shared_help import DATA, EXECUTION, JOBS, NETWORK, ON, RECIPE, THREADS
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.pipeline.settings import TrainingDevice
from cars_hw.space.network_spec import NETWORKS, NetworkSpec

Family = Literal["torchvision", "mobilenet_v2", "mobilenet_v3", "shufflenet_v2", "mnasnet", "resnet"]
"""Networks of torchvision; ``torchvision`` are those of all families."""

CountedCost = Literal["parameters", "multiply-adds"]
StrategyName = Literal[
    "random", "none", "speed", "size", "both", "fresh", "mixed", "uniform", "paper", "standalone"
]


@dataclass(frozen=True)
class RankSettings(Settings):
    """Settings of ``cars-hw rank``. If data or recipe are not given, those of the run are used."""

    data: DataSource | None = setting(None, help=DATA)
    recipe: Recipe | None = setting(None, help=RECIPE)
    sample: int = setting(
        20,
        help="How many architectures, at least 4: half spread over the front, half at random within the budgets. "
        "0 skips this check; the report says so.",
        minimum=0,
    )
    twice: bool = setting(
        False,
        help="Train each network a second time, with the next seed. Kendall's tau between both trainings shows how "
        "well one training predicts another; compare the tau of the search with it.",
    )
    seed: int = setting(
        0,
        help="Decides which random architectures are drawn, and their training.",
        minimum=0,
        maximum=MOST_SEED,
    )
    jobs: int | None = setting(None, help=JOBS, minimum=1)
    execution: Execution = setting(HERE, help=EXECUTION)
    device: TrainingDevice = setting("auto", help=ON, option="--on")

    ADDED: ClassVar = frozenset({"execution"})


@dataclass(frozen=True)
class BaselinesSettings(Settings):
    """Settings of ``cars-hw baselines``. If data or recipe are not given, those of the run are used."""

    data: DataSource | None = setting(None, help=DATA)
    recipe: Recipe | None = setting(None, help=RECIPE)
    against: tuple[StrategyName, ...] = setting(
        ("random", "none"),
        help="random: random search in the same SuperNet; none: plain NSGA-III; speed, size, both: other "
        "protections; fresh: half of the offspring are uniform draws; mixed, uniform: half of the trained "
        "architectures, or all of them, are uniform draws (not for a search that trains none); paper: the paper's "
        "protection and shares of offspring; standalone: evolution without shared weights, with as many "
        "architectures as the same cost allows. Repeatable.",
    )
    seeds: int = setting(
        3,
        help="Number of searches per strategy. The seeds are consecutive and start with the run's seed.",
        minimum=1,
    )
    top: int = setting(
        3,
        help="Number of networks of each front that are trained from scratch; they are spread over the front.",
        minimum=1,
    )
    jobs: int | None = setting(None, help="Searches side by side. [one per core; one on a GPU]", minimum=1)
    execution: Execution = setting(HERE, help=EXECUTION)
    device: TrainingDevice = setting("auto", help=ON, option="--on")

    ADDED: ClassVar = frozenset({"execution"})


@dataclass(frozen=True)
class PaperTablesSettings(Settings):
    """Settings of ``cars-hw experiment tables``."""

    tables: tuple[Literal["cifar10", "imagenet", "figure1"], ...] = setting(
        (),
        help="Table 1, Table 2, or the additional networks of Figure 1. Repeatable. [all]",
        option="--paper-table",
    )
    device: str | None = setting(
        None, help="Also measure the latencies on this device; see: cars-hw devices.", metavar="DEVICE"
    )
    threads: int = setting(1, help=THREADS, minimum=1)
    measurement: MeasurePlan = setting(MeasurePlan(sessions=3), help="How often a network is measured.")


@dataclass(frozen=True)
class TrapSettings(Settings):
    """Settings of ``cars-hw experiment small-model-trap``."""

    evolution: EvolutionSettings = setting(help="The evolution; its epochs follow from the generations.")
    training: SharedTraining = setting(help="The training of the shared weights.")
    recipe: Recipe = setting(help=RECIPE)
    data: DataSource = setting(DataSource("fashion-mini"), help=DATA)
    table: Path | None = setting(
        None, help="Use the latencies of this table as sizes, and the table's network specification."
    )
    cost: CountedCost | None = setting(
        None, help="Without --table: the cost that measures the size of a network. [parameters]"
    )
    generations: int = setting(
        20, help="Number of generations of each search, after the preset's epochs of warm-up.", minimum=2
    )
    seeds: int = setting(1, help="Number of searches per protection, each with its own seed.", minimum=1)
    protections: tuple[Literal["speed", "size", "both"], ...] = setting(
        (),
        help="Protections to compare with plain NSGA-III (none). Repeatable. [the preset's own, and speed]",
        option="--protect",
    )
    proxy: bool = setting(
        False,
        help="Allow a data set whose resolution, channels or classes differ from those of the exported network. "
        "(The paper searches on CIFAR-10 and trains the result on ImageNet.)",
    )
    jobs: int | None = setting(
        None, help="Searches and trainings side by side. [one per core; one on a GPU]", minimum=1
    )
    execution: Execution = setting(HERE, help=EXECUTION)
    device: TrainingDevice = setting("auto", help=ON, option="--on")
    network: NetworkSpec = setting(NETWORKS["tiny"], help=NETWORK)
    supernet_channels: int | None = setting(None, help="Channels of the SuperNet. [the network's]", minimum=1)
    supernet_layers: int | None = setting(
        None, help="Cells of the SuperNet; one of blocks always has the network's. [the network's]", minimum=3
    )

    ADDED: ClassVar = frozenset({"execution"})


@dataclass(frozen=True)
class FrontSettings(Settings):
    """Settings of ``cars-hw experiment front``; data and recipe that are not given are those of the run."""

    measured_on: str = setting(
        help="What to measure on; see: cars-hw devices.", option="--device", metavar="DEVICE"
    )
    data: DataSource | None = setting(None, help=DATA)
    recipe: Recipe | None = setting(None, help=RECIPE)
    references: tuple[str, ...] = setting(
        (),
        help="A network to compare with: a genotype of cars-hw zoo; MobileNetV2, MNASNet, ShuffleNetV2 or "
        "ResNet-18; or another name of torchvision, also with a width and for small images, such as "
        "mobilenet_v2:0.35@small. Repeatable. [CARS_A, CARS_I, DARTS_V2 and these four]",
        option="--reference",
        metavar="NAME",
    )
    families: tuple[Family, ...] = setting(
        (),
        help="Networks of torchvision at all their widths: of all families, or of one. Only those in the range of "
        "latencies of the run are trained. Repeatable.",
        option="--references",
    )
    random: bool = setting(
        False,
        help="Also train random architectures within the sizes and limits of the run: as many as can be trained at "
        "the cost of the whole run.",
    )
    budgets: tuple[float, ...] = setting(
        (),
        help="A latency for which the most accurate networks are listed, such as 2ms. Repeatable. [five, spread "
        "over the range of the run]",
        option="--budget",
        kind="latency",
        above=0,
    )
    from_scratch: bool = setting(
        False, help="Train the run's networks again, from fresh weights and by the recipe of this comparison."
    )
    seed: int = setting(
        0,
        help="Decides the initial weights of the trained networks, and the order of images.",
        minimum=0,
        maximum=MOST_SEED,
    )
    jobs: int | None = setting(None, help=JOBS, minimum=1)
    execution: Execution = setting(HERE, help=EXECUTION)
    threads: int = setting(1, help=THREADS, minimum=1)
    measurement: MeasurePlan = setting(MeasurePlan(), help="How often a network is measured.")
    device: TrainingDevice = setting("auto", help=ON, option="--on")

    ADDED: ClassVar = frozenset({"execution"})
