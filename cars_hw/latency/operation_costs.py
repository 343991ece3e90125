"""What operations cost on a device: as measured, and by a regression for sizes between those measured.

An operation of one kind and stride takes a time for being run, one for its multiply-adds, one for the elements that
it reads and writes, and one for its weights. A runtime may compute with channels in groups of 4, 8 or 16: then an
operation costs what the next multiple would. All times are fitted to the measured operations of the kind by their
relative error, none below zero. What the fit leaves unexplained at the measured numbers of channels is interpolated
between them, for each size of the images by itself, and for each class of channels: multiples of 16, of 8 and so
on, as a runtime may have kernels for some of them only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from cars_hw.errors import TableError
from cars_hw.latency.keys import OpKey
from cars_hw.space.cost import Cost, normalized_convolution_cost
from cars_hw.space.operations import OPERATIONS

FloatArray = npt.NDArray[np.float64]

MULTIPLES: Final = (1, 4, 8, 16)
"""A runtime may compute with channels in groups of so many."""

LEAST_MS: Final = 1e-5
"""What takes less than this, in milliseconds, is below what a device can tell."""


class Group(NamedTuple):
    """What operations have in common whose costs are interpolated: the image, and the classes of the channels.

    A class is the largest of 1, 2, 4, 8 and 16 that divides the channels which are read, or those written.
    """

    image: tuple[int, int]
    reads: int
    writes: int


class OperationCosts:
    """Latencies of operations in milliseconds, less the overhead of running a model.

    ``measured`` has those that were measured. With ``between``, a regression answers for the others.

    Attributes:
        left_out_error: for each kind, the mean relative error at a number of channels that was left out of the fit;
            empty until a kind has been asked for. None where too few were measured to leave one out.
    """

    def __init__(self, measured: Mapping[OpKey, float], *, between: bool = False) -> None:
        self._measured = measured
        self._between = between
        self._kinds: dict[tuple[str, int], KindRegression] = {}

    def of(self, keys: Iterable[OpKey]) -> FloatArray:
        """Return the costs of ``keys``, shape (K,).

        Raises:
            TableError: one was not measured, and no regression can answer for it.
        """
        return np.array([self._of(key) for key in keys])

    def _of(self, key: OpKey) -> float:
        known = self._measured.get(key)
        if known is not None:
            return known
        if not self._between:
            raise TableError(f"the table has no entry for {key}; profile the device again")
        return self.regression(key.kind, key.stride).estimate(key)

    def regression(self, kind: str, stride: int) -> KindRegression:
        """Return the regression for the operations of ``kind`` at ``stride``.

        Raises:
            TableError: none of them was measured.
        """
        found = self._kinds.get((kind, stride))
        if found is None:
            of_kind = {key: ms for key, ms in self._measured.items() if (key.kind, key.stride) == (kind, stride)}
            if not of_kind:
                raise TableError(f"the table has no entry for {kind} at stride {stride}; profile the device again")
            found = self._kinds[kind, stride] = KindRegression.fit(of_kind)
        return found


@dataclass(frozen=True)
class KindRegression:
    """The latency of the operations of one kind and stride, in milliseconds.

    ``rates`` are the milliseconds for an operation, for a multiply-add, an element and a weight, shape (4,), with
    channels rounded up to a ``multiple``. ``left`` has, for each size of the images and class of channels, what
    measured operations take relative to that, as logarithms by the logarithm of their size.
    """

    multiple: int
    rates: FloatArray
    left: Mapping[Group, tuple[FloatArray, FloatArray]]

    @classmethod
    def fit(cls, measured: Mapping[OpKey, float]) -> KindRegression:
        """Fit the operations ``measured``, in milliseconds, with the multiple that explains them best."""
        keys = list(measured)
        ms = np.maximum(np.array(list(measured.values())), LEAST_MS)
        fits = [(_fit(keys, ms, multiple), multiple) for multiple in MULTIPLES]
        # Where nothing is gained but what rounding gives, the smaller multiple stands.
        best = min(error for (_, error), _ in fits)
        (rates, _), multiple = next(one for one in fits if one[0][1] <= best + 1e-9)
        ratios = np.log(ms / np.maximum(_features(keys, multiple) @ rates, LEAST_MS))
        left: dict[Group, list[tuple[float, float]]] = {}
        for key, ratio in zip(keys, ratios, strict=True):
            left.setdefault(_group(key), []).append((_log_size(key), float(ratio)))
        return cls(multiple, rates, {group: _columns(sorted(points)) for group, points in left.items()})

    def estimate(self, key: OpKey) -> float:
        """Return the latency of ``key``, an operation of this kind and stride, in milliseconds."""
        fitted = max(float((_features([key], self.multiple) @ self.rates)[0]), LEAST_MS)
        group = _group(key)
        if group not in self.left:
            # The same class at the nearest size of images knows best, and another class at the same size next.
            group = min(self.left, key=lambda one: _distance(one, group))
        sizes, ratios = self.left[group]
        return fitted * math.exp(float(np.interp(_log_size(key), sizes, ratios)))


def _distance(one: Group, other: Group) -> tuple[int, float]:
    classes = sum(mine != theirs for mine, theirs in zip(one[1:], other[1:], strict=True))
    return classes, abs(math.log(math.prod(one.image) / math.prod(other.image)))


def _fit(keys: Sequence[OpKey], ms: FloatArray, multiple: int) -> tuple[FloatArray, float]:
    """Return the rates, shape (4,), and the root of the squared relative errors."""
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    relative = _features(keys, multiple) / ms[:, None]
    # Columns of one scale, for the sake of the solver's tolerance.
    scale = np.maximum(np.abs(relative).max(axis=0), np.finfo(float).tiny)
    rates, error = nnls(relative / scale, np.ones(len(ms)))
    return rates / scale, float(error)


def _features(keys: Sequence[OpKey], multiple: int) -> FloatArray:
    """Return shape (K, 4): one, multiply-adds, elements in and out, and parameters, channels rounded up."""
    rows = []
    for key in keys:
        rounded = _rounded(key, multiple)
        cost = key_cost(rounded)
        elements = math.prod(rounded.source) + math.prod(rounded.output)
        rows.append((1.0, float(cost.multiply_adds), float(elements), float(cost.parameters)))
    return np.array(rows)


def _rounded(key: OpKey, multiple: int) -> OpKey:
    def up(channels: int) -> int:
        return -(-channels // multiple) * multiple

    # What enters a network has the channels of its images, and what leaves it the classes.
    source = (
        key.source
        if key.kind in ("stem_cifar", "stem_quarter")
        else key.source._replace(channels=up(key.source.channels))
    )
    return OpKey(key.kind, source, key.channels if key.kind == "head" else up(key.channels), key.stride)


def key_cost(key: OpKey) -> Cost:
    """Return the parameters and multiply-adds of ``key``."""
    channels, output = key.source.channels, key.output
    match key.kind:
        case "stem_cifar" | "stem_eighth":
            return normalized_convolution_cost(channels, 3, output)
        case "stem_quarter":
            half = key.source.halved(key.channels // 2)
            first = normalized_convolution_cost(channels, 3, half)
            return first.plus(normalized_convolution_cost(half.channels, 3, output))
        case "relu_conv_bn" | "factorized_reduce":
            return normalized_convolution_cost(channels, 1, output)
        case "head":
            return Cost((channels + 1) * key.channels, channels * key.channels)
        case _:
            operation = OPERATIONS.get(key.kind)
            return Cost() if operation is None else operation.cost(key.source, key.stride)


def _group(key: OpKey) -> Group:
    classes = (math.gcd(channels, MULTIPLES[-1]) for channels in (key.source.channels, key.channels))
    return Group((key.source.height, key.source.width), *classes)


def _log_size(key: OpKey) -> float:
    """Return the logarithm of channels read times channels written: keys of one kind and image differ in it."""
    return math.log(key.source.channels * key.channels)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    """Return sizes and ratios of ``points``, those of equal size averaged."""
    sizes = sorted({size for size, _ in points})
    return np.array(sizes), np.array(
        [np.mean([ratio for other, ratio in points if other == size]) for size in sizes]
    )
