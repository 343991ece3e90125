"""Weights that are copied between SuperNets: an architecture that both have computes the same in both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cars_hw.config.training import WeightSharing
from cars_hw.nn.shared_start import common_size, copy_weights
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace

SPEC = NetworkSpec(channels=8, layers=6, resolution=(8, 8), in_channels=1, classes=3)


def sized(channels: int, depths: tuple[int, int, int], spec: NetworkSpec = SPEC) -> NetworkSpec:
    return replace(spec, channels=channels, layers=sum(depths), depths=depths)


def made(spec: NetworkSpec, seed: int, share: WeightSharing = "edges") -> SuperNet:
    torch.manual_seed(seed)
    return SuperNet(spec, share)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (sized(8, (2, 2, 2)), sized(8, (2, 2, 2))),
        # Larger, smaller, and wider but with fewer cells.
        (sized(4, (1, 2, 2)), sized(8, (2, 2, 3))),
        (sized(8, (2, 2, 3)), sized(4, (1, 2, 2))),
        (sized(4, (2, 3, 2)), sized(8, (1, 1, 2))),
        (
            sized(4, (1, 2, 2), replace(SPEC, resolution=(32, 32), stem="imagenet")),
            sized(8, (2, 2, 2), replace(SPEC, resolution=(40, 32), stem="imagenet")),
        ),
    ],
)
def test_architectures_of_common_sizes_compute_the_same(old: NetworkSpec, new: NetworkSpec) -> None:
    before, after = made(old, 0), made(new, 1)
    copied = copy_weights(before, after, classifier=True)
    common = common_size(new, old)
    if (common.channels, common.stages) == (new.channels, new.stages):
        assert copied == sum(one.numel() for one in after.parameters())
    else:
        assert copied < sum(one.numel() for one in after.parameters())
    rng = np.random.default_rng(0)
    images = torch.randn(4, *old.input_shape).contiguous(memory_format=torch.channels_last)
    slices = Slices(before), Slices(after)
    networks = [common]
    # A layer of two halves has the rows of one layer at one size only.
    if [depth == 1 for depth in old.stages] == [depth == 1 for depth in new.stages]:
        networks.append(sized(common.channels - 2, (1, *common.stages[1:]), common))
    for network in networks:
        for _ in range(3):
            genotype = SearchSpace().sample(rng)
            with torch.no_grad():
                answers = [
                    one.path(Architecture(genotype, replace(network, resolution=old.resolution))).logits(images)
                    for one in slices
                ]
            assert torch.equal(*answers)


@pytest.mark.parametrize("share", ["nodes", "kernels"])
def test_weights_that_operations_share_are_copied(share: WeightSharing) -> None:
    old, new = sized(4, (1, 2, 2)), sized(8, (2, 2, 3))
    before, after = made(old, 0, share), made(new, 1, share)
    assert copy_weights(before, after, classifier=True) == sum(one.numel() for one in before.parameters())
    images = torch.randn(4, *new.input_shape).contiguous(memory_format=torch.channels_last)
    architecture = Architecture(SearchSpace().sample(np.random.default_rng(0)), old)
    with torch.no_grad():
        answers = [Slices(one).path(architecture).logits(images) for one in (before, after)]
    assert torch.equal(*answers)
    assert copy_weights(made(new, 2, share), after, classifier=True) == sum(
        one.numel() for one in after.parameters()
    )


def test_what_only_the_new_one_has_stays_and_nothing_old_changes() -> None:
    before, after, fresh = made(sized(4, (1, 2, 2)), 0), made(sized(8, (1, 2, 2)), 1), made(sized(8, (1, 2, 2)), 1)
    kept = {name: value.clone() for name, value in before.state_dict().items()}
    copied = copy_weights(before, after, classifier=True)
    changed = sum(
        int((one != other).sum()) for one, other in zip(after.parameters(), fresh.parameters(), strict=True)
    )
    assert changed == copied == sum(one.numel() for one in before.parameters())
    for name, value in before.state_dict().items():
        assert torch.equal(value, kept[name])


def test_operations_that_the_old_one_did_not_train_stay_fresh() -> None:
    small = sized(4, (1, 1, 1))
    before, after, fresh = made(small, 0), made(small, 1), made(small, 1)
    copied = copy_weights(before, after, classifier=True, without=["dil_conv_5x5", "max_pool_3x3"])
    own = 0
    for name, value in after.named_parameters():
        trained = "dil_conv_5x5" not in name
        assert torch.equal(value, (before if trained else fresh).get_parameter(name))
        own += 0 if trained else value.numel()
    assert own > 0
    assert copied == sum(one.numel() for one in after.parameters()) - own


def test_a_classifier_of_other_classes_stays_fresh() -> None:
    before, after, fresh = made(SPEC, 0), made(replace(SPEC, classes=5), 1), made(replace(SPEC, classes=5), 1)
    copied = copy_weights(before, after, classifier=False)
    assert torch.equal(after.classifier.weight, fresh.classifier.weight)
    assert torch.equal(after.classifier.bias, fresh.classifier.bias)
    own = after.classifier.weight.numel() + 5
    assert copied == sum(one.numel() for one in after.parameters()) - own
    assert torch.equal(after.cells[0].preprocess_0[1].weight, before.cells[0].preprocess_0[1].weight)  # type: ignore[index,union-attr]
