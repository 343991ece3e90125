"""Networks of MobileNet-like blocks: genotypes, costs, modules, files, training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cars_hw.errors import GenotypeError, InputError
from cars_hw.export.format import ExportFormat
from cars_hw.export.formats import FORMATS
from cars_hw.export.lower_mobile import lower_mobile
from cars_hw.nn.mobile import MobileNetwork, SqueezeExcite, mobile_cost
from cars_hw.space.mobile import Block, MobileGenotype, MobileSpace, mobile_zoo
from cars_hw.space.shape import Shape
from cars_hw.studies.reference_names import is_reference, parse
from cars_hw.studies.references import count, make

SMALL = MobileGenotype(
    4, (Block(1, 3, 4), Block(3, 5, 6, 2, 0.5), Block(2, 7, 6, 1, 0.25), Block(6, 3, 8, 2)), 12, "relu6"
)


def test_blocks_worked_out_by_hand() -> None:
    second = SMALL.blocks[1]
    assert (second.expanded(4), second.squeezed(4), second.adds_input(4)) == (12, 2, False)
    assert [block.adds_input(channels) for block, channels in SMALL.placed()] == [True, False, True, False]
    image = Shape(3, 8, 8)
    # The stem: 3 x 4 filters of 3x3 and 4 shifts on 4x4 pixels.
    only = MobileGenotype(4, (Block(2, 3, 5, 2, 0.5),), 7)
    weights = [3 * 4 * 9, 4 * 8, 8 * 9, 8 * 2, 2 * 8, 8 * 5, 5 * 7, 7 * 10]
    shifts = [4, 8, 8, 2, 8, 5, 7, 10]
    cost = mobile_cost(only, image, 10)
    assert cost.parameters == sum(weights) + sum(shifts)
    pixels = [16, 16, 4, 1, 1, 4, 4, 1]
    assert cost.multiply_adds == sum(one * many for one, many in zip(weights, pixels, strict=True))
    # Six normalisations have scales, which are folded.
    assert cost.folded == 4 + 8 + 8 + 5 + 7


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        # In millions, as printed; MobileNetV2 and FBNet-C round to a tenth more (3.50 and 5.57).
        ("mobilenet_v2_1x", "3.5", "301"),
        ("mnasnet_a1", "3.9", "312"),
        ("fbnet_c", "5.6", "378"),
        ("proxylessnas_gpu", "7.1", "465"),
        ("proxylessnas_mobile", "4.1", "320"),
    ],
)
def test_published_networks_have_the_printed_counts(name: str, parameters: str, multiply_adds: str) -> None:
    genotype = mobile_zoo()[name].genotype
    cost = mobile_cost(genotype, Shape(3, 224, 224), 1000)
    assert f"{cost.trained_parameters / 1e6:.1f}" == parameters
    assert f"{cost.multiply_adds / 1e6:.0f}" == multiply_adds
    # What a pass through the module counts is what the closed form says.
    assert count(name) == cost
    assert MobileGenotype.from_dict(genotype.to_dict()) == genotype


def test_mobilenet_v2_is_that_of_torchvision() -> None:
    with torch.device("meta"):
        own, other = make("mobilenet_v2_1x"), make("mobilenet_v2")
    shapes = [[tuple(one.shape) for one in network.parameters()] for network in (own, other)]
    assert shapes[0] == shapes[1]


def test_width_small_images_and_names() -> None:
    half = mobile_zoo()["mnasnet_a1"].genotype.scaled(0.5)
    assert (half.stem, half.head, half.blocks[0].channels, half.blocks[3].channels) == (16, 1280, 8, 24)
    network = make("mnasnet_a1:0.5@small", Shape(1, 32, 32), 10)
    assert isinstance(network, MobileNetwork)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert [one.stride for one in network.modules() if isinstance(one, nn.Conv2d)].count((2, 2)) == 3
    assert is_reference("fbnet_c")
    assert parse("fbnet_c").width is None
    with pytest.raises(InputError, match="the width of fbnet_c must be above 0"):
        parse("fbnet_c:9")
    with pytest.raises(InputError, match=r"no classifier 'fbnet_d'; .*, fbnet_c, "):
        parse("fbnet_d")


@pytest.mark.parametrize("export_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_files_compute_what_the_module_does(
    export_format: ExportFormat,
    activation: str,
    seasoned: Callable[[nn.Module, Tensor], nn.Module],
    tmp_path: Path,
) -> None:
    shape = Shape(3, 18, 21)
    genotype = MobileGenotype(SMALL.stem, SMALL.blocks, SMALL.head, activation)  # type: ignore[arg-type]
    torch.manual_seed(0)
    images = 4 * torch.randn(4, *shape)
    network = seasoned(MobileNetwork(genotype, 3, 5), images).eval()
    assert isinstance(network, MobileNetwork)
    graph = lower_mobile(network, shape)
    assert graph.multiply_adds == mobile_cost(genotype, shape, 5).multiply_adds
    path = tmp_path / f"net{export_format.suffix}"
    path.write_bytes(export_format.write(graph))
    (found,) = export_format.values(path, images.numpy(), lambda _name: False).values()
    with torch.no_grad():
        expected = network(images).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


def test_a_squeeze_multiplies_channels_by_what_their_means_say() -> None:
    module = SqueezeExcite(3, 2)
    nn.init.zeros_(module.expand.weight)
    nn.init.constant_(module.expand.bias, 0.0)
    x = torch.randn(2, 3, 4, 5)
    # The sigmoid of 0 is a half, whatever the means are.
    torch.testing.assert_close(module(x), x / 2)


def test_what_is_no_network_is_refused() -> None:
    plain = SMALL.to_dict()
    for changed, message in (
        ({"stages": []}, "at least one block"),
        ({"stages": [[1, 3, 4, 8, 1, 0]]}, "block 1 has no odd kernel"),
        ({"stages": [[1, 3, 3, 8, 3, 0]]}, "a stride that is not 1 or 2"),
        ({"stages": [[1, 3, 3]]}, "no genotype of MobileNet-like blocks"),
        ({"stem": "x"}, "no genotype of MobileNet-like blocks"),
        (json.loads('{"head": 1e400}'), "no genotype of MobileNet-like blocks: OverflowError"),
        (json.loads('{"stages": [[1, 1e400, 3, 8, 1, 0]]}'), "no genotype of MobileNet-like blocks: OverflowError"),
        ({"activation": "tanh"}, "must be relu or relu6"),
    ):
        with pytest.raises(GenotypeError, match=message):
            MobileGenotype.from_dict({**plain, **changed})


def test_random_networks_of_a_space_are_legal_and_differ() -> None:
    space = MobileSpace(mobile_zoo()["mobilenet_v2_1x"].genotype)
    rng = np.random.default_rng(0)
    found = [space.sample(rng) for _ in range(30)]
    assert len(set(found)) == 30
    for one in found:
        assert [block.stride for block in one.blocks].count(2) == 4
        assert {block.kernel for block in one.blocks} <= {3, 5, 7}
        assert mobile_cost(one, Shape(3, 32, 32), 10).parameters > 0
    assert len({len(one.blocks) for one in found}) > 1
    with torch.device("meta"):
        made = MobileNetwork(found[0], 3, 10)
    expected = mobile_cost(found[0], Shape(3, 32, 32), 10).trained_parameters
    assert sum(one.numel() for one in made.parameters()) == expected
