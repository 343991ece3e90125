"""Which extra of the package brings a library that is missing."""

from __future__ import annotations

from typing import Final

EXTRAS: Final = {
    "adb_shell": "android",
    "ai_edge_litert": "search",
    "cryptography": "android",
    "distributed": "dask",
    "flatbuffers": "search",
    "google": "search",
    "litert_quantizer": "quantize",
    "matplotlib": "plot",
    "mlflow": "mlflow",
    "onnx": "search",
    "onnxruntime": "search",
    "pymoo": "search",
    "ray": "ray",
    "safetensors": "search",
    "scipy": "search",
    "sklearn": "search",
    "submitit": "submitit",
    "tensorboard": "tensorboard",
    "sqlalchemy": "mlflow",
    "torch": "search",
    "torchvision": "search",
    "wandb": "wandb",
}
"""The extra by the name under which a library is imported."""


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """Return one line that says what to install, or None for a module that no extra brings."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    return f"this command needs {library}, which is not installed; run: pip install 'cars-hw[{EXTRAS[library]}]'"
