"""The records of a run's networks and steps: those of the front, the trained ones, and the steps that were run."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from cars_hw.config.evaluation import ClassCounts, Evaluation, Objective
from cars_hw.config.setting import Settings, count, fraction, seed_field, setting
from cars_hw.config.training import EvaluatedClassifier, Recipe
from cars_hw.errors import InputError
from cars_hw.pipeline.larger_networks import LargerNetworks
from cars_hw.pipeline.latency_target import LatencyEstimate
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

_NUMBER: Final = re.compile(r"@[0-9]+$")


@dataclass(frozen=True)
class FrontNetwork(Settings):
    """A network of the front. ``accuracy`` is a fraction of the validation images: what the search maximised.

    If ``trained_epochs`` is 0, the accuracy is that under shared weights. Otherwise it is that after a training of
    so many epochs in the final stage of the search. ``classifier`` tells what classified the images under shared
    weights; it is None after a training, in which a network has a classifier of its own. ``spec`` (in the file:
    ``network``) is the network that the genotype fills. It has a size of its own; everything else is that of the
    run's network.

    If it is ``dominated``, another network of the front is as accurate and costs no more. It is in the front as the
    best of its stretch in the final stage, because short trainings underestimate large networks.

    ``objective`` names the figure. ``validation`` has the right answers among the validation images, by class; it
    is None where accuracies have no counts. The front was chosen by these images, so its best accuracies are too
    high on average. The test images are used after all choices.

    ``parameters`` and ``multiply_adds`` are those of the exported file. ``published_parameters`` and
    ``published_multiply_adds`` follow the rule of published tables, see :func:`cars_hw.nn.cost.published_cost`;
    None where they were not counted. ``costs`` are the values of the other costs that the search minimised, by
    name, each in its unit.
    """

    name: str = setting(name=True)
    genotype: Genotype = setting(kind="genotype")
    spec: NetworkSpec = setting()
    accuracy: float = fraction()
    parameters: int = count()
    multiply_adds: int = count()
    latency_estimates: tuple[LatencyEstimate, ...] = setting()
    published_parameters: int | None = count(None)
    published_multiply_adds: int | None = count(None)
    objective: Objective = "accuracy"
    validation: ClassCounts | None = None
    trained_epochs: int = count(0)
    dominated: bool = False
    costs: dict[str, float] = setting(factory=dict)
    classifier: EvaluatedClassifier | None = "shared"

    ADDED: ClassVar = frozenset({"dominated", "costs", "classifier"})
    PLAIN_NAMES: ClassVar = {"spec": "network"}

    @property
    def architecture(self) -> Architecture:
        """The genotype and its network."""
        return Architecture(self.genotype, self.spec)


@dataclass(frozen=True)
class Front:
    """The content of ``front.json``.

    ``larger`` has an entry for each budget if the most accurate network uses less than 85% of every one: what the
    final stage trained that uses more.
    """

    networks: tuple[FrontNetwork, ...]
    rejected: tuple[FrontNetwork, ...]
    larger: tuple[LargerNetworks, ...] = ()

    ADDED: ClassVar = frozenset({"larger"})


@dataclass(frozen=True)
class TrainedNetwork(Settings):
    """A trained network: ``test`` is its evaluation on the test images, which no choice has used.

    ``spec`` (in the file: ``network``) is the network that the genotype fills. It has a size of its own; everything
    else is that of the run's network.

    A network that is trained again with other settings is a record of its own, whose name is that of the network
    with a number: ``net-01@2``. Nothing replaces a finished training.

    Its weights are those after ``best_epoch`` (counted from 1). If images were held out, ``held_out``, what it gets
    right of them, decided which epoch is the best, by the objective of ``recipe``. The recipe stores the share of
    held-out images and whether the weights are moving averages, too. ``data`` is the source of the images.
    ``data_digest`` is that of all images and their labels: that of ``data.json``, or of accepted changes.
    ``test_digest`` is that of the test images. ``inherit`` tells whether the training was to start from the
    SuperNet's weights; it did so if the SuperNet has networks of this size. ``class_names`` are those of the rows
    and columns of the confusion matrix.

    ``weights_digest`` is that of the file of the weights, and ``last_weights_digest`` that of the weights after the
    last epoch; None where the last epoch is the best. ``init`` is the digest of the weights that the training
    started from, and ``teacher`` tells which network it learned from: its name, the digest of its weights, and how;
    None where there was none. ``deterministic`` tells whether it used deterministic algorithms, and ``compile``
    whether its steps were to be compiled. ``threads`` is the number of threads on a CPU, which decides how sums are
    rounded; None on a GPU, and where it was not kept.
    """

    name: str = setting(name=True)
    genotype: Genotype = setting(kind="genotype")
    spec: NetworkSpec = setting()
    test: Evaluation = setting()
    loss: float = setting(minimum=-1e30, maximum=1e30)
    recipe: Recipe = setting()
    seed: int = seed_field()
    best_epoch: int = count()
    held_out: ClassCounts | None = setting()
    data: str = setting()
    inherit: bool = setting()
    class_names: tuple[str, ...] = setting()
    weights_digest: str = setting()
    data_digest: str = setting()
    test_digest: str = setting()
    last_weights_digest: str | None = None
    init: str | None = None
    teacher: str | None = None
    deterministic: bool = setting(False)
    threads: int | None = count(None, minimum=1)
    compile: bool = setting(False)

    ADDED: ClassVar = frozenset({"init", "teacher", "deterministic", "threads", "compile"})
    DERIVED: ClassVar = ("accuracy", "held_out_accuracy")
    PLAIN_NAMES: ClassVar = {"spec": "network"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.class_names) != len(self.test.images):
            raise InputError(f"class_names must be {len(self.test.images)}, not {len(self.class_names)}")

    @property
    def architecture(self) -> Architecture:
        """The genotype and its network."""
        return Architecture(self.genotype, self.spec)

    @property
    def accuracy(self) -> float:
        """The accuracy, a fraction of the test images."""
        return self.test.accuracy

    @property
    def held_out_accuracy(self) -> float | None:
        """The accuracy at the best epoch, a fraction of the held-out images; None where no images were held out."""
        return None if self.held_out is None else self.held_out.accuracy

    @property
    def network(self) -> str:
        """The name of the network, which several trainings may have: ``net-01`` for ``net-01@2``."""
        return network_of(self.name)


def network_of(name: str) -> str:
    """Return the name of the network that the training ``name`` is of: ``net-01`` for ``net-01@2``."""
    return _NUMBER.sub("", name)


@dataclass(frozen=True)
class Step:
    """A step that was run: ``time`` is when, ``version`` that of cars-hw, ``folder`` the one that it was run in.

    ``arguments`` are those of the command, without the program's name; None for a step that was run from Python.
    ``settings`` are all settings of the step, those that are None left out.
    """

    name: str
    time: str
    version: str
    folder: str
    arguments: tuple[str, ...] | None
    settings: dict[str, Any]

    @property
    def command(self) -> str | None:
        """The command, quoted for a shell."""
        return None if self.arguments is None else shlex.join(("cars-hw", *self.arguments))
