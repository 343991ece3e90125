"""The latency of the operations of one kind at sizes between those that were measured.

An operation takes a time for being run, one for its multiply-adds, one for the elements that it reads and writes,
and one for its weights. A runtime computes with several channels at once, see :class:`Lanes`. All times are fitted
to the measured operations of the kind by their relative error, none below zero. What the fit leaves unexplained at
the measured numbers of channels is interpolated between them, for each size of the images by itself. For a size of
images that was not measured, it is interpolated between the next smaller and the next larger one. Where that is
better, each class of channels is interpolated by itself too: multiples of 16, of 8 and so on, as a runtime may have
kernels for some of them only. Lanes and classes are those by which operations that are left out are estimated best.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cars_hw.latency.arithmetic import key_cost
from cars_hw.latency.op_key import BLOCK, OpKey
from cars_hw.space.operations import OPERATIONS

FloatArray = npt.NDArray[np.float64]

LEAST_MS: Final = 1e-5
"""What takes less than this, in milliseconds, is below what a device can tell."""

CLASSES: Final = (16, 8, 4, 1)
"""A runtime may have kernels for multiples of so many channels; the largest of the classes that are tried."""

STEMS: Final = ("stem_cifar", "stem_quarter", "stem_image")
"""Kinds that read the images of a network; their channels do not grow with the network's."""

HALVED: Final = 32
"""Runtimes that compute so many outputs at once have kernels of half the size, for no more channels than that."""


class Lanes(NamedTuple):
    """With how many channels a runtime computes at once; 1 assumes nothing.

    What grows with the channels, such as a depthwise convolution, computes with ``width`` channels at once; those
    that remain may take longer. What grows with their square, a convolution over all channels, computes ``outputs``
    channels at once. Images in memory have their channels rounded up to ``inputs``.
    """

    width: int
    outputs: int
    inputs: int


LANES: Final = (
    *(Lanes(width, outputs, 1) for width in (1, 4, 8, 16) for outputs in (1, 4, 8, 16, 32)),
    *(Lanes(size, size, size) for size in (4, 8, 16)),
)
"""What is tried."""


class Group(NamedTuple):
    """What operations have in common whose costs are interpolated: the image, and the classes of the channels.

    ``ratio`` is that of channels written to channels read, 0 where one of them is not the network's to choose. A
    class is the largest of some powers of two that divides the channels which are read, or those written.
    """

    image: tuple[int, int]
    ratio: float
    reads: int
    writes: int


Points = list[tuple[float, float]]
"""Logarithms of sizes in ascending order, and of what operations take relative to the fit."""


@dataclass(frozen=True)
class KindRegression:
    """The latency of the operations of one kind and stride, in milliseconds.

    ``rates``, shape (7,), are milliseconds: see :meth:`_Arithmetic.features`. ``left`` has, for each size of the
    images and class of channels, what measured operations take relative to the fit. ``classes`` is the largest
    class. ``left_out_error`` is the mean relative error of operations that are estimated from the others; None
    where none lies between others.
    """

    lanes: Lanes
    classes: int
    rates: FloatArray
    left: Mapping[Group, Points]
    left_out_error: float | None

    @classmethod
    def fit(cls, measured: Mapping[OpKey, float]) -> KindRegression:
        """Fit the operations ``measured``, in milliseconds."""
        keys = list(measured)
        ms = np.maximum(np.array(list(measured.values())), LEAST_MS)
        arithmetic = _Arithmetic.of(keys)
        fits = [_Fit.of(keys, ms, arithmetic.features(lanes)) for lanes in LANES]
        place = _best([one.error for one in fits])
        best = fits[place]
        errors = [_left_out_error(keys, best.left, classes) for classes in CLASSES]
        classes = CLASSES[_best([error or 0.0 for error in errors])]
        error = errors[CLASSES.index(classes)]
        return cls(LANES[place], classes, best.rates, _grouped(keys, best.left, classes), error)

    def estimate(self, key: OpKey) -> float:
        """Return the latency of ``key``, an operation of this kind and stride, in milliseconds."""
        fitted = max(float((_Arithmetic.of([key]).features(self.lanes) @ self.rates)[0]), LEAST_MS)
        return fitted * math.exp(_between_images(self.left, _group(key, self.classes), _log_size(key)))


