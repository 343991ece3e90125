"""int8 that stays near the float model: ranges that clip as much as pays, and a classifier that knows its bias.

A range that covers everything spends its 256 levels on values that hardly come; one that clips too much cuts off
what matters. For each tensor the range with the smallest mean squared error over its values is taken. What the
error of all layers comes to on average is the same for every image, and is taken off the classifier's bias.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from cars_hw.export.classify import open_model
from cars_hw.export.quantize import quantize

if TYPE_CHECKING:
    from cars_hw.config.measurement import Int8Scheme
    from cars_hw.export.format import ExportFormat, Feeds, FloatArray, Ranges

CALIBRATION_IMAGES: Final = 256
"""So many training images are looked at."""

FEWER_IMAGES: Final = (64, 128)
"""Rare values of many images can spoil a range: those of so many are tried too."""

SAMPLED: Final = 4096
"""Of each tensor and image so many values are kept, beside its extremes."""

LEVELS: Final = 255
"""Steps between the smallest and the largest value; the symmetric scheme has one less: zero is the middle."""

BINS: Final = 4096
SHRINK: Final = np.linspace(0.5, 1.0, 26)
"""The ranges that are tried, as fractions of the whole."""

LOGITS_MARGIN: Final = 0.25
"""Logits beyond those of calibration are the sure ones: their range is widened by so much on both sides."""


@dataclass
class Seen:
    """What a tensor's values were, image for image."""

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    values: list[FloatArray] = field(default_factory=list)

    def add(self, value: FloatArray, rng: np.random.Generator) -> None:
        """Note the values of an image."""
        flat = value.ravel()
        self.low.append(float(flat.min()))
        self.high.append(float(flat.max()))
        self.values.append(flat if flat.size <= SAMPLED else flat[rng.integers(flat.size, size=SAMPLED)])

    def range(self, images: int, scheme: Int8Scheme) -> tuple[float, float]:
        """Return the range with the smallest mean squared error over the first ``images``."""
        low, high = min(self.low[:images]), max(self.high[:images])
        return best_range(np.concatenate(self.values[:images]), low, high, scheme)


def best_range(
    values: FloatArray, low: float, high: float, scheme: Int8Scheme = "asymmetric"
) -> tuple[float, float]:
    """Return the range that 8 bits render ``values`` best with, by squared error.

    It is within ``low`` and ``high``, and in the symmetric scheme within the larger of both on each side of zero.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    symmetric = scheme == "symmetric"
    levels = LEVELS - 1 if symmetric else LEVELS
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    if high <= low:
        return low, high
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    kept = counts > 0
    counts, centres = counts[kept], centres[kept]
    tried = {(low * a, high * a) for a in SHRINK}
    if not symmetric:
        tried |= {(low * a, high) for a in SHRINK} | {(low, high * b) for b in SHRINK}

    def error(limits: tuple[float, float]) -> tuple[float, float, float]:
        step = (limits[1] - limits[0]) / levels
        zero = np.round(-limits[0] / step)
        rendered = (np.clip(np.round(centres / step) + zero, 0, levels) - zero) * step
        # Of equal ones the widest.
        return float((counts * (rendered - centres) ** 2).sum()), limits[0], -limits[1]

    return min(tried, key=error)


def refine(model: bytes, export_format: ExportFormat, feeds: Feeds, scheme: Int8Scheme = "asymmetric") -> bytes:
    """Return the float32 ``model`` of a trained network in int8, calibrated on ``feeds``.

    Of the ranges by :data:`FEWER_IMAGES` and by all of ``feeds`` those are taken with which the logits of ``feeds``
    are nearer to the float model's.

    Raises:
        ExportError: it cannot be quantised, or not be run.
    """
    seen = _seen(model, export_format, feeds)
    truth = _logits(model, export_format, feeds)
    found: list[tuple[float, Ranges, FloatArray]] = []
    for images in sorted({*(min(few, len(feeds)) for few in FEWER_IMAGES), len(feeds)}):
        limits = {name: one.range(images, scheme) for name, one in seen.items()}
        for name in export_format.output_names(model):
            low, high = min(seen[name].low), max(seen[name].high)
            margin = LOGITS_MARGIN * (high - low)
            limits[name] = low - margin, high + margin
        quantised = quantize(model, export_format, feeds[:1], limits, scheme)
        difference = _logits(quantised, export_format, feeds) - truth
        bias: FloatArray = difference.mean(axis=0)
        found.append((float(np.linalg.norm(difference - bias)), limits, bias))
    _, ranges, bias = min(found, key=lambda one: one[0])
    return quantize(export_format.subtract_bias(model, bias), export_format, feeds[:1], ranges, scheme)


def _logits(model: bytes, export_format: ExportFormat, feeds: Feeds) -> FloatArray:
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        path = Path(folder) / f"model{export_format.suffix}"
        path.write_bytes(model)
        run = open_model(path)
        logits: FloatArray = np.concatenate([run(np.asarray(next(iter(feed.values())))) for feed in feeds])
    return logits


def _seen(model: bytes, export_format: ExportFormat, feeds: Feeds) -> dict[str, Seen]:
    """Return the values of all activations on ``feeds``."""
    rng = np.random.default_rng(0)
    seen: dict[str, Seen] = {}
    run = export_format.activations(model)
    for feed in feeds:
        for name, value in run(feed):
            if value.dtype == np.float32 and value.size:
                seen.setdefault(name, Seen()).add(value, rng)
    return seen
