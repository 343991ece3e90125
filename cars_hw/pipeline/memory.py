"""The check that a search fits the memory of its GPU, before it begins."""

from __future__ import annotations

import torch

from cars_hw.errors import InputError
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.space.genotype import NODES, Edge, Genotype
from cars_hw.space.operations import OPERATIONS
from cars_hw.training.shared_weights import SuperNetWeights


def require_memory(plan: SearchPlan, weights: SuperNetWeights) -> None:
    """Check that the steps of a search fit the memory, with a step of the largest architecture: over sizes, at the
    largest size.

    Raises:
        InputError: the memory does not suffice; the message names the settings to lower.
    """
    heaviest = max(plan.space.operations, key=lambda name: (OPERATIONS[name].kept_maps, name))
    cell = tuple((Edge(heaviest, 0), Edge(heaviest, 1)) for _ in range(NODES))
    try:
        weights.rehearse(Genotype(normal=cell, reduce=cell))
    except torch.OutOfMemoryError as error:
        raise out_of_memory(plan) from error


def out_of_memory(plan: SearchPlan) -> InputError:
    """Return the error that the memory of the GPU is too small for ``plan``."""
    training = plan.preset.training
    return InputError(
        f"the GPU's memory is too small for training batches of {training.batch_size} images and evaluation "
        f"batches of {training.evaluation_batch}",
        remedy="less-memory",
    )
