"""The command line that makes a latency table for larger networks of the kind that a search was for.

The command line and the report print it after a search whose sizes ended before its budget.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from cars_hw.space.network_spec import NETWORKS, NetworkSpec, resolution_text

SMALL_IMAGES: Final = "quick"
"""The network that profile takes its settings from unless another one is named."""

LARGE_IMAGES: Final = "imagenet"


def further_table(
    device: str,
    limit_ms: float,
    network: NetworkSpec,
    *,
    resolutions: Sequence[tuple[int, int]] = (),
    precision: str = "fp32",
    threads: int = 1,
) -> str:
    """Return the command that profiles ``device`` for networks like ``network`` with sizes for ``limit_ms``.

    The table is for the same images as that of the search: their ``resolutions`` (height and width in pixels; empty
    for that of ``network``), channels and classes, and for models of the same ``precision`` on as many ``threads``.
    """
    base = LARGE_IMAGES if network.stem == "imagenet" else SMALL_IMAGES
    usual, options = NETWORKS[base], ["--device", device, "--latency", f"{limit_ms:.15g}ms"]
    if base != SMALL_IMAGES:
        options += ["--network", base]
    sizes = tuple(resolutions) or (network.resolution,)
    if sizes != (usual.resolution,):
        options += ["--resolution", resolution_option(sizes)]
    for name, own, default in (
        ("--in-channels", network.in_channels, usual.in_channels),
        ("--classes", network.classes, usual.classes),
        ("--family", network.family, usual.family),
        ("--precision", precision, "fp32"),
        ("--threads", threads, 1),
    ):
        if own != default:
            options += [name, str(own)]
    if network.blocks is not None:
        # A range of layers is for cells: blocks are as many as they are.
        options += ["--layers", str(network.layers)]
    return shlex.join(["cars-hw", "profile", *options, "--out", "larger.json"])


def resolution_option(resolutions: Sequence[tuple[int, int]]) -> str:
    """Return ``resolutions`` as the option takes them: ``16,32`` where images are square, otherwise ``48x64``."""
    return ",".join(
        str(height) if height == width else resolution_text((height, width)) for height, width in resolutions
    )
