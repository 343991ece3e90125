"""What a search costs, in passes of an image through a network: by them strategies and stages are compared.

A pass is a forward pass of one image. Where networks differ in size, passes are weighted by their multiply-adds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cars_hw.config.search import EvolutionSettings

TRAINING: Final = 3
"""A training step costs so many passes for each of its images: the backward pass costs as much as two forward."""


class JudgedImages(NamedTuple):
    """How many images of a search train its weights, evaluate its finalists, and evaluate a generation."""

    trains: int
    evaluates: int
    subset: int


class SearchPasses(NamedTuple):
    """The passes of a search with shared weights: of architectures drawn from the space, and of its population.

    The latter include the offspring, which are evaluated beside the population.
    """

    space: float
    population: float


def search_passes(evolution: EvolutionSettings, architectures: int, images: JudgedImages) -> SearchPasses:
    """Return the passes of a search without its final stage; a step trains ``architectures`` (B of Eq. 3)."""
    epoch = TRAINING * images.trains * architectures
    later = evolution.generations * evolution.epochs_per_generation
    uniform = evolution.warmup_epochs + evolution.uniform_draws * later
    # The first generation has no parents, so that twice as many new architectures are evaluated.
    evaluations = 2 * evolution.population * evolution.generations
    if evolution.protection in ("speed", "both"):
        evaluations += evolution.population * (evolution.generations + 1)
    return SearchPasses(
        epoch * uniform,
        epoch * (1 - evolution.uniform_draws) * later
        + evaluations * images.subset
        + 3 * evolution.population * images.evaluates,
    )
