from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cars_hw.config.training import WeightSharing
from cars_hw.errors import SpecError
from cars_hw.nn.layers import Normalization
from cars_hw.nn.network import Network
from cars_hw.nn.paths import SHARED
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.genotype import NODES, Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo

SPECS = {
    "cifar": NetworkSpec(channels=4, layers=3, resolution=(16, 16), classes=5),
    "odd": NetworkSpec(channels=2, layers=4, resolution=(13, 9), in_channels=1, classes=3),
    "imagenet": NetworkSpec(channels=2, layers=4, resolution=(45, 40), classes=4, stem="imagenet"),
}


def drawn(count: int, seed: int) -> list[Genotype]:
    """Random genotypes, half of them without any none."""
    rng = np.random.default_rng(seed)
    spaces = (SearchSpace(), SearchSpace(SearchSpace().operations[1:]))
    genotypes = [spaces[number % 2].sample(rng) for number in range(count)]
    assert any(not edge.is_real for genotype in genotypes for node in genotype.normal for edge in node)
    return genotypes


# Nodes that are another node or an input itself, and nodes that are nothing: where tensors are shared. Nothing
# looks at the second input, so that a whole cell may be without use.
ALIASED = [["skip_connect", 0], ["none", 1], ["skip_connect", 2], ["none", 1]]
ALIASED += [["sep_conv_3x3", 3], ["max_pool_3x3", 2], ["skip_connect", 3], ["dil_conv_5x5", 2]]
ALIASES = Genotype.from_dict({"normal": ALIASED, "reduce": ALIASED})
GENOTYPES = [*drawn(6, seed=4), ALIASES, zoo()["SNAS_aggressive"].genotype]


def batch(spec: NetworkSpec, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, *spec.input_shape, generator=generator).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(spec.classes, (6,), generator=generator)


def path_names(spec: NetworkSpec, genotype: Genotype) -> dict[str, str]:
    """Prefixes of the SuperNet's parameters on the path, each with the Network's prefix for the same."""
    names = {"stem.": "stem.", "classifier.": "classifier."}
    for index in range(spec.layers):
        for number in (0, 1):
            names[f"cells.{index}.preprocess_{number}."] = f"cells.{index}.preprocess_{number}."
        for number, node in enumerate(genotype.cell(index in spec.reductions)):
            for position, edge in enumerate(edge for edge in node if edge.is_real):
                ours = f"cells.{index}.nodes.{number}.{edge.source}.{edge.operation}."
                names[ours] = f"cells.{index}.nodes.{number}.{position}."
    return names


def used_names(spec: NetworkSpec, genotype: Genotype) -> dict[str, str]:
    """As above, without what the logits do not depend on: an input, or a whole cell, that nothing looks at."""
    # A state's number is that of the cell that makes it; -1 and -2 come from the stem.
    used, dead = {spec.layers - 1}, []
    for index in reversed(range(spec.layers)):
        cell = genotype.cell(index in spec.reductions)
        sources = {edge.source for node in cell for edge in node if edge.is_real}
        if index not in used:
            dead.append(f"cells.{index}.")
            continue
        for source, state in ((0, index - 2), (1, index - 1)):
            if source in sources:
                used.add(state)
            else:
                dead.append(f"cells.{index}.preprocess_{source}.")
    if spec.stem == "imagenet" and -1 not in used:
        dead.append("stem.eighth.")
    names = path_names(spec, genotype)
    if spec.stem == "imagenet":
        names |= {"stem.quarter.": "stem.quarter.", "stem.eighth.": "stem.eighth."}
        del names["stem."]
    return {ours: theirs for ours, theirs in names.items() if not ours.startswith(tuple(dead))}


def on_path(module: nn.Module, prefixes: dict[str, str]) -> dict[str, nn.Parameter]:
    """Parameters below a prefix, by the name that the prefix maps to."""
    return {
        target + name.removeprefix(prefix): parameter
        for name, parameter in module.named_parameters()
        for prefix, target in prefixes.items()
        if name.startswith(prefix)
    }


