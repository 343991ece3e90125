"""The settings of each step: what ``--config FILE`` holds, and what a run keeps of the steps that were run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from cars_hw.config.data import DataSource
from cars_hw.config.execution import HERE, Execution
from cars_hw.config.measurement import (
    QUIET,
    EnergyPlan,
    Int8Scheme,
    MeasurePlan,
    Meter,
    Precision,
    SustainedPlan,
    require_state,
)
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.setting import Settings, setting
from cars_hw.config.teacher import Teacher
from cars_hw.config.training import Recipe, SharedTraining, StepReplay
from cars_hw.export.formats import FORMATS
from cars_hw.space.families import CHOICES
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.wanted_sizes import WantedSizes

TrainingDevice = Literal["auto", "cpu", "cuda"]
Family = Literal["torchvision", "mobilenet_v2", "mobilenet_v3", "shufflenet_v2", "mnasnet", "resnet"]
"""Networks of torchvision; ``torchvision`` are those of all families."""

CountedCost = Literal["parameters", "multiply-adds"]
StrategyName = Literal[
    "random", "none", "speed", "size", "both", "fresh", "mixed", "uniform", "paper", "standalone"
]

_ON = "Where to train: auto is the GPU if there is one."
_JOBS = "Networks trained side by side, each in a process. [one per core; one on a GPU]"
_THREADS = (
    "Number of threads that a model runs on, each on a physical core of its own. A table is valid for this number "
    "of threads only."
)
_RECIPE = "How networks are trained."
_EXECUTION = "Where trainings and searches that do not depend on each other run."
_DATA = "Where the images come from."
_NETWORK = "The network that is exported."
_SUSTAINED = (
    "Then measure what each network takes after minutes of load: it runs for four minutes, then for one that "
    "counts, with pauses in which the device cools down. For phones and boards."
)
_ENERGY = (
    "Then measure the energy of a run of each model beyond rest. A phone must be unplugged, and connected over the "
    "network."
)
_METER = (
    "For phones: what tells the energy. The charge counter of a battery is coarse, and its current may be rough. "
    "auto: the first of energy, charge and current that the phone tells."
)
_PROFILE_SUSTAINED = (
    "Also measure the sustained state, for a product that runs networks all the time: at the end, three networks "
    "run under load, with pauses in which the device cools down. This takes 15 to 25 minutes more. search and "
    "predict use it with --state sustained. For phones and boards."
)
_STATES = (
    "quiet (the fastest that recurs), usual (the median moment), sustained (after minutes of load; profile "
    "--sustained measures it), or a quantile over the time such as 0.9."
)
_LOAD = "The load before and while the sustained state is measured."
_TABLE = "A latency table, as cars-hw profile writes it."


def _level() -> Any:  # noqa: ANN401 -- as dataclasses.field
    return setting(0.95, help="Share of networks whose latency stays below their upper bound.", above=0, below=1)


@dataclass(frozen=True)
class ProfileSettings(Settings):
    """Settings of ``cars-hw profile``."""

    devices: tuple[str, ...] = setting(
        help="The device to measure; cars-hw devices lists them. Repeatable: several devices are measured side by "
        "side, with a table for each. android:* stands for every phone on the cable.",
        option="--device",
        metavar="DEVICE",
    )
    network: NetworkSpec = setting(NETWORKS["quick"], help=_NETWORK)
    sizes: SizeGrid | None = setting(None, help="The sizes that the table is for, instead of the network's own.")
    wanted: WantedSizes | None = setting(
        None, help="The latencies for which the range of sizes is found. It replaces sizes."
    )
    precision: Precision = setting(
        "fp32",
        help="Precision of the models that are measured. A search with an int8 table limits the int8 latency.",
    )
    threads: int = setting(1, help=_THREADS, minimum=1)
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
    load: SustainedPlan = setting(SustainedPlan(), help=_LOAD)
    execution: Execution = setting(HERE, help="The machines that the devices are attached to.")

    ADDED: ClassVar = frozenset({"execution"})


@dataclass(frozen=True)
class TargetSettings(Settings):
    """A latency table and the limit on its device; without a limit the latency is only minimised."""

    table: Path = setting(help=_TABLE)
    limit_ms: float | None = setting(None, help="The largest latency.", unit="ms", above=0, kind="latency")
    at_least_ms: float | None = setting(
        None, help="The smallest latency that is of interest.", unit="ms", above=0, kind="latency"
    )
    level: float = _level()
    state: str = setting(
        QUIET,
        help=f"State of the machine in which the budget holds: {_STATES}",
        kind="state",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_state(self.state)


@dataclass(frozen=True)
class SizeChoice(Settings):
    """The sizes that a search may propose. Empty values are those of the tables; without tables, of the network."""

    channels: tuple[int, ...] = setting(
        (), help="Channels of the first cell, even numbers.", minimum=2, maximum=4096
    )
    layers: tuple[int, ...] = setting((), help="Numbers of cells, 3 at least.", minimum=3, maximum=1000)
    resolutions: tuple[tuple[int, int], ...] = setting((), help="Height and width of the images in pixels.")

    OPTIONAL: ClassVar = frozenset({"resolutions"})


@dataclass(frozen=True)
class SearchSettings(Settings):
    """Settings of ``cars-hw search``. With targets, ``network`` is that of their tables, except for its size."""

    data: DataSource = setting(help=_DATA)
    evolution: EvolutionSettings = setting(help="The evolution.")
    training: SharedTraining = setting(help="The training of the shared weights.")
    recipe: Recipe = setting(help="How cars-hw train trains the networks of the front.")
    final: FinalSettings = setting(FinalSettings(), help="The final stage, which trains networks for a short time.")
    targets: tuple[TargetSettings, ...] = setting((), help="Latency tables and limits.")
    costs: tuple[str, ...] = setting(
        (),
        help="Another cost to minimise: parameters, multiply-adds, file-size, peak-memory, peak-memory-ort, "
        "energy (of a table that has it), that of a plug-in, or package.module:NAME. With a limit in the unit of "
        "the cost: peak-memory=0.5. Repeatable.",
        option="--cost",
        metavar="NAME[=LIMIT]",
    )
    precision: Precision | None = setting(
        None, help="Precision of the exported models and of the tables. [the tables']"
    )
    seed: int = setting(
        0,
        help="Decides the initial weights, the order of images, the architectures that are trained, and the "
        "offspring.",
        minimum=0,
    )
    proxy: bool = setting(
        False,
        help="Allow a data set whose resolution, channels or classes differ from those of the exported network. "
        "(The paper searches on CIFAR-10 and trains the result on ImageNet.)",
    )
    measure: bool = setting(
        True,
        help="Measure the front on the devices that are available, and replace networks that exceed their budget.",
        option="--measure/--no-measure",
    )
    device: TrainingDevice = setting("auto", help=_ON, option="--on")
    jobs: int | None = setting(
        None,
        help="Networks trained side by side in the final stage, each in a process. [one per core; one on a GPU]",
        minimum=1,
    )
    execution: Execution = setting(HERE, help=_EXECUTION)
    replay: StepReplay = setting(
        "auto",
        help="Whether a GPU records the pass of an architecture, or a training step of the final stage, and "
        "replays it by one launch. auto: where it can be recorded; off: each operation is launched.",
    )
    network: NetworkSpec = setting(NETWORKS["quick"], help=_NETWORK)
    sizes: SizeChoice = setting(SizeChoice(), help="The sizes that networks may have.")
    operations: tuple[str, ...] = setting(
        (), help="Operations of the search space. [all of the network's family of cells]", choices=CHOICES
    )
    supernet_channels: int | None = setting(None, help="Channels of the SuperNet. [the network's]", minimum=1)
    supernet_layers: int | None = setting(
        None, help="Cells of the SuperNet; one of blocks always has the network's. [the network's]", minimum=3
    )
    from_run: Path | None = setting(
        None,
        help="Start from the shared weights of this finished run, which is only read. Its sizes, classes and "
        "images may differ; what does not fit starts fresh. By default, the warm-up is shorter; if only the budget "
        "differs, there is none, half of the generations, and a fifth of the learning rate.",
        folder=True,
    )
    standalone_epochs: int = setting(
        0, help="Epochs of standalone training for every architecture; 0: weights are shared.", minimum=0
    )

    ADDED: ClassVar = frozenset({"execution", "replay"})


@dataclass(frozen=True)
class TrainSettings(Settings):
    """Settings of ``cars-hw train``; data and recipe that are not given are those of the run."""

    data: DataSource | None = setting(None, help=_DATA)
    recipe: Recipe | None = setting(None, help=_RECIPE)
    top: int = setting(
        5, help="How many networks to train; they are spread over the front, both ends included.", minimum=1
    )
    genotype: Genotype | None = setting(
        None,
        help="Train only this genotype instead: a name of the zoo, a JSON file, or DARTS text.",
        kind="genotype",
    )
    channels: int | None = setting(
        None,
        help="Channels of the network of --genotype. [those of the front's network with this genotype; if there is "
        "none, of the run's network]",
        minimum=1,
        maximum=4096,
    )
    layers: int | None = setting(
        None, help="Number of cells of the network of --genotype. [as for --channels]", minimum=3, maximum=1000
    )
    resolution: tuple[int, int] | None = setting(
        None, metavar="HxW", help="Resolution of the network of --genotype, in pixels. [as for --channels]"
    )
    seed: int = setting(
        0,
        help="Decides the order and augmentation of images, drop-path, and the weights that start fresh.",
        minimum=0,
    )
    inherit: bool = setting(
        False,
        help="Start from the SuperNet's weights instead of fresh weights, if it has networks of this size.",
        option="--from-shared",
    )
    jobs: int | None = setting(None, help=_JOBS, minimum=1)
    execution: Execution = setting(HERE, help=_EXECUTION)
    device: TrainingDevice = setting("auto", help=_ON, option="--on")
    deterministic: bool = setting(
        False,
        help="Use algorithms on a GPU that add numbers in a fixed order, so that a training with the same seed on "
        "the same GPU has the same weights. They are slower. A CPU always adds in a fixed order.",
    )
    replay: StepReplay = setting(
        "auto",
        help="Whether a GPU records a training step and replays it by one launch. auto: where a step "
        "can be recorded; off: each operation is launched.",
    )
    compile: bool = setting(
        False,
        help="Compile the network with torch.compile, which needs a C++ compiler or, on a GPU, Triton. The first "
        "step takes a minute or more. Results differ in rounding.",
    )
    threads: int = setting(
        0,
        help="Threads of each training on a CPU. 0: one for networks with small activations; for others those that "
        "PyTorch has (OMP_NUM_THREADS), shared among the trainings side by side. The number changes how sums are "
        "rounded.",
        minimum=0,
        maximum=1024,
    )
    accept_changes: bool = setting(
        False,
        help="Train although images were added, removed or changed since the search. The run notes what changed, "
        "and the report shows it. Classes and normalisation stay those of the search.",
    )
    init: Path | None = setting(
        None,
        help="Start from the weights in this file, of the same genotype and size: RUN/trained/NAME.safetensors of "
        "any run, or an exported one. With other classes, the classifier starts fresh. Without --genotype, the "
        "genotype of the file is trained.",
    )
    teacher: Teacher = setting(Teacher(), help="A network whose answers are learned beside the labels.")

    OPTIONAL: ClassVar = frozenset({"resolution"})
    ADDED: ClassVar = frozenset({"execution", "init", "teacher", "deterministic", "replay", "compile", "threads"})


@dataclass(frozen=True)
class ExportSettings(Settings):
    """Settings of ``cars-hw export``. ``network`` is for a genotype that is exported without a run."""

    data: DataSource | None = setting(None, help=_DATA)
    formats: tuple[str, ...] = setting(tuple(FORMATS), help="Formats of the models.")
    precision: Precision | None = setting(
        None,
        help="int8: also write each model in int8, calibrated on training images. [that of the search]",
    )
    dynamic_batch: bool = setting(
        False,
        help="Declare in the models that they take any number of images at once. (Without "
        "this option, a TFLite model also takes several images, but only after its input is resized.)",
    )
    int8: Int8Scheme = setting(
        "asymmetric",
        help="How int8 models represent activations. symmetric: zero points are 0, as NPUs and TensorRT require. "
        "Latency tables are for asymmetric models.",
    )
    accept_changes: bool = setting(
        False,
        help="Calibrate int8 models although training images were added, removed or changed since the search. The "
        "test images must still be those on which the networks were evaluated.",
    )
    network: NetworkSpec = setting(NETWORKS["quick"], help=_NETWORK)


@dataclass(frozen=True)
class VerifySettings(Settings):
    """Settings of ``cars-hw verify``."""

    device: str = setting(help="What to measure on; see: cars-hw devices.", metavar="DEVICE")
    threads: int = setting(1, help=_THREADS, minimum=1)
    measurement: MeasurePlan = setting(MeasurePlan(sessions=7), help="How often a model is measured.")
    sustained: bool = setting(False, help=_SUSTAINED)
    load: SustainedPlan = setting(SustainedPlan(), help=_LOAD)
    energy: bool = setting(False, help=_ENERGY)
    metering: EnergyPlan = setting(EnergyPlan(), help="How long models run for their energy.")
    meter: Meter = setting("auto", help=_METER)

    ADDED: ClassVar = frozenset({"sustained", "load", "energy", "metering", "meter"})


@dataclass(frozen=True)
class RankSettings(Settings):
    """Settings of ``cars-hw rank``; data and recipe that are not given are those of the run."""

    data: DataSource | None = setting(None, help=_DATA)
    recipe: Recipe | None = setting(None, help=_RECIPE)
    sample: int = setting(
        20,
        help="How many architectures, at least 4: half spread over the front, half at random within the budgets. "
        "0 skips this check; the report says so.",
        minimum=0,
    )
    twice: bool = setting(
        False,
        help="Train each network a second time, with the next seed. Kendall's tau between both trainings shows how "
        "well one training predicts another; compare the SuperNet's tau with it.",
    )
    seed: int = setting(0, help="Decides which random architectures are drawn, and their training.", minimum=0)
    jobs: int | None = setting(None, help=_JOBS, minimum=1)
    execution: Execution = setting(HERE, help=_EXECUTION)
    device: TrainingDevice = setting("auto", help=_ON, option="--on")

    ADDED: ClassVar = frozenset({"execution"})


@dataclass(frozen=True)
class BaselinesSettings(Settings):
    """Settings of ``cars-hw baselines``; data and recipe that are not given are those of the run."""

    data: DataSource | None = setting(None, help=_DATA)
    recipe: Recipe | None = setting(None, help=_RECIPE)
    against: tuple[StrategyName, ...] = setting(
        ("random", "none"),
        help="random: random search in the same SuperNet; none: plain NSGA-III; speed, size, both: other "
        "protections; fresh: half of the offspring are uniform draws; mixed, uniform: half of the trained "
        "architectures, or all of them, are uniform draws; paper: the paper's protection and shares of "
        "offspring; standalone: evolution without shared weights, with as many architectures as the same "
        "cost allows. Repeatable.",
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
    execution: Execution = setting(HERE, help=_EXECUTION)
    device: TrainingDevice = setting("auto", help=_ON, option="--on")

    ADDED: ClassVar = frozenset({"execution"})


@dataclass(frozen=True)
class CostSettings(Settings):
    """Settings of ``cars-hw cost``."""

    network: NetworkSpec = setting(NETWORKS["quick"], help=_NETWORK)


@dataclass(frozen=True)
class PredictSettings(Settings):
    """Settings of ``cars-hw predict``."""

    table: Path = setting(help=_TABLE)
    level: float = _level()
    state: str = setting(
        QUIET,
        help=f"State of the machine that the latencies are for: {_STATES}",
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
class CheckSettings(Settings):
    """Settings of ``cars-hw data check``."""

    resolution: tuple[int, int] | None = setting(
        None,
        help="The resolution of the network. Images that are smaller are listed as tiny. [16x16]",
        metavar="HxW",
    )
    skip_unreadable: bool = setting(False, help="Do not refuse the folder because of images that cannot be read.")


@dataclass(frozen=True)
class ClassifySettings(Settings):
    """Settings of ``cars-hw classify``."""

    top: int | None = setting(
        None, help="Classes to list for each image. [5 for one image, 1 for several]", minimum=1
    )


@dataclass(frozen=True)
class FetchSettings(Settings):
    """Settings of ``cars-hw runner fetch``. The default is TensorFlow's nightly build, whose digest changes."""

    address: str = setting(
        "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
        "android_aarch64_benchmark_model",
        help="The address of the tool.",
        option="--from",
    )
    sha256: str | None = setting(
        None,
        help="What its SHA-256 must be. Without this option, the SHA-256 is printed and the file is not stored. "
        "Exception: if the stored tool came from the same address, the new file is stored if it has the same "
        "SHA-256.",
    )


