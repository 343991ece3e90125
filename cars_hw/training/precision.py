"""Where networks are trained, and in which precision: float32, or mixed precision with bfloat16 or fp16."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final

import torch

from cars_hw.config.training import SharedPrecision, TrainingPrecision
from cars_hw.errors import InputError

_LOW: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str, *, elsewhere: bool = False) -> str:
    """Return the device that ``auto`` stands for, the GPU if there is one; any other is returned as it is.

    A GPU that is requested ``elsewhere``, on another machine, is not looked for on this one.

    Raises:
        InputError: a GPU is requested and there is none.
    """
    if elsewhere and device == "cuda":
        return device
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no GPU that torch can use", remedy="train-on-cpu")
    return device


def resolve_precision(precision: TrainingPrecision, device: torch.device | str) -> TrainingPrecision:
    """Return the precision that ``auto`` stands for on ``device``; any other ``precision`` is returned as it is.

    A GPU trains in bfloat16 if it supports it, and otherwise in fp16 with scaled gradients. A CPU trains in
    float32. Weights and optimiser are always in float32.

    Raises:
        InputError: fp16 on a CPU, where it is slower than float32, or an unknown precision.
    """
    on_gpu = torch.device(device).type == "cuda"
    if precision == "auto":
        if not on_gpu:
            return "float32"
        if not torch.cuda.is_available():
            raise InputError("this machine has no GPU that tells the precision of others", remedy="precision")
        return "bf16" if has_bf16(torch.device(device)) else "fp16"
    if precision not in ("float32", *_LOW):
        raise InputError(f"unknown precision '{precision}'; known: auto, float32, bf16, fp16")
    if precision == "fp16" and not on_gpu:
        raise InputError("fp16 is for GPUs; a CPU trains in float32 or bf16", remedy="precision")
    return precision


def has_bf16(device: torch.device) -> bool:
    """Return whether ``device`` is a GPU that computes in bfloat16; emulated bfloat16 is slower than float32."""
    if device.type != "cuda":
        return False
    with nullcontext() if device.index is None else torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def low_type(autocast: torch.autocast) -> torch.dtype | None:
    """Return the type in which ``autocast`` computes convolutions; None if it is not enabled."""
    return autocast.fast_dtype if autocast._enabled else None


def shared_autocast(precision: SharedPrecision, device: torch.device) -> Callable[[], torch.autocast]:
    """Return what makes the context of the passes of shared weights."""
    low = has_bf16(device) if precision == "auto" else precision == "bf16"
    return partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=low)


def autocast(precision: TrainingPrecision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context for the forward pass of a step; ``precision`` has been resolved."""
    low = _LOW.get(precision)
    return torch.autocast(device.type, dtype=low or torch.bfloat16, enabled=low is not None)
