import pytest
import torch
from torch import nn

from cars_hw.errors import SpecError
from cars_hw.nn.layers import Normalization
from cars_hw.nn.network import AuxiliaryHead, Network, NetworkCell
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import zoo

CARS_A = zoo()["CARS_A"].genotype
SPEC = NetworkSpec(channels=4, layers=3, resolution=(32, 32), classes=5)
SKIPS = Genotype.from_dict(dict.fromkeys(("normal", "reduce"), [["skip_connect", 0], ["skip_connect", 1]] * 4))


def pool_of(head: AuxiliaryHead) -> nn.AvgPool2d:
    (pool,) = (module for module in head if isinstance(module, nn.AvgPool2d))
    return pool


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        NetworkSpec(channels=2, layers=4, resolution=(9, 13), in_channels=1, classes=3),
        NetworkSpec(channels=4, layers=5, resolution=(65, 33), classes=7, stem="imagenet"),
    ],
    ids=["cifar", "odd", "imagenet"],
)
def test_logits_of_any_spec(spec: NetworkSpec) -> None:
    for genotype in (CARS_A, zoo()["SNAS_aggressive"].genotype):
        assert Network(spec, genotype)(torch.randn(2, *spec.input_shape)).shape == (2, spec.classes)


def test_every_cell_has_the_shape_of_its_layout() -> None:
    spec = NetworkSpec(channels=2, layers=4, resolution=(57, 71), stem="imagenet")
    network = Network(spec, CARS_A)
    shapes: list[tuple[int, ...]] = []
    for cell in network.cells:
        cell.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    network(torch.randn(2, *spec.input_shape))
    assert shapes == [layout.concatenated for layout in spec.cells()]


@pytest.mark.parametrize(("size", "stride"), [(8, 3), (7, 2)], ids=["CIFAR-10", "ImageNet"])
def test_the_auxiliary_heads_pooling_is_that_of_darts(size: int, stride: int) -> None:
    pool = pool_of(AuxiliaryHead(4, size, size, 10))
    assert pool.kernel_size == (5, 5)
    assert pool.stride == (stride, stride)
    assert pool(torch.zeros(1, 4, size, size)).shape == (1, 4, 2, 2)


@pytest.mark.parametrize("height", range(2, 20))
@pytest.mark.parametrize("width", [2, 7, 16])
def test_the_auxiliary_heads_pooling_sees_every_pixel(height: int, width: int) -> None:
    pool = pool_of(AuxiliaryHead(1, height, width, 10))
    x = torch.zeros(1, 1, height, width, requires_grad=True)
    out = pool(x)
    assert out.shape == (1, 1, 2, 2)
    (gradient,) = torch.autograd.grad(out.sum(), [x])
    assert (gradient > 0).all()


def test_the_auxiliary_head_speaks_while_training_only() -> None:
    network = Network(SPEC, CARS_A, auxiliary=True)
    x = torch.randn(4, 3, 32, 32)
    logits, auxiliary = network.forward_with_auxiliary(x)
    assert logits.shape == (4, 5)
    assert auxiliary is not None
    assert auxiliary.shape == (4, 5)
    assert network.eval().forward_with_auxiliary(x)[1] is None
    assert Network(SPEC, CARS_A).forward_with_auxiliary(x)[1] is None


def test_the_auxiliary_head_hangs_behind_the_second_reduction() -> None:
    spec = SPEC.with_changes(layers=6)
    network = Network(spec, CARS_A, auxiliary=True)
    _, auxiliary = network.forward_with_auxiliary(torch.randn(2, 3, 32, 32))
    assert auxiliary is not None
    auxiliary.sum().backward()
    reached = [any(p.grad is not None for p in cell.parameters()) for cell in network.cells]
    assert reached == [True] * 5 + [False]


def test_the_auxiliary_head_needs_pixels() -> None:
    spec = NetworkSpec(channels=2, layers=3, resolution=(32, 32), stem="imagenet")
    with pytest.raises(SpecError, match="at least 2x2 pixels"):
        Network(spec, CARS_A, auxiliary=True)
    small = SPEC.with_changes(resolution=(8, 8))
    assert Network(small, CARS_A, auxiliary=True).forward_with_auxiliary(torch.randn(2, 3, 8, 8))[1] is not None