@dataclass(frozen=True)
class MeasureSettings(Settings):
    """Settings of ``cars-hw measure``."""

    device: str = setting(help="What to measure on; see: cars-hw devices.", metavar="DEVICE")
    network: NetworkSpec = setting(NETWORKS["quick"], help=_NETWORK)
    threads: int = setting(1, help=_THREADS, minimum=1)
    measurement: MeasurePlan = setting(MeasurePlan(), help="How often a network is measured.")
    sustained: bool = setting(False, help=_SUSTAINED)
    load: SustainedPlan = setting(SustainedPlan(), help=_LOAD)

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
    meter: Meter = setting("auto", help=_METER)
    plan: EnergyPlan = setting(EnergyPlan(), help="How long networks run.")


@dataclass(frozen=True)
class ValidateSettings(Settings):
    """Settings of ``cars-hw validate``."""

    table: Path = setting(help="A latency table, as cars-hw profile writes it; its device must be available.")
    sample: int | None = setting(None, help="Number of random networks to measure. [30]", minimum=1)
    seed: int = setting(1, help="Decides which random networks are measured.", minimum=0)
    level: float = _level()
    zoo: bool = setting(False, help="Measure the published genotypes too.")
    measurement: MeasurePlan = setting(MeasurePlan(), help="How often a network is measured.")


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
    threads: int = setting(1, help=_THREADS, minimum=1)
    measurement: MeasurePlan = setting(MeasurePlan(sessions=3), help="How often a network is measured.")


