"""The check that a search fits the memory of its GPU, before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cars_hw.config.training import Recipe
from cars_hw.errors import InputError, Remedy
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.training.memory import is_out_of_memory
from cars_hw.training.shared_weights import SuperNetWeights


def require_memory(plan: SearchPlan, weights: SuperNetWeights) -> None:
    """Check that the steps of a search fit the memory, with a step of the largest architecture: over sizes, at the
    largest size.

    Raises:
        InputError: the memory does not suffice; the message names the settings to lower.
    """
    with enough_memory(plan):
        weights.rehearse(plan.space.heaviest(), _together(plan))


def _together(plan: SearchPlan) -> int:
    """Return the most architectures that are evaluated together: at the end, a population and twice as much."""
    return 3 * plan.preset.evolution.population


@contextmanager
def enough_memory(plan: SearchPlan) -> Iterator[None]:
    """Let an error in the block that says that there is too little memory name the settings of ``plan`` to lower.

    Raises:
        InputError: the memory does not suffice.
    """
    training = plan.preset.training
    probes = ""
    if training.classifier != "shared":
        probes = f", and for the features of {_together(plan)} architectures with linear probes"
    with _told(
        plan.device,
        f"training batches of {training.batch_size} images and evaluation batches of "
        f"{training.evaluation_batch}{probes}",
        _remedy(plan.device, replays=plan.replay != "off"),
    ):
        yield


@contextmanager
def enough_memory_to_train(recipe: Recipe, device: str, name: str, *, replays: bool = False) -> Iterator[None]:
    """Let such an error name the settings of ``recipe`` to lower, by which the network ``name`` is trained.

    If it ``replays`` its steps, a recording keeps the memory of a step on a GPU, which the error names too.

    Raises:
        InputError: the memory does not suffice.
    """
    with _told(device, f"batches of {recipe.batch_size} images of {name}", _remedy(device, replays=replays)):
        yield


def _remedy(device: str, *, replays: bool) -> Remedy:
    return "less-memory-or-replay" if replays and device.startswith("cuda") else "less-memory"


@contextmanager
def _told(device: str, what: str, remedy: Remedy) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        place = "GPU's memory" if device.startswith("cuda") else "memory"
        raise InputError(f"the {place} is too small for {what}", remedy=remedy) from error
