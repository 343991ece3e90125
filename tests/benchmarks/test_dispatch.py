"""What a GPU is asked to do for a training pass and for an evaluation, as PyTorch dispatches it."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from scripts import script

from cars_hw.space.families import FAMILIES
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec

BEFORE = {
    "training pass": {
        "launches": 1201.75,
        "bytes": 336_206_656,
        "copies": 1,
        "casts": 255.5,
        "out_of_layout": 82.25,
        "waits": 0,
    },
    "evaluation": {
        "launches": 553.25,
        "bytes": 115_290_040,
        "copies": 1,
        "casts": 126.25,
        "out_of_layout": 4,
        "waits": 0,
    },
}
"""The figures of 2026-11-28, before a GPU had operations of its own."""

NOW: dict[str, dict[str, float]] = {
    "training pass": {
        "launches": 331.75,
        "bytes": 198_801_936,
        "copies": 1,
        "casts": 13.5,
        "out_of_layout": 0,
        "waits": 0,
    },
    "evaluation": {
        "launches": 132.75,
        "bytes": 48_352_011,
        "copies": 1,
        "casts": 5,
        "out_of_layout": 0,
        "waits": 0,
    },
    "evaluation of relatives": {
        "launches": 115.25,
        "bytes": 38_779_371,
        "copies": 1,
        "casts": 4.5,
        "out_of_layout": 0,
        "waits": 0,
    },
}


@pytest.fixture
def dispatch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("benchmarks/dispatch", monkeypatch)


def test_a_recorded_pass_and_an_evaluation_launch_what_they_did(dispatch: ModuleType) -> None:
    # The paper's network, and batches of 8 instead of 128: means over four random architectures.
    setting = dispatch.Setting.of(batch=8, architectures=4)
    assert setting.training_pass() == NOW["training pass"]
    assert setting.evaluation() == NOW["evaluation"]
    # Two of them have the same normal cell, which runs once for both before the first reduction.
    assert setting.relatives() == NOW["evaluation of relatives"]
    for name, before in BEFORE.items():
        assert NOW[name]["launches"] <= 0.5 * before["launches"]
        assert NOW[name]["bytes"] <= 0.6 * before["bytes"]
        assert NOW[name]["out_of_layout"] == NOW[name]["waits"] == 0


@pytest.mark.parametrize(
    "spec",
    [NetworkSpec(4, 5, (8, 8)), NetworkSpec(4, 3, (9, 11)), NetworkSpec(8, 4, (36, 44), stem="imagenet")],
    ids=["cifar", "odd", "imagenet"],
)
def test_nothing_is_computed_out_of_its_layout_and_nothing_waits(dispatch: ModuleType, spec: NetworkSpec) -> None:
    names = list(FAMILIES["darts"].real_operations)
    genotypes = []
    # Every operation reads an input, with a stride of 2 in the reduction cells, and a node.
    for shift in range(len(names)):
        turned = [*names[shift:], *names[:shift], *names]
        cell = tuple((Edge(turned[2 * node], node), Edge(turned[2 * node + 1], node + 1)) for node in range(4))
        genotypes.append(Genotype(normal=cell, reduce=cell))
    setting = dispatch.Setting.of(4, 0, spec, genotypes)
    for found in (setting.training_pass(), setting.evaluation()):
        assert (found["out_of_layout"], found["waits"]) == (0, 0)


def test_launches_and_bytes_are_those_of_the_kernels(dispatch: ModuleType) -> None:
    x = torch.zeros(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    found = dispatch.counted(lambda: torch.relu_(x.permute(0, 2, 3, 1).view(2, 36)[:, 1:]))
    # Views launch nothing. In place: 70 numbers of four bytes are read and written.
    assert found.figures() == {"launches": 1, "bytes": 560, "copies": 0, "casts": 0, "out_of_layout": 0, "waits": 0}


def test_operations_of_the_project_read_what_they_add_to(dispatch: ModuleType) -> None:
    gradient = torch.zeros(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    into = torch.zeros_like(gradient)
    for add in (False, True):
        found = dispatch.counted(lambda add=add: torch.ops.cars_hw.avg_pool_gradient(gradient, 1, into, add))
        # One kernel, whatever a CPU does instead. The gradient is read, and ``into`` is written.
        assert (found.launches, found.bytes) == (1, 4 * gradient.numel() * (3 if add else 2))
    stats = torch.tensor([0.0, 1.0, 72.0])[None, :, None].expand(1, 3, 4).contiguous()
    found = dispatch.counted(lambda: torch.ops.cars_hw.norm_sums([gradient], [into, into], [stats, stats]))
    # A gradient that two edges have is read once. Statistics are three numbers a channel, sums are two.
    assert (found.launches, found.bytes) == (1, 4 * (3 * gradient.numel() + 2 * 4 * 3 + 2 * 4 * 2))


def test_copies_and_casts_are_told_apart(dispatch: ModuleType) -> None:
    x = torch.zeros(6)
    low = x.bfloat16()
    found = dispatch.counted(lambda: [x.bfloat16(), x.copy_(low), low.float(), x.clone(), x.to(torch.float32)])
    assert (found.casts, found.copies, found.launches, found.waits) == (3, 1, 4, 0)
    # A cast to bfloat16 reads four bytes and writes two; a copy to an existing tensor does not read it.
    assert found.bytes == 6 * (6 + 6 + 6 + 8)


def test_many_tensors_of_one_call_share_launches(dispatch: ModuleType) -> None:
    many, others = [torch.zeros(3) for _ in range(70)], [torch.ones(3) for _ in range(70)]
    assert dispatch.counted(lambda: torch._foreach_add_(many, others)).launches == 2
    assert dispatch.counted(lambda: torch._foreach_zero_(many)).launches == 1


def test_an_input_whose_pixels_are_not_last_is_found(dispatch: ModuleType) -> None:
    last = torch.zeros(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    assert dispatch.counted(lambda: torch.relu(last)).out_of_layout == 0
    assert dispatch.counted(lambda: torch.relu(last[:, :2])).out_of_layout == 1
    assert dispatch.counted(lambda: torch.relu(last.contiguous())).out_of_layout == 1


def test_what_python_waits_for_is_counted(dispatch: ModuleType) -> None:
    assert dispatch.counted(lambda: torch.ones(2).sum().item()).waits == 1


def test_passes_of_blocks_are_half_as_many_calls(monkeypatch: pytest.MonkeyPatch, dispatch: ModuleType) -> None:
    del dispatch  # blocks.py imports it.
    found = script("benchmarks/gpu/blocks", monkeypatch).count(1, NetworkSpec(4, 4, (8, 8)), batch=4)
    # A node with edges is a sum, and the rest is one call each.
    assert found.beside <= 4 * 4 + 16
    assert found.calls <= 0.55 * found.launches
    assert found.blocks < found.inside
