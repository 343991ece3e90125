"""Settings of the evolution: how long, how many architectures, which are protected, and how offspring are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Protection = Literal["speed", "size", "both", "none"]
"""What the further sorts protect.

- ``speed``: the paper's. The second sort is on (-gain, cost...): the accuracy gained since the last
  generation is maximised, the costs are minimised.
- ``size``: the released code's. The second sort is on (error, -cost...): the error is minimised, the costs
  are maximised.
- ``both``: three sorts, the first and these two.
- ``none``: the first sort alone, which is plain NSGA-III.
"""


@dataclass(frozen=True)
class VariationRates:
    """The probabilities of the three ways, and of a node to be touched by mutation or crossover.

    The defaults are the paper's (CARS, section 4.1). Raises ValueError unless they are probabilities.
    """

    mutation: float = 0.25
    crossover: float = 0.25
    random: float = 0.5
    node: float = 0.5

    def __post_init__(self) -> None:
        ways = (self.mutation, self.crossover, self.random)
        if not all(0 <= rate <= 1 for rate in (*ways, self.node)) or abs(sum(ways) - 1) > 1e-9:
            raise ValueError(f"the rates of mutation, crossover and random must sum to 1: {self}")


@dataclass(frozen=True)
class EvolutionSettings:
    """How long, how many, who is protected, and on what the weights are trained.

    ``epochs`` in all, of which ``warmup_epochs`` come first; then a generation is one architecture step and
    ``epochs_per_generation`` epochs of parameter steps. Those train the population, but for a fraction of
    ``uniform_draws``, which is drawn from the whole space as in the warm-up. Raises ValueError for a setting that
    makes no sense.
    """

    population: int = 128
    epochs: int = 500
    warmup_epochs: int = 50
    epochs_per_generation: int = 10
    protection: Protection = "speed"
    rates: VariationRates = field(default_factory=VariationRates)
    uniform_draws: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.uniform_draws <= 1:
            raise ValueError(f"the share of uniform draws is a fraction, not {self.uniform_draws}")
        if min(self.population, self.epochs, self.warmup_epochs, self.epochs_per_generation) < 1:
            raise ValueError("population, epochs, warm-up and epochs a generation must be at least 1")
        if self.generations < 1:
            raise ValueError(
                f"{self.epochs} epochs leave no generation after {self.warmup_epochs} epochs of warm-up"
            )

    @property
    def generations(self) -> int:
        """The number of architecture steps; epochs that do not fill a generation are not run."""
        return (self.epochs - self.warmup_epochs) // self.epochs_per_generation
