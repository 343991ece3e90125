"""Settings of the evolution (length, population, protection, offspring), and of the final stage of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from cars_hw.config.evaluation import Objective, SearchObjective
from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError

Protection = Literal["speed", "size", "both", "none"]
"""What the further sorts protect.

- ``speed``: the paper's. The second sort is on (-gain, cost...): the accuracy gained since the last
  generation is maximised, the costs are minimised.
- ``size``: the released code's. The second sort is on (error, -cost...): the error is minimised, the costs
  are maximised.
- ``both``: three sorts, the first and these two.
- ``none``: the first sort alone, which is plain NSGA-III.
"""


Draws = Literal["uniform", "fair"]
"""How architectures are drawn from the space to train the shared weights.

- ``uniform``: independently of each other.
- ``fair``: in turn, so that every operation on every edge is trained equally often; see
  :mod:`cars_hw.space.fair_draws`.
"""

Widening = Literal["none", "sizes", "operations", "both"]
"""With what part of the space the draws of the warm-up begin; the part grows until half of the warm-up.

- ``none``: with the whole space.
- ``sizes``: with the largest size.
- ``operations``: with the operation that has the most weights.
- ``both``: with that operation at the largest size.

:mod:`cars_hw.space.widening` says how the part grows.
"""


@dataclass(frozen=True)
class VariationRates(Settings):
    """The probabilities of the three ways to make offspring, and of a node to be changed by mutation or crossover.

    The defaults are the paper's (CARS, section 4.1).

    Raises:
        InputError: a rate is no probability, or the three ways do not sum to 1.
    """

    mutation: float = setting(0.25, help="Share of offspring that are mutations.", minimum=0, maximum=1)
    crossover: float = setting(0.25, help="Share of offspring that are crossovers.", minimum=0, maximum=1)
    random: float = setting(0.5, help="Share of offspring that are drawn at random.", minimum=0, maximum=1)
    node: float = setting(
        0.5, help="Probability that mutation or crossover changes a node of a cell.", minimum=0, maximum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if abs(self.mutation + self.crossover + self.random - 1) > 1e-9:
            raise InputError(
                f"mutation, crossover and random must sum to 1: {self.mutation} + {self.crossover} + {self.random}"
            )


@dataclass(frozen=True)
class EvolutionSettings(Settings):
    """How long a search is, how many architectures survive, and which are protected.

    ``epochs`` is the total number of epochs. The first ``warmup_epochs`` of them are the warm-up, which trains
    uniformly drawn architectures. A generation is one evaluation and selection of
    architectures, followed by ``epochs_per_generation`` epochs of training of the shared weights. These epochs
    train architectures of the population; a fraction ``uniform_draws`` of the trained architectures is drawn from
    the whole space, as in the warm-up. ``draws`` says how architectures are drawn there. With a ``widening``, the
    first half of the warm-up draws from a part of the space that grows. ``objective`` is what the search maximises
    beside minimising the costs.

    Raises:
        InputError: a number is out of its bounds, or the epochs leave no generation after the warm-up.
    """

    population: int = setting(128, help="Architectures that survive a generation.", minimum=1)
    epochs: int = setting(
        500, help="Passes over the training images in all, the warm-up included.", unit="epochs", minimum=1
    )
    warmup_epochs: int = setting(
        50,
        help="Epochs at the start, which train architectures drawn uniformly from the space; 0: none, only for a "
        "search that starts from trained weights (--from-run).",
        unit="epochs",
        minimum=0,
    )
    epochs_per_generation: int = setting(10, help="Epochs between two selections.", unit="epochs", minimum=1)
    protection: Protection = setting(
        "speed",
        help="Which networks the selection protects. speed: those whose accuracy rises fast (as in the paper); "
        "size: large ones (as in the paper's code); both; none: no protection (plain NSGA-III).",
        option="--protect",
    )
    rates: VariationRates = setting(factory=VariationRates, help="How offspring are made.")
    uniform_draws: float = setting(
        0.0,
        help="Share of the trained architectures that are drawn uniformly from the space after the warm-up. The "
        "rest is drawn from the population.",
        option="--uniform-share",
        minimum=0,
        maximum=1,
    )
    draws: Draws = setting(
        "uniform",
        help="How architectures are drawn from the space in the warm-up, and for --uniform-share. uniform: "
        "independently; fair: in turn, so that every operation on every edge is trained equally often.",
    )
    widening: Widening = setting(
        "none",
        help="The part of the search space that the warm-up begins with. none: the whole space; sizes: the largest "
        "size, in a search over sizes; operations: the operation that has the most weights; both: that operation "
        "at the largest size. Smaller sizes and further operations are added one by one. The second half of the "
        "warm-up has the whole space.",
        option="--widen",
    )
    objective: SearchObjective = setting(
        "accuracy",
        help="What the search maximises on the validation images. accuracy: the share of right answers; "
        "balanced-accuracy: the mean of the accuracies on the images of each class, so that a class with few "
        "images counts as much as one with many; cars-hw train chooses the best epoch by the same figure. "
        "loss: a low cross-entropy under the shared weights, in place of a high accuracy.",
    )

    ADDED: ClassVar = frozenset({"draws", "widening"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.generations < 1:
            raise InputError(
                f"{self.epochs} epochs leave no generation after {self.warmup_epochs} epochs of warm-up",
                remedy="fewer-warm-up",
                least=self.warmup_epochs + self.epochs_per_generation,
            )

    @property
    def printed_accuracy(self) -> Objective:
        """The accuracy that is shown and that chooses among trained networks; a loss is compared, but not shown."""
        return "accuracy" if self.objective == "loss" else self.objective

    @property
    def generations(self) -> int:
        """The number of architecture steps; epochs that do not fill a generation are not run."""
        return (self.epochs - self.warmup_epochs) // self.epochs_per_generation


@dataclass(frozen=True)
class FinalSettings(Settings):
    """The final stage of a search: short trainings of its best networks choose the front.

    ``share`` is the share of these trainings in the whole cost of the search; :mod:`cars_hw.evolution.passes` says
    how the cost is counted. If it is 0, there is no final stage. The range of the first cost is divided into
    ``stretches`` equal parts, and the best networks of each are trained.

    Raises:
        InputError: a number is out of its bounds.
    """

    share: float = setting(
        0.0,
        help="The part of the whole cost of the search that the final stage takes. The final stage trains the best "
        "networks for a short time, and these trainings choose the front. 0: there is no final stage, and the "
        "accuracies of the search choose the front.",
        option="--final",
        minimum=0,
        below=1,
    )
    stretches: int = setting(
        5,
        help="The final stage divides the range of the first cost into so many parts and trains networks of each.",
        minimum=1,
        maximum=100,
    )
