"""The cost of a search in passes of an image through a network. It compares strategies, and stages of a search.

A pass is a forward pass of one image. Where networks differ in size, passes are weighted by their multiply-adds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cars_hw.config.search import EvolutionSettings

TRAINING: Final = 3
"""The passes that a training step costs for each image: the backward pass costs as much as two forward passes."""


class JudgedImages(NamedTuple):
    """The numbers of images that train the weights, that evaluate the finalists, and that evaluate a generation."""

    trains: int
    evaluates: int
    subset: int


class SearchPasses(NamedTuple):
    """The passes of a search with shared weights.

    ``warm_up`` are those of the warm-up, and ``space`` those of architectures that were drawn from the space after
    it. ``population`` are those of the population and its offspring.
    """

    warm_up: float
    space: float
    population: float


def evaluations_without_training(evolution: EvolutionSettings, images: JudgedImages) -> tuple[int, int]:
    """Return the evaluations of a search without training: in its generations, and of finalists on all images.

    An architecture that was evaluated on the same images is not evaluated again. At the end, the population and
    twice as many offspring are evaluated on all images.
    """
    finalists = 2 if images.subset == images.evaluates else 3
    return evolution.population * (1 + evolution.generations), finalists * evolution.population


def search_passes(
    evolution: EvolutionSettings, architectures: int, images: JudgedImages, *, trains: bool = True
) -> SearchPasses:
    """Return the passes of a search without its final stage; a step trains ``architectures`` (B of Eq. 3).

    A search that does not train (``trains``) evaluates each architecture once on the same images.
    """
    if not trains:
        evaluated, finalists = evaluations_without_training(evolution, images)
        return SearchPasses(0, 0, evaluated * images.subset + finalists * images.evaluates)
    epoch = TRAINING * images.trains * architectures
    later = evolution.generations * evolution.epochs_per_generation
    # The first generation has no parents, so that twice as many new architectures are evaluated.
    evaluations = 2 * evolution.population * evolution.generations
    if evolution.protection in ("speed", "both"):
        evaluations += evolution.population * (evolution.generations + 1)
    return SearchPasses(
        epoch * evolution.warmup_epochs,
        epoch * evolution.uniform_draws * later,
        epoch * (1 - evolution.uniform_draws) * later
        + evaluations * images.subset
        + 3 * evolution.population * images.evaluates,
    )
