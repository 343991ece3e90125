"""Where Triton cannot launch a kernel, or is switched off, PyTorch's own operations run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from cars_hw.nn import fused


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing is known of Triton before and after a test."""
    for known in (fused.has_triton, fused._launches):
        known.cache_clear()
    yield
    for known in (fused.has_triton, fused._launches):
        known.cache_clear()


ON_GPU: Any = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16)


def trial(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[int]:
    """Have Triton installed, and launches raise ``error``; return a list of the launches."""
    launches = []

    def launch() -> None:
        launches.append(1)
        if error is not None:
            raise error

    module: Any = ModuleType("cars_hw.nn.triton_trial")
    module.launch = launch
    monkeypatch.setitem(sys.modules, "cars_hw.nn.triton_trial", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    return launches


def test_without_a_compiler_one_warning_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(fused.SWITCH, raising=False)
    launches = trial(monkeypatch, RuntimeError("Failed to find\n C compiler"))
    with caplog.at_level(logging.WARNING):
        assert not fused.by_triton(ON_GPU) and not fused.by_triton(ON_GPU)
    assert len(launches) == 1
    assert [record.getMessage().count("Failed to find C compiler") for record in caplog.records] == [1]


def test_triton_runs_where_a_kernel_can_be_launched_unless_it_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(fused.SWITCH, raising=False)
    launches = trial(monkeypatch, None)
    assert fused.by_triton(ON_GPU)
    fused.has_triton.cache_clear()
    monkeypatch.setenv(fused.SWITCH, "0")
    assert not fused.by_triton(ON_GPU)
    assert len(launches) == 1
