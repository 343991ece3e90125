"""An architecture in a larger SuperNet computes what a network built at its size computes, gradients included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from long_runs import amount
from torch import Tensor

from cars_hw.config.training import WeightSharing
from cars_hw.errors import SpecError
from cars_hw.nn.network import Network
from cars_hw.nn.paths import SHARED
from cars_hw.nn.reduced_images import reduced_images
from cars_hw.nn.slices import Slices, cells_within
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace

LARGE = NetworkSpec(channels=8, layers=11, resolution=(9, 11), in_channels=1, classes=3)
IMAGENET = NetworkSpec(channels=8, layers=8, resolution=(37, 32), in_channels=3, classes=3, stem="imagenet")
SMALLER = {
    LARGE: [(4, (1, 2, 2)), (6, (2, 3, 1)), (8, (1, 1, 1)), (4, (3, 1, 4)), (6, (3, 4, 4)), (8, (3, 4, 4))],
    IMAGENET: [(4, (1, 2, 2)), (6, (2, 1, 3)), (8, (1, 3, 1)), (2, (2, 3, 3)), (8, (2, 3, 3))],
}

REDUCED = {LARGE: (8, 9), IMAGENET: (33, 32)}
"""A smaller resolution for some of the architectures."""


def sized(large: NetworkSpec, channels: int, depths: tuple[int, int, int]) -> NetworkSpec:
    return replace(large, channels=channels, layers=sum(depths), depths=depths)


@pytest.mark.parametrize(
    ("small", "cells"),
    [
        # 11 cells are 3, 4 and 4.
        ((1, 2, 2), (0, 3, 4, 7, 8)),
        ((2, 3, 3), (0, 1, 3, 4, 5, 7, 8, 9)),
        ((1, 1, 4), (0, 3, 7, 8, 9, 10)),
        ((3, 4, 4), tuple(range(11))),
    ],
)
def test_a_smaller_network_runs_the_first_cells_of_each_stage(
    small: tuple[int, int, int], cells: tuple[int, ...]
) -> None:
    assert cells_within(sized(LARGE, 4, small), LARGE) == cells


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 10},
        {"layers": 12},
        {"layers": 8, "depths": (4, 2, 2)},
        {"classes": 4},
        {"resolution": (9, 12)},
        {"in_channels": 3},
    ],
)
def test_a_size_that_is_not_within_is_refused(change: dict[str, int]) -> None:
    architecture = Architecture(SearchSpace().sample(np.random.default_rng(0)), replace(LARGE, **change))
    with pytest.raises(SpecError, match="does not lie within 8 channels, 11 cells, 9x11x1, 3 classes, cifar stem"):
        Slices(SuperNet(LARGE)).path(architecture)


def batch(spec: NetworkSpec, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, *spec.input_shape, generator=generator, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last), torch.arange(6) % spec.classes


def built(slices: Slices, architecture: Architecture) -> Network:
    """A network of its own with the weights that the architecture has in the SuperNet."""
    network = Network(architecture.network, architecture.genotype, norm=SHARED)
    network.load_state_dict(slices.weights_of(architecture))
    return network.to(memory_format=torch.channels_last).train()


def drawn(seed: int) -> Architecture:
    large = (LARGE, IMAGENET)[seed % 2]
    sizes = SMALLER[large]
    channels, depths = sizes[seed // 2 % len(sizes)]
    spec = sized(large, channels, depths)
    if seed % 3 == 2:
        spec = replace(spec, resolution=REDUCED[large])
    return Architecture(SearchSpace().sample(np.random.default_rng(seed)), spec)


def of_its_own(x: Tensor, architecture: Architecture) -> Tensor:
    """Return the images ``x`` as a network of the size of ``architecture`` gets them."""
    return reduced_images(x, architecture.network.resolution)


@pytest.mark.parametrize("seed", range(amount(10, 200)))
def test_logits_and_gradients_are_those_of_a_network_of_that_size(seed: int) -> None:
    torch.manual_seed(seed)
    architecture, large = drawn(seed), (LARGE, IMAGENET)[seed % 2]
    supernet = SuperNet(large)
    slices = Slices(supernet)
    network = built(slices, architecture)
    x, labels = batch(large)
    with torch.no_grad():
        expected_logits = network(of_its_own(x, architecture))
        torch.testing.assert_close(slices.path(architecture).logits(x), expected_logits, rtol=1e-5, atol=1e-5)

    # In double precision: batch statistics over few pixels make of single precision's 1e-7 what hides an error.
    slices = Slices(supernet.double())
    network = Network(architecture.network, architecture.genotype, norm=SHARED).double()
    network.load_state_dict(slices.weights_of(architecture))
    x = x.double()
    path = slices.path(architecture)
    F.cross_entropy(network(of_its_own(x, architecture)), labels).backward()
    found = torch.autograd.grad(F.cross_entropy(path.logits(x), labels), path.leaves, allow_unused=True)
    own = dict(network.named_parameters())
    names = list(slices.weights_of(architecture))
    assert sorted(names) == sorted(own)
    for name, gradient in zip(names, found, strict=True):
        expected = own[name].grad
        if expected is None:
            # A cell or an input that nothing reads.
            assert gradient is None
            continue
        assert gradient is not None
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-10)
    assert sum(gradient is not None for gradient in found) > 10


@pytest.mark.parametrize("share", ["nodes", "kernels"])
@pytest.mark.parametrize("seed", range(amount(4, 60)))
def test_shared_weights_are_handed_over_exactly(seed: int, share: WeightSharing) -> None:
    torch.manual_seed(seed)
    architecture, large = drawn(seed), (LARGE, IMAGENET)[seed % 2]
    supernet = SuperNet(large, share)
    slices = Slices(supernet)
    x, _ = batch(large)
    for one in (architecture, Architecture(architecture.genotype, large)):
        with torch.no_grad():
            expected = built(slices, one)(of_its_own(x, one))
            torch.testing.assert_close(slices.path(one).logits(x), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(supernet(x, architecture.genotype), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(amount(4, 12)))
def test_places_say_where_the_weights_lie(seed: int) -> None:
    architecture, large = drawn(seed), (LARGE, IMAGENET)[seed % 2]
    supernet = SuperNet(large)
    slices = Slices(supernet)
    path = slices.path(architecture)
    assert path.places == slices.places(architecture)
    # Each element of each shared parameter gets a number of its own.
    begin = 0.0
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.copy_(torch.arange(begin, begin + parameter.numel()).view(parameter.shape))
            begin += parameter.numel()
    path = slices.path(architecture)
    seen: set[float] = set()
    for leaf, place in zip(path.leaves, path.places, strict=True):
        numbers = leaf.flatten().tolist()
        assert numbers == place.of(place.parameter).flatten().tolist()
        assert len(seen | set(numbers)) == len(seen) + len(numbers), "an element is there twice"
        seen |= set(numbers)
    assert begin > 2 * len(seen)


def test_the_first_channels_of_every_part_are_read() -> None:
    supernet = SuperNet(LARGE)
    cell = tuple((Edge("sep_conv_3x3", 0), Edge("skip_connect", 1)) for _ in range(4))
    architecture = Architecture(Genotype(cell, cell), sized(LARGE, 4, (1, 2, 2)))
    weights = Slices(supernet).weights_of(architecture)
    shared = dict(supernet.named_parameters())
    # The stem has 3 x 8 channels, of which a network of 4 has 3 x 4: the stem itself makes its first 12.
    assert torch.equal(weights["stem.0.weight"], shared["stem.0.weight"][:12])
    expected = torch.cat(
        [shared["cells.0.preprocess_0.1.weight"][:4, 8 * part : 8 * part + 4] for part in range(3)], 1
    )
    assert torch.equal(weights["cells.0.preprocess_0.1.weight"], expected)
    # Cell 1 is the first reduction, the SuperNet's cell 3, and reads the stem in place of a cell.
    assert torch.equal(
        weights["cells.1.preprocess_0.1.weight"],
        torch.cat([shared["cells.3.preprocess_0.1.weight"][:8, 8 * part : 8 * part + 4] for part in range(3)], 1),
    )
    # Cell 2 is behind it: two halves, each with half of the channels.
    for half in ("conv_1", "conv_2"):
        name = f"preprocess_0.{half}.weight"
        parts = [shared[f"cells.4.{name}"][:4, 8 * part : 8 * part + 4] for part in range(4)]
        assert torch.equal(weights[f"cells.2.{name}"], torch.cat(parts, 1))
    # The last stage has 4 x 4 channels in a part.
    parts = [shared["classifier.weight"][:, 32 * part : 32 * part + 16] for part in range(4)]
    assert torch.equal(weights["classifier.weight"], torch.cat(parts, 1))
    assert torch.equal(
        weights["cells.0.nodes.1.0.2.weight"], shared["cells.0.nodes.1.0.sep_conv_3x3.2.weight"][:4, :4]
    )


def test_behind_a_stage_that_is_a_reduction_alone_both_halves_share_one_convolution() -> None:
    supernet = SuperNet(LARGE)
    cell = tuple((Edge("sep_conv_3x3", 0), Edge("skip_connect", 1)) for _ in range(4))
    weights = Slices(supernet).weights_of(Architecture(Genotype(cell, cell), sized(LARGE, 4, (2, 1, 2))))
    # Cell 3 is the second reduction, the SuperNet's cell 7; it reads cell 1, which is twice as large.
    shared = dict(supernet.named_parameters())["cells.7.preprocess_0.1.weight"]
    for half, rows in (("conv_1", slice(0, 8)), ("conv_2", slice(8, 16))):
        parts = [shared[rows, 16 * part : 16 * part + 4] for part in range(4)]
        assert torch.equal(weights[f"cells.3.preprocess_0.{half}.weight"], torch.cat(parts, 1))


def test_at_its_own_size_an_architecture_is_what_the_supernet_runs() -> None:
    torch.manual_seed(0)
    supernet = SuperNet(LARGE)
    genotype = SearchSpace().sample(np.random.default_rng(0))
    x, _ = batch(LARGE)
    path = Slices(supernet).path(Architecture(genotype, LARGE))
    assert torch.equal(path.logits(x), supernet(x, genotype))
    assert {id(leaf) for leaf in path.leaves} == {id(one) for one in supernet.parameters_of(genotype)}


def test_weights_are_those_at_the_time_of_the_path() -> None:
    architecture, supernet = drawn(0), SuperNet(LARGE)
    slices = Slices(supernet)
    x, _ = batch(LARGE)
    with torch.no_grad():
        before = slices.path(architecture).logits(x)
        for parameter in supernet.parameters():
            parameter.mul_(-1.3)
        after = slices.path(architecture).logits(x)
        torch.testing.assert_close(after, built(slices, architecture)(x), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, after)


def test_random_numbers_are_left_alone() -> None:
    slices = Slices(SuperNet(LARGE))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    slices.path(drawn(0))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("seed", range(amount(2, 12)))
def test_weights_are_handed_over_to_a_network_of_any_size_within(seed: int) -> None:
    architecture, large = drawn(seed), (LARGE, IMAGENET)[seed % 2]
    torch.manual_seed(seed)
    supernet = SuperNet(large)
    network = Network(architecture.network, architecture.genotype)
    supernet.hand_over(network)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    x, _ = batch(large)
    with torch.no_grad():
        expected = Slices(supernet).path(architecture).logits(x)
        found = network.train()(of_its_own(x, architecture))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
