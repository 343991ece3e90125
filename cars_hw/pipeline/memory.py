"""The check that a search fits the memory of its GPU, before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cars_hw.errors import InputError
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.space.genotype import NODES, Edge, Genotype
from cars_hw.space.operations import OPERATIONS
from cars_hw.training.memory import is_out_of_memory
from cars_hw.training.shared_weights import SuperNetWeights


def require_memory(plan: SearchPlan, weights: SuperNetWeights) -> None:
    """Check that the steps of a search fit the memory, with a step of the largest architecture: over sizes, at the
    largest size.

    Raises:
        InputError: the memory does not suffice; the message names the settings to lower.
    """
    heaviest = max(plan.space.operations, key=lambda name: (OPERATIONS[name].kept_maps, name))
    cell = tuple((Edge(heaviest, 0), Edge(heaviest, 1)) for _ in range(NODES))
    with enough_memory(plan):
        weights.rehearse(Genotype(normal=cell, reduce=cell))


@contextmanager
def enough_memory(plan: SearchPlan) -> Iterator[None]:
    """Let an error in the block that says that there is too little memory name the settings of ``plan`` to lower.

    Raises:
        InputError: the memory does not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        training = plan.preset.training
        place = "GPU's memory" if plan.device.startswith("cuda") else "memory"
        raise InputError(
            f"the {place} is too small for training batches of {training.batch_size} images and evaluation "
            f"batches of {training.evaluation_batch}",
            remedy="less-memory",
        ) from error
