"""A trained network as a model file and its card, both of them in place or neither."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from cars_hw.export.card import ModelCard, Preprocessing, card_path
from cars_hw.export.lower import lower_network
from cars_hw.export.onnx import onnx_bytes
from cars_hw.export.parity import check_onnx
from cars_hw.files import replacing
from cars_hw.network import Network


def export_onnx(
    network: Network,
    path: Path,
    *,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    accuracy: float | None = None,
    predicted_ms: float | None = None,
    bound_ms: float | None = None,
    measured_ms: float | None = None,
    dynamic_batch: bool = False,
) -> ModelCard:
    """Write ``network`` to ``path`` as ONNX and its card to :func:`~cars_hw.export.card.card_path`.

    The model takes ``image`` (1, C_in, H, W), or (batch, C_in, H, W) with ``dynamic_batch``, and returns ``logits``
    (1 or batch, classes), both float32. It carries genotype, network, preprocessing and class names as JSON in
    its metadata, too. ``accuracy`` is a fraction, latencies are milliseconds; what is None is not known.

    Raises:
        ExportError: the network cannot be exported, or the model does not compute what the network does; then
            nothing is written.
        InputError: preprocessing, class names or a figure do not fit the network; nothing is written.
    """
    described = {
        "genotype": network.genotype.to_dict(),
        "network": network.spec.to_dict(),
        "preprocessing": preprocessing.to_dict(),
        "class_names": list(class_names),
    }
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in described.items()}
    model = onnx_bytes(lower_network(network), dynamic_batch=dynamic_batch, metadata=metadata)
    with replacing(path) as temporary:
        temporary.write_bytes(model)
        card = ModelCard(
            genotype=network.genotype,
            network=network.spec,
            preprocessing=preprocessing,
            class_names=tuple(class_names),
            parity=check_onnx(network, temporary),
            versions=versions(),
            accuracy=accuracy,
            predicted_ms=predicted_ms,
            bound_ms=bound_ms,
            measured_ms=measured_ms,
        )
        # The card goes first, so that a model that is there has one.
        card.write(card_path(path))
    return card


def versions() -> dict[str, str]:
    """Return the versions of the programs that take part in an export."""
    packages = ("cars-hw", "torch", "onnx", "onnxruntime")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
