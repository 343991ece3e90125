"""ONNX Runtime with its telemetry switched off; no other module imports it."""

from __future__ import annotations

import os
from typing import Any


def load() -> Any:  # noqa: ANN401 -- the runtime has no types
    """Return the module ``onnxruntime``, which sends no usage data from this process.

    ONNX Runtime 1.32 on Linux writes a device id below ``~/.cache/Microsoft`` when it is imported, and opens
    an internet socket to look up a Microsoft server about nine seconds later. It reads
    ``ORT_DISABLE_TELEMETRY`` only while it is imported.
    ``disable_telemetry_events`` stops the events of Windows; on Linux it changes nothing. A process that has
    imported ``onnxruntime`` in another way before keeps the telemetry that it has.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    # Absent from the builds without telemetry.
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def load_quantization() -> Any:  # noqa: ANN401 -- the runtime has no types
    """Return the module ``onnxruntime.quantization``; see :func:`load`."""
    load()
    from onnxruntime import quantization

    return quantization
