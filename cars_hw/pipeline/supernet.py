"""The SuperNet of a plan: its network and its weights, and the network as which each architecture runs in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from cars_hw.data import DataBundle
from cars_hw.nn.supernet import SuperNet
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.progress import Log, no_log
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup
from cars_hw.training.shared_weights import SuperNetWeights


def trained_spec(plan: SearchPlan, supernet: NetworkSpec, architecture: Architecture) -> NetworkSpec:
    """Return the network as which ``architecture`` runs in the search.

    In a search over sizes it has the architecture's own size. Otherwise it is ``supernet``, which may be smaller
    than the exported network.
    """
    if plan.sizes is None:
        return supernet
    own = architecture.network
    return supernet.sized(own, resolution=own.resolution if plan.architectures.varies_resolution else None)


def supernet_spec(plan: SearchPlan, data: DataBundle) -> NetworkSpec:
    """Return the NetworkSpec of the SuperNet: the preset's width and depth, the data's input and classes.

    Over sizes it has the largest of them.
    """
    preset, spec = plan.preset, plan.network
    if plan.sizes is None:
        spec = spec.with_changes(channels=preset.supernet_channels, layers=preset.supernet_layers)
    if not plan.proxy:
        return spec
    # The ImageNet stem divides the resolution by eight, which is too much for small proxy images.
    return replace(spec, resolution=data.resolution, in_channels=data.channels, classes=data.classes, stem="cifar")


def supernet_weights_of(
    plan: SearchPlan,
    data: DataBundle,
    process_group: ProcessGroup = SINGLE_PROCESS,
    begin: Callable[[SuperNet], None] = lambda _supernet: None,
    log: Log = no_log,
) -> SuperNetWeights:
    """Return the SuperNet of ``plan``, ready to train and to evaluate; ``begin`` may change its fresh weights.

    For ``log`` see :class:`SuperNetWeights`.
    """
    # torch's layers draw their initial weights from the global generator: fork it, so that its state is unchanged.
    training = plan.preset.training
    if plan.standalone_epochs:
        # An architecture that is trained standalone shares its weights with nothing.
        training = replace(training, size_sampling="drawn", share="edges", average=0.0, classifier="shared")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        supernet = SuperNet(supernet_spec(plan, data), training.share)
    begin(supernet)
    evolution = plan.preset.evolution
    return SuperNetWeights(
        supernet,
        data,
        training,
        epochs=plan.standalone_epochs
        or evolution.warmup_epochs + evolution.generations * evolution.epochs_per_generation,
        seed=plan.seed,
        device=plan.device if process_group.world == 1 else process_group.device,
        process_group=process_group,
        replay=plan.replay,
        over_sizes=plan.sizes is not None,
        over_resolutions=plan.architectures.varies_resolution,
        smallest=plan.architectures.smallest,
        log=log,
    )
