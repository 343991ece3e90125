"""Other ways to search than the one at hand, at the same cost: what a search has to be better than."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from cars_hw.config.search import EvolutionSettings, VariationRates


@dataclass(frozen=True)
class Strategy:
    """A way to search: ``changed`` makes its settings of another's, at the same cost."""

    summary: str
    changed: Callable[[EvolutionSettings], EvolutionSettings]


def _random(settings: EvolutionSettings) -> EvolutionSettings:
    # Weights learn on uniform draws to the end; the population is an archive, the best of what was drawn so far.
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
        "random": Strategy("random search in the same SuperNet, trained on uniform draws", _random),
        "none": Strategy(
            "plain NSGA-III: nothing is protected", lambda settings: replace(settings, protection="none")
        ),
        "speed": Strategy("protects who learns fast", lambda settings: replace(settings, protection="speed")),
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
"""By the name that the command line knows. All train as much and judge as many architectures; what protects speed
judges newcomers twice, since their gain has to be measured."""