def pooling_cell() -> tuple[NetworkCell, Genotype]:
    """A cell of pools only, and its first node's two skips: what it does to ones is known."""
    pools = [["max_pool_3x3", 0], ["avg_pool_3x3", 1]] * 3 + [["skip_connect", 0], ["skip_connect", 1]]
    genotype = Genotype.from_dict({"normal": pools, "reduce": pools})
    cell = NetworkCell(SPEC.cells()[0], genotype.normal, Normalization())
    cell.preprocess_0 = cell.preprocess_1 = nn.Identity()  # type: ignore[assignment]
    return cell, genotype


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    cell, _ = pooling_cell()
    torch.manual_seed(0)
    ones = torch.ones(4000, 4, 2, 2)
    out = cell(ones, ones, 0.5)
    pooled, skipped = out[:, :12], out[:, 12:]
    # Each of two paths is 0 or 2, over all of a sample's pixels and channels at once.
    assert pooled.unique().tolist() == [0, 2, 4]
    for node in pooled.split(4, dim=1):
        assert torch.equal(node, node[:, :1, :1, :1].expand_as(node))
    assert pooled.mean().item() == pytest.approx(2, rel=0.03)
    # A skip is never dropped, or a sample could lose all of a node.
    assert torch.equal(skipped, torch.full_like(skipped, 2))
    # The nodes' paths fall independently of each other.
    assert len(torch.unique(pooled[:, [0, 4, 8], 0, 0], dim=0)) == 27


def test_drop_path_is_off_in_evaluation_and_at_zero() -> None:
    network = Network(SPEC, CARS_A, norm=Normalization(running=False))
    x = torch.randn(4, 3, 32, 32)
    plain = network(x)
    network.drop_path = 0.5
    assert not torch.equal(network(x), plain)
    assert torch.equal(network.eval()(x), plain)
    network.train().drop_path = 0.0
    assert torch.equal(network(x), plain)


def test_drop_path_survives_dropping_everything_but_the_skips() -> None:
    network = Network(SPEC, CARS_A)
    network.drop_path = 0.99
    logits = network(torch.randn(8, 3, 32, 32))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_an_empty_node_is_zeros() -> None:
    genotype = zoo()["SNAS_aggressive"].genotype
    empty = [
        (reduction, number)
        for reduction in (False, True)
        for number, node in enumerate(genotype.cell(reduction))
        if not any(edge.is_real for edge in node)
    ]
    assert empty
    for reduction, number in empty:
        layout = next(layout for layout in SPEC.cells() if layout.reduction == reduction)
        cell = NetworkCell(layout, genotype.cell(reduction), Normalization())
        out = cell(*(torch.randn(2, *shape) for shape in layout.inputs))
        assert tuple(out.shape[1:]) == layout.concatenated
        nodes = out.split(layout.output.channels, dim=1)
        for other, node in enumerate(nodes):
            assert (node == 0).all() == ((reduction, other) in empty)
        assert number < len(nodes)


def test_absent_edges_have_no_modules() -> None:
    pairs = [["sep_conv_3x3", 0], ["none", 1]] * 4
    cell = NetworkCell(
        SPEC.cells()[0], Genotype.from_dict({"normal": pairs, "reduce": pairs}).normal, Normalization()
    )
    assert [len(operations) for operations in cell.nodes if isinstance(operations, nn.ModuleList)] == [1, 1, 1, 1]


def test_a_node_sums_its_edges() -> None:
    cell, _ = pooling_cell()
    before, last = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)
    out = cell(before, last)
    pooled = nn.MaxPool2d(3, 1, 1)(before) + nn.AvgPool2d(3, 1, 1, count_include_pad=False)(last)
    torch.testing.assert_close(out, torch.cat([pooled, pooled, pooled, before + last], dim=1))


def test_the_input_is_left_alone() -> None:
    for spec in (SPEC, SPEC.with_changes(in_channels=1)):
        x = torch.randn(2, *spec.input_shape)
        before = x.clone()
        Network(spec, SKIPS)(x).sum().backward()
        assert torch.equal(x, before)


def test_the_imagenet_stem_is_at_a_quarter_and_an_eighth() -> None:
    spec = NetworkSpec(channels=4, layers=3, resolution=(64, 96), stem="imagenet")
    network = Network(spec, SKIPS)
    quarter, eighth = network.stem(torch.randn(2, 3, 64, 96))
    assert (quarter.shape[1:], eighth.shape[1:]) == (Shape(4, 16, 24), Shape(4, 8, 12))
    # The quarter goes to the first cell as well: it must not be rectified in place.
    assert (quarter < 0).any()
