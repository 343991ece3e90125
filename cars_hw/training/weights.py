"""Weights as safetensors: a format that holds tensors and no code. Their digest is in the record beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cars_hw.config.checksummed import digest, read_verified
from cars_hw.config.files import replacing
from cars_hw.errors import RunError


def save_weights(weights: Mapping[str, Tensor], path: Path) -> str:
    """Write ``weights`` to ``path`` in one step and return the digest of the file."""
    from safetensors.torch import save

    # The format has neither views nor tensors of a device.
    content = save({name: value.detach().cpu().contiguous() for name, value in weights.items()})
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return digest(content)


def read_weights(path: Path, expected: str) -> dict[str, Tensor]:
    """Return the weights in ``path``, whose digest is ``expected``, on the CPU.

    Raises:
        RunError: the file cannot be read, is damaged, or holds no weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = read_verified(path, expected, RunError, "train-again")
    try:
        return load(content)
    except SafetensorError as error:
        raise RunError(f"{path} holds no weights: {error}", remedy="train-again") from error
