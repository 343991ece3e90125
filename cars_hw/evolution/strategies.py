"""Search strategies that a search is compared with, at the same cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from cars_hw.config.search import EvolutionSettings, VariationRates


@dataclass(frozen=True)
class Strategy:
    """A search strategy: ``changed`` makes its settings from those of a run, at the same cost.

    ``untrained`` is its summary for a search that trains no shared weights, where that is another one.
    """

    summary: str
    changed: Callable[[EvolutionSettings], EvolutionSettings]
    untrained: str = ""


def _random(settings: EvolutionSettings) -> EvolutionSettings:
    # The weights train on uniform draws in every epoch; the population is an archive of the best draws so far.
    return replace(
        settings,
        protection="none",
        uniform_draws=1.0,
        rates=replace(settings.rates, mutation=0.0, crossover=0.0, random=1.0),
    )


OWN: Final = "own"
"""The strategy of the run itself."""

STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {
        OWN: Strategy("the run's own settings", lambda settings: settings),
        "random": Strategy(
            "random search in the same SuperNet, trained on uniform draws",
            _random,
            untrained="random search, by the same evaluation on untrained weights",
        ),
        "none": Strategy(
            "plain NSGA-III, without protection", lambda settings: replace(settings, protection="none")
        ),
        "speed": Strategy(
            "protects architectures that learn fast", lambda settings: replace(settings, protection="speed")
        ),
        "size": Strategy("protects large networks", lambda settings: replace(settings, protection="size")),
        "both": Strategy("protects both", lambda settings: replace(settings, protection="both")),
        "fresh": Strategy(
            "half of the offspring are fresh draws",
            lambda settings: replace(settings, rates=VariationRates()),
        ),
        "mixed": Strategy(
            "half of the architectures in training are drawn from the whole space",
            lambda settings: replace(settings, uniform_draws=0.5),
        ),
        "uniform": Strategy(
            "all architectures in training are drawn from the whole space, as for random search",
            lambda settings: replace(settings, uniform_draws=1.0),
        ),
        "paper": Strategy(
            "the paper's: speed is protected, half of the offspring are fresh, only the population is trained",
            lambda settings: replace(settings, protection="speed", rates=VariationRates(), uniform_draws=0.0),
        ),
    }
)
"""The strategies by their names on the command line.

All train for the same number of epochs and evaluate the same number of architectures. Strategies that protect speed
evaluate new architectures twice, which measures their gain.
"""
