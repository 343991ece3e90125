"""Blocks under shared weights compute what the network computes that gets the same weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cars_hw.config.training import WeightSharing
from cars_hw.nn.block_slices import slices_of
from cars_hw.nn.cost import network_cost
from cars_hw.nn.layers import Normalization
from cars_hw.nn.network import Network
from cars_hw.nn.shared_start import copy_weights
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.block_space import uniform
from cars_hw.space.genotype import BlockGenotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.space_of import space_of

SPEC = NetworkSpec(4, 5, (9, 9), 2, classes=3, family="mobile")
BATCH_NORM = Normalization(affine=False, running=False)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("share", ["edges", "kernels"])
def test_a_slice_computes_what_its_network_computes(share: WeightSharing, stem: str) -> None:
    spec = replace(SPEC, stem=stem, resolution=(9, 9) if stem == "cifar" else (65, 33))
    torch.manual_seed(0)
    supernet, rng = SuperNet(spec, share), np.random.default_rng(0)
    images = torch.randn(3, 2, *spec.resolution)
    slices = slices_of(supernet)
    for channels in (4, 2):
        for _ in range(4):
            genotype, small = space_of(spec).sample(rng), replace(spec, channels=channels)
            network = Network(small, genotype, norm=BATCH_NORM).train()
            assert sum(one.numel() for one in Network(small, genotype).parameters()) == (
                network_cost(small, genotype).trained_parameters
            )
            # Everything is handed over: nothing keeps the weights that it began with.
            for one in network.parameters():
                torch.nn.init.constant_(one, torch.nan)
            supernet.hand_over(network)
            expected = network(images)
            path = slices.path(Architecture(genotype, small))
            torch.testing.assert_close(path.logits(images), expected, rtol=1e-5, atol=1e-6)
            assert sum(one.numel() for one in path.leaves) == sum(one.numel() for one in network.parameters())
            if channels == 4:
                torch.testing.assert_close(supernet(images, genotype), expected, rtol=1e-5, atol=1e-6)


def test_which_choices_share_weights() -> None:
    one, other = uniform(SPEC, "k3_e1"), uniform(SPEC, "k7_e6_se")
    for share, common in (("edges", False), ("kernels", True)):
        supernet = SuperNet(SPEC, share)  # type: ignore[arg-type]
        owners = [
            {id(place.parameter) for place in slices_of(supernet).places(Architecture(genotype, SPEC))}
            for genotype in (one, other)
        ]
        # Stem, head and classifier are always common: their weights and the bias.
        assert len(owners[0] & owners[1]) == 4 + (2 * SPEC.layers if common else 0)
    block = supernet.chain(one)[0]
    large = supernet.chain(other)[0]
    centre = large.filter[0].weight[:4, :, 2:5, 2:5]  # type: ignore[union-attr,index]
    assert torch.equal(block.filter[0].weight, centre)  # type: ignore[union-attr,index]


def test_a_new_supernet_takes_the_weights_of_all_choices() -> None:
    torch.manual_seed(1)
    old, new = SuperNet(SPEC), SuperNet(replace(SPEC, channels=6))
    copied = copy_weights(old, new, classifier=True)
    # The classifier reads as many features as the narrower network has.
    assert copied == sum(one.numel() for one in old.parameters())
    genotype = BlockGenotype(("k3_e3", "k5_e6_se", "skip", "k7_e1", "k3_e6"))
    images = torch.randn(2, 2, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(
            slices_of(new).path(Architecture(genotype, SPEC)).logits(images), old(images, genotype)
        )


def test_paths_are_dropped_where_a_block_adds_its_input() -> None:
    network = Network(SPEC, BlockGenotype(("k3_e3", "k5_e6", "k3_e1", "k7_e1", "k3_e6"))).train()
    first, second = network.cells[0], network.cells[1]
    x = torch.randn(64, 4, 9, 9)
    torch.manual_seed(0)
    dropped = [bool((row == 0).all()) for row in first(x, x, 0.5) - x]
    assert 10 < sum(dropped) < 54
    # The other has no input to fall back to.
    torch.testing.assert_close(second(x, x, 0.5), second(x, x))