def relative(one: Tensor, other: Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("number", range(len(GENOTYPES)))
def test_a_path_is_the_network_of_its_genotype(name: str, number: int) -> None:
    spec, genotype = SPECS[name], GENOTYPES[number]
    torch.manual_seed(number)
    supernet, network = SuperNet(spec), Network(spec, genotype, norm=SHARED)
    supernet.hand_over(network)
    x, labels = batch(spec)
    with torch.no_grad():
        assert relative(supernet(x, genotype), network(x)) < 1e-5

    # Gradients are compared in double precision: batch statistics over few pixels divide by small deviations and
    # make of single precision's 1e-7 what would hide an error. The bound is 1e-5 all the same.
    supernet.double(), network.double()
    x = x.double()
    losses = [F.cross_entropy(logits, labels) for logits in (supernet(x, genotype), network(x))]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    for loss in losses:
        loss.backward()
    shared = on_path(supernet, path_names(spec, genotype))
    used = on_path(network, {theirs: theirs for theirs in used_names(spec, genotype).values()})
    own = dict(network.named_parameters())
    assert shared.keys() == own.keys() >= used.keys()
    for key, parameter in own.items():
        if key not in used:
            assert parameter.grad is None
            assert shared[key].grad is None
            continue
        torch.testing.assert_close(shared[key].grad, parameter.grad, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("name", SPECS)
def test_parameters_off_the_path_are_left_alone(name: str) -> None:
    spec = SPECS[name]
    torch.manual_seed(1)
    supernet = SuperNet(spec)
    optimiser = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    touched: set[str] = set()
    for step, genotype in enumerate(GENOTYPES):
        path = set(on_path(supernet, {ours: ours for ours in used_names(spec, genotype)}))
        before = {key: parameter.detach().clone() for key, parameter in supernet.named_parameters()}
        optimiser.zero_grad()
        x, labels = batch(spec, seed=step)
        F.cross_entropy(supernet(x, genotype), labels).backward()
        optimiser.step()
        with_momentum_but_off = 0
        for key, parameter in supernet.named_parameters():
            assert (parameter.grad is not None) == (key in path)
            assert torch.equal(parameter, before[key]) == (key not in path)
            with_momentum_but_off += key in touched - path
        # What was on an earlier path has momentum now: the case in which an optimiser could move it.
        assert step == 0 or with_momentum_but_off > 0
        touched |= path
    assert touched < {key for key, _ in supernet.named_parameters()}


def test_order_in_a_node_and_absent_edges_change_nothing() -> None:
    spec = SPECS["cifar"]
    supernet = SuperNet(spec).double()
    x = batch(spec)[0].double()
    for genotype in GENOTYPES[:3]:
        turned = Genotype(*(tuple(node[::-1] for node in cell) for cell in (genotype.normal, genotype.reduce)))
        torch.testing.assert_close(supernet(x, turned), supernet(x, genotype))
    here, there = (
        ((Edge("sep_conv_3x3", 0), Edge("none", 1)),) * 3 + ((Edge("sep_conv_3x3", 0), Edge("none", source)),)
        for source in (1, 4)
    )
    assert torch.equal(supernet(x, Genotype(here, here)), supernet(x, Genotype(there, there)))


def test_every_edge_matters() -> None:
    spec = SPECS["cifar"]
    torch.manual_seed(2)
    supernet = SuperNet(spec)
    x, _ = batch(spec)
    genotype = SearchSpace().sample(np.random.default_rng(0))
    with torch.no_grad():
        logits = supernet(x, genotype)
        for neighbour in SearchSpace().neighbours(genotype):
            same = neighbour.key() == genotype.key()
            assert torch.equal(supernet(x, neighbour), logits) == same


def test_evaluation_uses_the_statistics_of_the_batch() -> None:
    spec = SPECS["cifar"]
    supernet = SuperNet(spec)
    x, _ = batch(spec)
    assert not list(supernet.buffers())
    training = supernet(x, ALIASES)
    with torch.no_grad():
        torch.testing.assert_close(supernet.eval()(x, ALIASES), training)
        # So a sample's logits depend on its company.
        assert relative(supernet(x[:3], ALIASES), training[:3]) > 1e-3


def test_running_changes_neither_weights_nor_images() -> None:
    spec = SPECS["imagenet"]
    supernet = SuperNet(spec)
    x, labels = batch(spec)
    before = x.clone()
    weights = {key: value.clone() for key, value in supernet.state_dict().items()}
    F.cross_entropy(supernet(x, ALIASES), labels).backward()
    assert torch.equal(x, before)
    assert all(torch.equal(value, weights[key]) for key, value in supernet.state_dict().items())


def test_every_operation_has_weights_of_its_own_on_every_edge() -> None:
    spec = SPECS["cifar"]
    supernet = SuperNet(spec)
    edges = NODES * (NODES + 3) // 2
    depthwise = [p for key, p in supernet.named_parameters() if ".sep_conv_5x5.1." in key]
    assert len({p.data_ptr() for p in depthwise}) == spec.layers * edges
    assert len({id(p) for p in supernet.parameters()}) == len(list(supernet.parameters()))


@pytest.mark.parametrize("share", ["nodes", "kernels"])
def test_the_sources_of_a_node_share_the_weights_of_an_operation(share: WeightSharing) -> None:
    spec = SPECS["cifar"]
    supernet = SuperNet(spec, share)
    for index, cell in enumerate(supernet.shared_cells()):
        for node in range(NODES):
            for name in ("sep_conv_5x5", "dil_conv_3x3", "skip_connect"):
                weights = [
                    [one.data_ptr() for one in cell.operation(node, source, name).parameters()]
                    for source in range(node + 2)
                ]
                same = weights[:2] if name == "skip_connect" else weights
                assert all(one == same[0] for one in same)
                assert bool(same[0]) == (name != "skip_connect" or index in spec.reductions)
    sizes = {key: sum(one.numel() for one in SuperNet(spec, key).parameters()) for key in get_args(WeightSharing)}
    assert sizes["kernels"] < 0.8 * sizes["nodes"] < 0.4 * sizes["edges"]


def test_small_kernels_are_the_centre_of_large_ones() -> None:
    supernet = SuperNet(SPECS["cifar"], "kernels")
    cell = supernet.shared_cells()[1]
    for kind, places in (("sep_conv", ("1", "2", "5", "6")), ("dil_conv", ("1", "2"))):
        large, small = (dict(cell.operation(2, 0, f"{kind}_{size}").named_parameters()) for size in ("5x5", "3x3"))
        assert [*large] == [*small] == [f"{place}.weight" for place in places]
        for name, whole in large.items():
            part = whole[:, :, 1:4, 1:4] if whole.shape[2] == 5 else whole
            assert torch.equal(small[name], part)
            assert small[name].data_ptr() == part.data_ptr()
    # Weights are those of the moment, in whatever type.
    with torch.no_grad():
        for parameter in supernet.double().parameters():
            parameter.mul_(3)
    after = dict(cell.operation(2, 0, "sep_conv_3x3").named_parameters())
    assert torch.equal(
        after["1.weight"], dict(cell.operation(2, 0, "sep_conv_5x5").named_parameters())["1.weight"][:, :, 1:4, 1:4]
    )


def test_weights_are_handed_over_as_copies() -> None:
    spec, genotype = SPECS["cifar"], GENOTYPES[0]
    supernet, network = SuperNet(spec), Network(spec, genotype)
    scale = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for layer in scale:
            layer.weight.fill_(3)
    supernet.hand_over(network)
    assert all((layer.weight == 3).all() for layer in scale)
    shared = on_path(supernet, path_names(spec, genotype))
    own = dict(network.named_parameters())
    assert all(torch.equal(own[key], parameter) for key, parameter in shared.items())
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(1)
    assert not any(torch.equal(own[key], parameter) for key, parameter in shared.items())


def test_weights_are_handed_over_only_to_a_network_that_lies_within() -> None:
    supernet = SuperNet(SPECS["cifar"])
    other = Network(SPECS["cifar"].with_changes(classes=6), ALIASES, norm=Normalization())
    with pytest.raises(SpecError, match="6 classes, cifar stem does not lie within 4 channels"):
        supernet.hand_over(other)


@pytest.mark.parametrize("name", SPECS)
def test_what_architectures_have_in_common_is_computed_once_and_changes_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPECS[name]
    torch.manual_seed(0)
    supernet = SuperNet(spec).train()
    images = torch.randn(6, spec.in_channels, *spec.resolution).contiguous(memory_format=torch.channels_last)
    people = [ALIASES, *drawn(24, seed=5)]
    with torch.inference_mode():
        expected = [supernet(images, genotype) for genotype in people]
    first = supernet.cells[0]
    calls = []
    operation = first.operation
    monkeypatch.setattr(first, "operation", lambda *choice: calls.append(choice) or operation(*choice))
    used = [
        (number, edge.source, edge.operation)
        for genotype in people
        for number, node in enumerate(genotype.normal)
        for edge in node
        if edge.is_real
    ]
    with torch.inference_mode():
        common = supernet.common(images, people, room=1 << 30)
        found = [supernet.along(common, genotype) for genotype in people]
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
    shared = {choice for choice in used if choice[1] < 2 and choice[2] != "skip_connect" and used.count(choice) > 1}
    assert common.worth == shared
    assert len(shared) > 10
    assert len(calls) == len([choice for choice in used if choice not in shared]) + len(shared)


def test_room_is_for_the_operations_that_most_architectures_use() -> None:
    supernet = SuperNet(SPECS["cifar"])
    images = torch.randn(2, 3, 16, 16)
    cells = [
        tuple((Edge(name, 0), Edge("none", 1)) for name in names)
        for names in (
            ("sep_conv_3x3", "dil_conv_3x3", "skip_connect", "avg_pool_3x3"),
            ("sep_conv_3x3", "dil_conv_3x3", "skip_connect", "max_pool_3x3"),
            ("sep_conv_3x3", "dil_conv_5x5", "skip_connect", "sep_conv_5x5"),
        )
    ]
    people = [Genotype(normal=cell, reduce=cells[0]) for cell in cells]
    state = 4 * 2 * 4 * 16 * 16  # float32, 2 images, 4 channels, 16x16
    for room, expected in (
        (0, set()),
        (state, {(0, 0, "sep_conv_3x3")}),
        (2 * state, {(0, 0, "sep_conv_3x3"), (1, 0, "dil_conv_3x3")}),
        (100 * state, {(0, 0, "sep_conv_3x3"), (1, 0, "dil_conv_3x3")}),
    ):
        assert supernet.common(images, people, room).worth == expected
