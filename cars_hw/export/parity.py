"""Parity: whether an exported model computes what the network computes.

Logits alone would not tell. In a network of twenty cells whose normalisations have never seen data, as it is
exported to be measured, the logits are the classifier's bias but for a ten-millionth, whatever the cells do. So
every cell's output is compared as well, on a copy of the model that hands them out.

The reference is torch in float64: two float32 results that differ do not say which of them is off. Float32 itself
is off by 1e-6 to 1e-5 behind twenty cells, by more where a network is badly conditioned; torch's own float32 tells
how far, and an exported model may be off by a few times as much.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from cars_hw.errors import ExportError, InputError
from cars_hw.nn.network import Network

if TYPE_CHECKING:
    from cars_hw.export.format import ExportFormat, Values

PARITY_BOUND: Final = 1e-5
"""The relative error that a float32 model may always have: max |exact - exported| / max |exact|.

A wrong padding, order or weight is off by a thousand times more.
"""

FLOAT32_FACTOR: Final = 5
"""How many times torch's own float32 error a model may have. ONNX Runtime was seen at 0.6 to 1.3 times."""

IMAGES: Final = 2


def check_parity(network: Network, path: Path, export_format: ExportFormat, images: Tensor | None = None) -> float:
    """Return the relative error of the float32 model at ``path``: the largest over logits and cells' outputs.

    Both get ``images`` (N, C_in, H, W) float32, one by one, or two images of noise that are always the same. The
    runtime runs on one thread of the CPU. ``network`` is evaluated in eval mode, on a copy.

    Raises:
        ExportError: the error is over both :data:`PARITY_BOUND` and :data:`FLOAT32_FACTOR` times that of torch's
            own float32, or the runtime cannot run the model.
        InputError: the images are not of the network's shape.
    """
    shape = network.spec.input_shape
    if images is None:
        images = torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    if images.dim() != 4 or len(images) == 0 or tuple(images.shape[1:]) != tuple(shape):
        raise InputError(f"images of shape (N, {', '.join(map(str, shape))}) are needed, not {tuple(images.shape)}")
    images = images.detach().cpu().float()
    exported = export_format.values(path, images.numpy(), _is_cell)
    exact = _run_torch(network, images.double())
    errors = _errors(exact, exported)
    allowed = max(PARITY_BOUND, FLOAT32_FACTOR * max(_errors(exact, _run_torch(network, images)).values()))
    where = max(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf))
    # Where float32 overflows, everything would be allowed, and NaN is over no bound.
    if not (np.isfinite(errors[where]) and errors[where] <= allowed):
        raise ExportError(
            f"the exported model does not compute what the network does: at {where} it is off by "
            f"{errors[where]:.1e}, allowed is {allowed:.0e}; please report this with the genotype"
        )
    return errors[where]


def _errors(exact: Values, exported: Values) -> dict[str, float]:
    """Return the relative error of every value that was exported."""
    errors = {}
    for name, value in exported.items():
        if name not in exact:
            raise ExportError(f"the exported model has an output '{name}' that the network does not have")
        if value.shape != exact[name].shape:
            raise ExportError(f"the exported {name} have shape {value.shape}, the network's {exact[name].shape}")
        scale = max(float(np.abs(exact[name]).max()), float(np.finfo(np.float32).tiny))
        errors[name] = float(np.abs(exact[name] - value).max()) / scale
    return errors


def _run_torch(network: Network, images: Tensor) -> Values:
    """Return logits and every cell's output by name, in the precision of ``images``."""
    copied = copy.deepcopy(network).cpu().to(images.dtype).eval()
    values: Values = {}

    def keep(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        values[name] = output.numpy()

    for index, cell in enumerate(copied.cells):
        cell.register_forward_hook(partial(keep, f"cells.{index}"))
    with torch.no_grad():
        values["logits"] = copied(images).numpy()
    return values


def _is_cell(name: str) -> bool:
    """Return whether the value ``name`` is a cell's output, as :mod:`~cars_hw.export.lower` calls them."""
    return name.startswith("cells.") and "/" not in name