@dataclass(frozen=True)
class TrapSettings(Settings):
    """Settings of ``cars-hw experiment small-model-trap``."""

    evolution: EvolutionSettings = setting(help="The evolution; its epochs follow from the generations.")
    training: SharedTraining = setting(help="The training of the shared weights.")
    recipe: Recipe = setting(help=_RECIPE)
    data: DataSource = setting(DataSource("fashion-mini"), help=_DATA)
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
    execution: Execution = setting(HERE, help=_EXECUTION)
    device: TrainingDevice = setting("auto", help=_ON, option="--on")
    network: NetworkSpec = setting(NETWORKS["tiny"], help=_NETWORK)
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
    data: DataSource | None = setting(None, help=_DATA)
    recipe: Recipe | None = setting(None, help=_RECIPE)
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
        0, help="Decides the initial weights of the trained networks, and the order of images.", minimum=0
    )
    jobs: int | None = setting(None, help=_JOBS, minimum=1)
    execution: Execution = setting(HERE, help=_EXECUTION)
    threads: int = setting(1, help=_THREADS, minimum=1)
    measurement: MeasurePlan = setting(MeasurePlan(), help="How often a network is measured.")
    device: TrainingDevice = setting("auto", help=_ON, option="--on")

    ADDED: ClassVar = frozenset({"execution"})
