"""A training pass and an evaluation by fused operations are those of the layers themselves."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from long_runs import amount
from torch import Tensor, nn

from cars_hw.nn import tape
from cars_hw.nn.device_kind import as_on
from cars_hw.nn.fused_parts import parts_of, weight_parts
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.families import FAMILIES
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.operations import OPERATIONS


def every_operation() -> list[Genotype]:
    """Return genotypes in which every operation reads an input, and a node; and one with rare kinds of nodes."""
    names = list(FAMILIES["darts"].real_operations)
    found = []
    for shift in range(0, len(names), 2):
        turned = [*names[shift:], *names, *names]
        cell = tuple((Edge(turned[2 * node], node), Edge(turned[2 * node + 1], node + 1)) for node in range(4))
        found.append(Genotype(normal=cell, reduce=cell))
    # Both edges pass their input on; one edge only; a state with several readers; a node without edges; an input
    # that only one edge reads.
    rare = (
        (Edge("skip_connect", 0), Edge("skip_connect", 1)),
        (Edge("max_pool_3x3", 2), Edge("none", 0)),
        (Edge("none", 0), Edge("none", 1)),
        (Edge("skip_connect", 2), Edge("skip_connect", 3)),
    )
    lone = tuple((Edge("skip_connect", 1), Edge("none", 0)) for _ in range(4))
    return [*found, Genotype(normal=rare, reduce=rare), Genotype(normal=lone, reduce=rare)]


SPECS = {
    "cifar": NetworkSpec(4, 3, (9, 11)),
    "imagenet": NetworkSpec(4, 4, (34, 36), stem="imagenet"),
}


def results(slices: Slices, architecture: Architecture, images: Tensor) -> list[Tensor | None]:
    """Return the logits and the gradients of the weights."""
    path = slices.path(architecture, own_leaves=True)
    logits = path.logits(images)
    found = torch.autograd.grad(F.cross_entropy(logits, torch.arange(len(images))), path.leaves, allow_unused=True)
    return [logits.detach(), *found]


def same(mine: list[Tensor | None], theirs: list[Tensor | None]) -> None:
    assert [one is None for one in mine] == [one is None for one in theirs]
    for one, other in zip(mine, theirs, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", SPECS)
def test_a_pass_has_the_same_outputs_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPECS[name]
    torch.manual_seed(0)
    slices = Slices(SuperNet(spec).double())
    images = torch.randn(3, *spec.input_shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    used: list[bool] = []
    back = tape.Tape.back
    monkeypatch.setattr(tape.Tape, "back", lambda *given: used.append(True) or back(*given))
    people = [Architecture(genotype, spec) for genotype in every_operation()[:: amount(-2, 1)]]
    for architecture in people:
        wanted = results(slices, architecture, images)
        with as_on("cuda"):
            same(results(slices, architecture, images), wanted)
    assert len(used) == len(people)


@pytest.mark.parametrize("share", ["sources", "kernels"])
def test_a_smaller_size_and_shared_weights_have_the_same_gradients(share: str) -> None:
    torch.manual_seed(0)
    large = NetworkSpec(8, 6, (12, 12))
    slices = Slices(SuperNet(large, share).double())
    small = large.with_changes(channels=4, layers=4)
    images = torch.randn(3, *large.input_shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    for genotype in every_operation()[: amount(1, 4)]:
        wanted = results(slices, Architecture(genotype, small), images)
        with as_on("cuda"):
            same(results(slices, Architecture(genotype, small), images), wanted)


@pytest.mark.parametrize("name", SPECS)
def test_an_evaluation_has_the_same_outputs(name: str) -> None:
    spec = SPECS[name]
    torch.manual_seed(0)
    supernet = SuperNet(spec).double()
    images = torch.randn(3, *spec.input_shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    people = every_operation()[:: amount(2, 1)]
    with torch.inference_mode():
        wanted = [supernet(images, genotype) for genotype in people]
        with as_on("cuda"):
            common = supernet.common(images, people, 1 << 20)
            found = [supernet.along(common, genotype) for genotype in people]
    assert isinstance(common.layers, tape.Tape)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def test_states_that_are_too_wide_and_unknown_operations_are_left_to_the_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    genotype = every_operation()[0]
    assert tape.can_tape(NetworkSpec(32, 5, (8, 8)), [genotype])
    assert not tape.can_tape(NetworkSpec(36, 5, (8, 8)), [genotype])
    tape._computes.cache_clear()

    class Other(type(OPERATIONS["max_pool_3x3"])):
        def module(self, *given: object) -> nn.Module:
            del given
            return nn.MaxPool2d(5, 1, padding=2)

    monkeypatch.setitem(OPERATIONS._known, "max_pool_3x3", Other())
    assert not tape.can_tape(NetworkSpec(4, 5, (8, 8)), [genotype])
    without = tuple((Edge("skip_connect", 0), Edge("none", 1)) for _ in range(4))
    assert tape.can_tape(NetworkSpec(4, 5, (8, 8)), [Genotype(normal=without, reduce=without)])
    tape._computes.cache_clear()


def test_all_pixels_are_in_parts_that_are_no_larger_than_the_states() -> None:
    for total, channels in ((1, 4), (130, 16), (8192, 64), (131072, 16), (131072, 128)):
        parts = parts_of(total, channels)
        assert (parts.count - 1) * parts.size < total <= parts.count * parts.size
        for weights in (9 * channels, channels**2):
            count = weight_parts(total, channels, total * channels, weights)
            assert count == 1 or 2 * count * weights * 4 <= 2 * total * channels
    counts = [weight_parts(total, 16, 16 * total, 256) for total in (1, 1000, 10_000, 100_000)]
    assert all(one <= other for one, other in pairwise(counts))