def _best(errors: Sequence[float]) -> int:
    """Return the place of the smallest of ``errors``; where only rounding tells them apart, the first."""
    least = min(errors)
    return next(place for place, error in enumerate(errors) if error <= least + 1e-9)


class _Arithmetic(NamedTuple):
    """What K operations compute, each of shape (K,).

    ``reads`` and ``writes`` are channels, 1 where they are not a runtime's to round: the channels of images and the
    number of classes. ``lines`` and ``dense`` are the multiply-adds that grow with the channels and with their
    square.
    """

    reads: FloatArray
    writes: FloatArray
    lines: FloatArray
    dense: FloatArray
    elements_in: FloatArray
    elements_out: FloatArray
    parameters: FloatArray

    @classmethod
    def of(cls, keys: Sequence[OpKey]) -> _Arithmetic:
        """Return the figures of ``keys``."""
        rows = []
        for key in keys:
            cost = key_cost(key)
            dense = float(cost.multiply_adds)
            if key.kind in OPERATIONS or key.kind.startswith(BLOCK):
                # a c + b c^2 is 2 a c + 4 b c^2 at twice the channels.
                twice = key.source._replace(channels=2 * key.source.channels)
                dense = key_cost(OpKey(key.kind, twice, 2 * key.channels, key.stride)).multiply_adds / 2 - dense
            rows.append(
                (
                    1 if key.kind in STEMS else key.source.channels,
                    1 if key.kind == "head" else key.channels,
                    cost.multiply_adds - dense,
                    dense,
                    math.prod(key.source),
                    math.prod(key.output),
                    cost.parameters,
                )
            )
        return cls(*np.array(rows, dtype=float).T)

    def features(self, lanes: Lanes) -> FloatArray:
        """Return shape (K, 7): what the rates multiply.

        One; multiply-adds that grow with the channels; those that grow with their square, and the same again where
        the last outputs are fewer than computed at once; elements; what has channels that remain; and weights.
        """
        inputs, outputs = _rounded(self.reads, lanes.inputs), _rounded(self.writes, lanes.outputs)
        dense = self.dense * inputs * outputs
        images = self.elements_in * inputs + self.elements_out * _rounded(self.writes, lanes.inputs)
        lines = self.lines * _rounded(self.reads, lanes.width)
        remain = (self.reads % lanes.width > 0) & (self.reads > 1)
        return np.stack(
            [
                np.ones(len(lines)),
                lines,
                dense,
                dense * ((self.writes % lanes.outputs > 0) & (self.writes > 1)),
                images,
                np.where(lines > 0, lines, images) * remain,
                self.parameters * inputs * outputs,
            ],
            axis=1,
        )


def _rounded(channels: FloatArray, lanes: int) -> FloatArray:
    """Return how many times ``channels`` a runtime computes with that rounds them up to ``lanes``."""
    size = np.where(channels <= lanes / 2, lanes / 2, lanes) if lanes >= HALVED else np.full(len(channels), lanes)
    factors: FloatArray = np.where(channels > 1, np.ceil(channels / size) * size / channels, 1.0)
    return factors


class _Fit(NamedTuple):
    """The rates, shape (7,); what K operations take relative to the fit, as logarithms (K,); the error left out."""

    rates: FloatArray
    left: FloatArray
    error: float

    @classmethod
    def of(cls, keys: Sequence[OpKey], ms: FloatArray, features: FloatArray) -> _Fit:
        """Fit ``keys``, which take ``ms`` (K,) milliseconds, by ``features`` (K, 7)."""
        from scipy.optimize import nnls  # type: ignore[import-untyped]

        relative = features / ms[:, None]
        # Columns of one scale, for the sake of the solver's tolerance.
        scale = np.maximum(np.abs(relative).max(axis=0), np.finfo(float).tiny)
        scaled, error = nnls(relative / scale, np.ones(len(ms)))
        rates = scaled / scale
        left = np.log(ms / np.maximum(features @ rates, LEAST_MS))
        left_out = _left_out_error(keys, left, CLASSES[-1])
        return cls(rates, left, float(error) if left_out is None else left_out)


