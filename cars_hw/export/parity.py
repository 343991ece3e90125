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
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cars_hw.devices.host.litert_runtime import interpreter
from cars_hw.errors import ExportError, InputError
from cars_hw.export.tflite_writer import with_outputs
from cars_hw.nn.network import Network

PARITY_BOUND: Final = 1e-5
"""The relative error that a float32 model may always have: max |exact - exported| / max |exact|.

A wrong padding, order or weight is off by a thousand times more.
"""

FLOAT32_FACTOR: Final = 5
"""How many times torch's own float32 error a model may have. ONNX Runtime was seen at 0.6 to 1.3 times."""

IMAGES: Final = 2

Values = dict[str, npt.NDArray[Any]]


def check_onnx(network: Network, path: Path, images: Tensor | None = None) -> float:
    """Return the relative error of the float32 ONNX model at ``path``: the largest over logits and cells' outputs.

    Both get ``images`` (N, C_in, H, W) float32, one by one, or two images of noise that are always the same. The
    runtime runs on one thread of the CPU. ``network`` is evaluated in eval mode, on a copy.

    Raises:
        ExportError: the error is over both :data:`PARITY_BOUND` and :data:`FLOAT32_FACTOR` times that of torch's
            own float32, or the runtime cannot run the model.
        InputError: the images are not of the network's shape.
    """
    return _check(network, images, lambda pixels: _run_onnx(path, pixels))


def check_tflite(network: Network, path: Path, images: Tensor | None = None) -> float:
    """Return the relative error of the float32 TFLite model at ``path``; see :func:`check_onnx`."""
    return _check(network, images, lambda pixels: _run_tflite(path, pixels))


def _check(network: Network, images: Tensor | None, run: Callable[[npt.NDArray[np.float32]], Values]) -> float:
    shape = network.spec.input_shape
    if images is None:
        images = torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    if images.dim() != 4 or len(images) == 0 or tuple(images.shape[1:]) != tuple(shape):
        raise InputError(f"images of shape (N, {', '.join(map(str, shape))}) are needed, not {tuple(images.shape)}")
    images = images.detach().cpu().float()
    exported = run(images.numpy())
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


def _run_onnx(path: Path, images: npt.NDArray[np.float32]) -> Values:
    """Return the logits of the model as it is, and the cells' outputs of a copy that has them as outputs."""
    import onnx
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    def run(model: str | bytes) -> Values:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        source = session.get_inputs()[0].name
        results = [session.run(names, {source: image[None]}) for image in images]
        return {name: np.concatenate(parts) for name, parts in zip(names, zip(*results, strict=True), strict=True)}

    try:
        logits = run(str(path))
        opened = onnx.load(path)
        cells = [info for info in opened.graph.value_info if info.name in _cell_names(opened.graph)]
        opened.graph.output.extend(cells)
        return run(opened.SerializeToString()) | logits
    except (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    ) as error:
        raise ExportError(f"ONNX Runtime cannot run {path}: {error}") from error


def _run_tflite(path: Path, images: npt.NDArray[np.float32]) -> Values:
    """Return the logits of the model as it is, and the cells' outputs of a copy that has them as outputs."""

    def run(model: bytes) -> Values:
        loaded = interpreter(model, 1)
        source = loaded.get_input_details()[0]["index"]
        targets = loaded.get_output_details()
        results: dict[str, list[npt.NDArray[Any]]] = {target["name"]: [] for target in targets}
        for image in images:
            loaded.set_tensor(source, image.transpose(1, 2, 0)[None])
            loaded.invoke()
            for target in targets:
                value = loaded.get_tensor(target["index"])
                # Cells are images with their channels last.
                results[target["name"]].append(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)
        return {name: np.concatenate(parts) for name, parts in results.items()}

    try:
        model = path.read_bytes()
        return run(with_outputs(model, _is_cell)) | run(model)
    # A file that is none leads its reader anywhere.
    except (OSError, ValueError, RuntimeError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise ExportError(f"LiteRT cannot run {path}: {error}") from error


def _cell_names(graph: Any) -> set[str]:  # noqa: ANN401 -- protobuf has no types
    """Return the names of the values that are a cell's output."""
    return {node.name for node in graph.node if _is_cell(node.name)}


def _is_cell(name: str) -> bool:
    """Return whether the value ``name`` is a cell's output, as :mod:`~cars_hw.export.lower` calls them."""
    return name.startswith("cells.") and "/" not in name
