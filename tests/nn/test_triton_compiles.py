"""Triton's compiler reads every kernel as for a GPU. The interpreter accepts some that it refuses."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cars_hw.nn.fused_parts import warps_of

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton is for Linux"),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter does not compile"),
]

TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.uint8: "*u8"}


class Compiler:
    """Makes Triton's intermediate representation of what is launched, for an H100, and keeps the kernels' names."""

    def __init__(self) -> None:
        from triton._C.libtriton import ir
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import make_backend

        self.target = GPUTarget("cuda", 90, 32)
        self.backend = make_backend(self.target)
        self.context = ir.context()
        ir.load_dialects(self.context)
        self.backend.load_dialects(self.context)
        self.seen: set[str] = set()
        self.lengths: list[int] = []

    def read(self, kernel: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:  # noqa: ANN401
        """Compile ``kernel`` for arguments like these."""
        from triton.compiler.compiler import ASTSource

        values = dict(zip(kernel.arg_names, given, strict=False)) | named
        constants = {one.name: values[one.name] for one in kernel.params if one.is_constexpr}
        signature = {
            one.name: "constexpr" if one.is_constexpr else self.kind(values[one.name]) for one in kernel.params
        }
        # As at a launch, a number of 1 is a constant, unless the kernel asks for none.
        for one in kernel.params:
            value = values[one.name]
            if not one.is_constexpr and not one.do_not_specialize and type(value) is int and value == 1:
                signature[one.name], constants[one.name] = "constexpr", 1
        options = self.backend.parse_options({})
        code = self.backend.get_codegen_implementation(options)
        modules = self.backend.get_module_map()
        made = ASTSource(kernel, signature, constants).make_ir(self.target, options, code, modules, self.context)
        self.lengths.append(str(made).count("\n"))
        self.seen.add(kernel.fn.__name__)

    @staticmethod
    def kind(value: Tensor | float) -> str:
        if isinstance(value, Tensor):
            return TYPES[value.dtype]
        return "fp32" if isinstance(value, float) else "i32"


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """A compiler that takes the place of every launch."""
    from triton.runtime.jit import JITFunction

    made = Compiler()

    def run(self: Any, *given: Any, **named: Any) -> None:  # noqa: ANN401 -- arguments of any kernel
        made.read(self, given, {name: value for name, value in named.items() if name not in {"grid", "warmup"}})

    monkeypatch.setattr(JITFunction, "run", run)
    return made


def state(channels: int = 16) -> Tensor:
    return torch.zeros(2, channels, 8, 8, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)


def parts(rows: int, channels: int = 16) -> Tensor:
    return torch.zeros(3, rows, channels)


def depthwise() -> None:
    from cars_hw.nn import triton_depthwise as kernels

    x, weight, window = state(), torch.zeros(16, 1, 3, 3, dtype=torch.bfloat16), kernels.Window(1, 2, relu=True)
    kernels.depthwise(x, weight, window)
    kernels.depthwise_input_gradient(x, x, weight, window)
    kernels.depthwise_weight_gradient(x, x, weight, window)


def separable() -> None:
    from cars_hw.nn import triton_separable as kernels

    x, y, depth = state(), state(), torch.zeros(16, 1, 3, 3, dtype=torch.bfloat16)
    point = torch.zeros(16, 16, dtype=torch.bfloat16)
    unit = x, parts(3), depth, point, 1, 1
    kernels.separable(*unit)
    kernels.separable_point_gradient(x, parts(2), y, parts(3), *unit, torch.zeros(4, 256))
    kernels.separable_depth_gradient(x, x, parts(3), depth, 1, 1, torch.zeros(4, 144), y, True, True)


def pointwise() -> None:
    from cars_hw.nn import triton_pointwise as kernels

    x, y = torch.zeros(4, 2, 8, 8, 16, dtype=torch.bfloat16), state()
    weights = [torch.zeros(16, 64, dtype=torch.bfloat16)]
    kernels.pointwise(x, None, weights)
    kernels.pointwise_gradient(
        y, parts(2), y, parts(3), x, None, weights, [torch.zeros(4, 1024)], torch.zeros_like(x), False
    )


def states() -> None:
    from cars_hw.nn import triton_states as kernels

    a, both = state(), torch.zeros(2, 2, 8, 8, 16, dtype=torch.bfloat16)
    kernels.sum_states(a, parts(3), a, None, state())
    kernels.norm_sums([a, a], [a, a], [parts(3), parts(3)])
    kernels.mean_pixels_gradient(kernels.mean_pixels(both), both)


def poolings() -> None:
    from cars_hw.nn import triton_pooling as kernels

    x = state()
    y, places = kernels.max_pool(x, 2, True)
    kernels.avg_pool(x, 1)
    kernels.max_pool_gradient(y, places, 2, x, True)
    kernels.avg_pool_gradient(x, 1, state(), False)


KERNELS: list[tuple[Callable[[], None], set[str]]] = [
    (depthwise, {"_forward", "_for_input", "_for_weight", "_add_parts"}),
    (separable, {"_separable", "_point_gradient", "_depth_gradient"}),
    (pointwise, {"_pointwise", "_pointwise_gradient"}),
    (states, {"_sum", "_norm_sums", "_mean_pixels", "_mean_pixels_gradient"}),
    (poolings, {"_pool", "_pool_gradient"}),
]


@pytest.mark.parametrize(("launch", "wanted"), KERNELS, ids=[one.__name__ for one, _ in KERNELS])
def test_the_compiler_for_gpus_takes_every_kernel(
    launch: Callable[[], None], wanted: set[str], compiler: Compiler
) -> None:
    launch()
    assert compiler.seen == wanted


def test_the_code_of_a_kernel_does_not_grow_with_its_window(compiler: Compiler) -> None:
    from cars_hw.nn import triton_separable as kernels

    lengths = {}
    for size in (3, 5):
        depth, point = (torch.zeros(16, *rest, dtype=torch.bfloat16) for rest in ((1, size, size), (16,)))
        unit = state(), parts(3), depth, point, 1, 1
        compiler.lengths.clear()
        kernels.separable(*unit)
        kernels.separable_point_gradient(state(), parts(2), state(), parts(3), *unit, torch.zeros(4, 256))
        weights = torch.zeros(4, 16 * size * size)
        kernels.separable_depth_gradient(state(), state(), parts(3), depth, 1, 1, weights, state(), True, True)
        lengths[size] = list(compiler.lengths)
    # A row of the window is in the code, and not each of 25 pixels. What is around it is half of the code.
    assert len(lengths[3]) == 3
    assert all(large < 1.7 * small for small, large in zip(lengths[3], lengths[5], strict=True)), lengths


def test_products_of_many_channels_in_four_bytes_have_more_warps() -> None:
    # Without, ptxas takes six times as long for 128 channels.
    assert [warps_of(channels, 4) for channels in (16, 36, 64, 128)] == [4, 16, 16, 16]
    assert {warps_of(channels, 2) for channels in (16, 128)} == {4}