def _left_out_error(keys: Sequence[OpKey], left: FloatArray, classes: int) -> float | None:
    """Return the mean relative error of operations that are left out; None where none lies between others.

    At the ends of the sizes of an image nothing is asked for that was not measured.
    """
    groups = _grouped(keys, left, classes)
    ends: dict[tuple[object, ...], list[float]] = {}
    for group, points in groups.items():
        ends.setdefault(group[:2], []).extend((points[0][0], points[-1][0]))
    errors = []
    for group, points in groups.items():
        least, most = min(ends[group[:2]]), max(ends[group[:2]])
        others = {one: own for one, own in groups.items() if one != group}
        for place, (size, ratio) in enumerate(points):
            if least < size < most:
                rest = points[:place] + points[place + 1 :] or _nearest(others, group)
                errors.append(abs(math.expm1(_between(rest, size) - ratio)))
    return float(np.mean(errors)) if errors else None


def _grouped(keys: Sequence[OpKey], left: FloatArray, classes: int) -> dict[Group, Points]:
    groups: dict[Group, Points] = {}
    for key, ratio in zip(keys, left, strict=True):
        groups.setdefault(_group(key, classes), []).append((_log_size(key), float(ratio)))
    return {group: sorted(points) for group, points in groups.items()}


def _nearest(groups: Mapping[Group, Points], group: Group) -> Points:
    """Return the points of ``group``; without any, those of the same class at the nearest size of images.

    They know best, and another class at the same size next.
    """
    if group not in groups:
        group = min(groups, key=lambda one: _distance(one, group))
    return groups[group]


def _between_images(groups: Mapping[Group, Points], group: Group, size: float) -> float:
    """Return the ratio of ``group`` at ``size``.

    For an image that was not measured, it is interpolated over the logarithm of the pixels, between the nearest
    smaller and the nearest larger image.
    """
    pixels = {one.image: math.log(math.prod(one.image)) for one in groups}
    aim = math.log(math.prod(group.image))
    fewer = [image for image, log in pixels.items() if log < aim]
    more = [image for image, log in pixels.items() if log > aim]
    if group.image in pixels or not fewer or not more:
        return _between(_nearest(groups, group), size)
    below, above = max(fewer, key=lambda image: pixels[image]), min(more, key=lambda image: pixels[image])
    low, high = (_between(_nearest(groups, group._replace(image=image)), size) for image in (below, above))
    return low + (high - low) * (aim - pixels[below]) / (pixels[above] - pixels[below])


def _distance(one: Group, other: Group) -> tuple[int, float]:
    classes = sum(mine != theirs for mine, theirs in zip(one[1:], other[1:], strict=True))
    return classes, abs(math.log(math.prod(one.image) / math.prod(other.image)))


def _between(points: Points, size: float) -> float:
    """Return the ratio at ``size``, interpolated; beyond the ends that of the end.

    Points of one size are averaged.
    """
    place = bisect_left(points, (size, -math.inf))
    same = [ratio for other, ratio in points[place:] if other == size]
    if same:
        return sum(same) / len(same)
    if place in (0, len(points)):
        return points[min(place, len(points) - 1)][1]
    (before, low), (after, high) = points[place - 1], points[place]
    return low + (high - low) * (size - before) / (after - before)


def _group(key: OpKey, classes: int) -> Group:
    image = (key.source.height, key.source.width)
    fixed = key.kind in (*STEMS, "head")
    ratio = 0.0 if fixed else round(key.channels / key.source.channels, 6)
    return Group(image, ratio, math.gcd(key.source.channels, classes), math.gcd(key.channels, classes))


def _log_size(key: OpKey) -> float:
    """Return the logarithm of channels read times channels written: keys of one kind and image differ in it."""
    return math.log(key.source.channels * key.channels)
