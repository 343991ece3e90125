"""In which numbers a network is trained: float32, or mixed with bfloat16 or half precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

import torch

from cars_hw.config.training import TrainingPrecision
from cars_hw.errors import InputError

_LOW: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: TrainingPrecision, device: torch.device | str) -> TrainingPrecision:
    """Return what ``auto`` means on ``device``, and every other ``precision`` as it is.

    A GPU trains in bfloat16 if it computes in it, and otherwise in half precision with scaled gradients, a CPU in
    float32. Weights and optimiser are in float32 in any case.

    Raises:
        InputError: half precision on a CPU, where it only costs time, or an unknown precision.
    """
    on_gpu = torch.device(device).type == "cuda"
    if precision == "auto":
        if not on_gpu:
            return "float32"
        # Emulated, bfloat16 is slower than float32.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if precision not in ("float32", *_LOW):
        raise InputError(f"unknown precision '{precision}'; known: auto, float32, bf16, fp16")
    if precision == "fp16" and not on_gpu:
        raise InputError("fp16 is for GPUs; a CPU trains in float32 or bf16", remedy="precision")
    return precision


def autocast(precision: TrainingPrecision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which the forward pass of a step runs; ``precision`` has been resolved."""
    low = _LOW.get(precision)
    return torch.autocast(device.type, dtype=low or torch.bfloat16, enabled=low is not None)
