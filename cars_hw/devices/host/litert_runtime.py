"""LiteRT from either of its packages: ``ai-edge-litert``, or the older ``tflite-runtime``."""

from __future__ import annotations

from importlib import import_module, metadata, util
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RUNTIMES: Final = (
    ("ai-edge-litert", "ai_edge_litert.interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter"),
)
"""Distribution and module, the preferred one first."""


def runtime() -> str | None:
    """Return the name and version of the runtime without loading it; None if there is none."""
    for distribution, module in RUNTIMES:
        package, _, _ = module.partition(".")
        if util.find_spec(package) is not None:
            return f"{distribution} {metadata.version(distribution)}"
    return None


def interpreter(model: str | bytes, threads: int) -> Any:  # noqa: ANN401 -- the runtimes have no types
    """Return an interpreter of ``model``, a path or the content of a file, with XNNPACK and allocated tensors.

    Raises:
        ImportError: no runtime is installed.
        ValueError: ``model`` is no TFLite model.
    """
    for _, module in RUNTIMES:
        package, _, _ = module.partition(".")
        if util.find_spec(package) is not None:
            source = {"model_path": model} if isinstance(model, str) else {"model_content": model}
            loaded = import_module(module).Interpreter(**source, num_threads=threads)
            loaded.allocate_tensors()
            return loaded
    raise ImportError("no LiteRT is installed; install it: pip install ai-edge-litert")


def to_quantised(batch: npt.NDArray[np.float32], detail: dict[str, Any]) -> npt.NDArray[Any]:
    """Return ``batch`` in the type of the tensor that ``detail`` describes: float, or quantised integers."""
    import numpy as np

    if detail["dtype"] == np.float32:
        return batch
    scale, zero = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    quantised: npt.NDArray[Any] = np.clip(np.rint(batch / (scale or 1.0)) + zero, limits.min, limits.max)
    return quantised.astype(detail["dtype"])


def from_quantised(value: npt.NDArray[Any], detail: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Return ``value`` of the tensor that ``detail`` describes as float."""
    import numpy as np

    if detail["dtype"] == np.float32:
        return value
    scale, zero = detail["quantization"]
    meant: npt.NDArray[np.float32] = ((value.astype(np.float32) - zero) * scale).astype(np.float32)
    return meant
