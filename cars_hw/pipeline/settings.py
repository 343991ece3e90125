"""The settings of the steps of a run: what ``--config FILE`` holds, and what a run keeps of what was run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

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
from cars_hw.config.setting import MOST_SEED, Settings, setting
from cars_hw.config.shared_help import (
    DATA,
    EXECUTION,
    JOBS,
    LOAD,
    METER,
    NETWORK,
    ON,
    RECIPE,
    STATES,
    SUSTAINED,
    TABLE,
    THREADS,
    level,
)
from cars_hw.config.teacher import Teacher
from cars_hw.config.training import PassReplay, Recipe, SharedTraining, StepReplay
from cars_hw.export.formats import FORMATS
from cars_hw.space.families import CHOICES
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NETWORKS, NetworkSpec

TrainingDevice = Literal["auto", "cpu", "cuda"]

_ENERGY = (
    "Then measure the energy that one run of each model takes beyond what the device takes at rest. A phone must "
    "be unplugged, and connected over the network."
)


@dataclass(frozen=True)
class TargetSettings(Settings):
    """A latency table and the limit on its device. Without a limit the latency is only minimised."""

    table: Path = setting(help=TABLE)
    limit_ms: float | None = setting(None, help="The largest latency.", unit="ms", above=0, kind="latency")
    at_least_ms: float | None = setting(
        None, help="The smallest latency that is of interest.", unit="ms", above=0, kind="latency"
    )
    level: float = level()
    state: str = setting(
        QUIET,
        help=f"State of the machine in which the budget holds: {STATES}",
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

    data: DataSource = setting(help=DATA)
    evolution: EvolutionSettings = setting(help="The evolution.")
    training: SharedTraining = setting(help="The training of the shared weights.")
    recipe: Recipe = setting(help="How cars-hw train trains the networks of the front.")
    final: FinalSettings = setting(FinalSettings(), help="The final stage, which trains networks for a short time.")
    targets: tuple[TargetSettings, ...] = setting((), help="Latency tables and limits.")
    costs: tuple[str, ...] = setting(
        (),
        help="Another cost to minimise: parameters, multiply-adds, file-size, peak-memory, peak-memory-ort, "
        "energy (of a table that has it), one of another package, or package.module:NAME. With a limit in the unit "
        "of the cost: peak-memory=0.5. Repeatable.",
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
        maximum=MOST_SEED,
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
    device: TrainingDevice = setting("auto", help=ON, option="--on")
    jobs: int | None = setting(
        None,
        help="Networks trained side by side in the final stage, each in a process. [one per core; one on a GPU]",
        minimum=1,
    )
    execution: Execution = setting(HERE, help=EXECUTION)
    replay: PassReplay = setting(
        "auto",
        help="What a GPU records as a CUDA graph, to repeat it by one launch. auto: the training pass of an "
        "architecture that is trained for the second time, and the training steps of the final stage; blocks: in "
        "addition, the parts of first passes, such as those of the warm-up; off: nothing. Operations that are not "
        "recorded are launched one by one. blocks has not been tried on a GPU.",
    )
    network: NetworkSpec = setting(NETWORKS["quick"], help=NETWORK)
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
    """Settings of ``cars-hw train``. If data or recipe are not given, those of the run are used."""

    data: DataSource | None = setting(None, help=DATA)
    recipe: Recipe | None = setting(None, help=RECIPE)
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
        maximum=MOST_SEED,
    )
    inherit: bool = setting(
        False,
        help="Start from the SuperNet's weights instead of fresh weights, if it has networks of this size.",
        option="--from-shared",
    )
    jobs: int | None = setting(None, help=JOBS, minimum=1)
    execution: Execution = setting(HERE, help=EXECUTION)
    device: TrainingDevice = setting("auto", help=ON, option="--on")
    deterministic: bool = setting(
        False,
        help="Use algorithms on a GPU that add numbers in a fixed order, so that a training with the same seed on "
        "the same GPU has the same weights. They are slower. A CPU always adds in a fixed order.",
    )
    replay: StepReplay = setting(
        "auto",
        help="Whether a GPU records a training step as a CUDA graph, to repeat it by one launch. auto: if the step "
        "can be recorded; off: operations are launched one by one.",
    )
    compile: bool = setting(
        False,
        help="Compile the network with torch.compile, which needs a C++ compiler or, on a GPU, Triton. The first "
        "step takes a minute or more. Results differ in rounding.",
    )
    threads: int = setting(
        0,
        help="Threads of each training on a CPU. 0: one thread for networks with small activations; for other "
        "networks PyTorch's number (OMP_NUM_THREADS), divided among the trainings side by side. The number changes "
        "how sums are rounded.",
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

    data: DataSource | None = setting(None, help=DATA)
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
    network: NetworkSpec = setting(NETWORKS["quick"], help=NETWORK)


@dataclass(frozen=True)
class VerifySettings(Settings):
    """Settings of ``cars-hw verify``."""

    device: str = setting(help="What to measure on; see: cars-hw devices.", metavar="DEVICE")
    threads: int = setting(1, help=THREADS, minimum=1)
    measurement: MeasurePlan = setting(MeasurePlan(sessions=7), help="How often a model is measured.")
    sustained: bool = setting(False, help=SUSTAINED)
    load: SustainedPlan = setting(SustainedPlan(), help=LOAD)
    energy: bool = setting(False, help=_ENERGY)
    metering: EnergyPlan = setting(EnergyPlan(), help="How long models run for their energy.")
    meter: Meter = setting("auto", help=METER)

    ADDED: ClassVar = frozenset({"sustained", "load", "energy", "metering", "meter"})
