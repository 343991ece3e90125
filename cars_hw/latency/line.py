"""The line behind a predicted latency: what isolated models carry, and what a network takes beside its operations.

An isolated model pays for more than its operation. To be run at all costs the overhead; and a runtime that keeps
images in a layout of its own converts what goes in and what comes out, which inside of a network it does not.
The first is measured, the second is fitted: so many nanoseconds for each element of what a model takes in or gives
out, but for what computes alike in any layout. Without it pooling, which does little with many elements, is taken
for twice what it costs, and the networks at the fast end, where budgets are, are a third off.

A runtime may have kernels, with a layout of their own, only for channels in groups of 8 or 16. Operations with
other numbers of channels then have no conversions, and their times add up by another slope. The weights of a
network may be more than the cache holds, where those of an isolated operation stay in it: then every further
megabyte takes a time of its own. See :class:`Traits`.

Between the operations of a network there are conversions too, where some of them have kernels for a layout and
others have not. In a table over sizes, the operations of networks whose channels are no multiples of 8, 16 or 32
may therefore take another factor than those of other networks; see :class:`Widths`.

What is left differs by kind of operation: inside a network a runtime fuses some of them with their neighbours, and
their images are in the cache or are not. So on top of the line each kind may have a factor of its own.
:mod:`cars_hw.latency.fit` finds all of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LEAST_PART: Final = 0.1
"""What an operation costs inside of a network, at least: this share of what it costs as a model of its own."""


class Traits(NamedTuple):
    """What is assumed of a runtime: channels in groups of ``block``, and a cache of ``cache_mb`` for the weights.

    A ``block`` of 1 and an infinite cache assume nothing.
    """

    block: int = 1
    cache_mb: float = math.inf


PLAIN: Final = Traits()


class Widths(NamedTuple):
    """By how much the operations of a network take longer together than the line says, for its number of channels.

    The channels are those of the first cell. ``multiples`` is the factor of networks with a multiple of ``block``,
    ``others`` that of all others. A ``block`` of 1 assumes nothing.
    """

    block: int = 1
    multiples: float = 1.0
    others: float = 1.0

    def factor(self, channels: int) -> float:
        """Return the factor of networks with so many ``channels``."""
        return self.multiples if channels % self.block == 0 else self.others


ANY_WIDTH: Final = Widths()


@dataclass(frozen=True)
class Observations:
    """What there is to fit: N networks made of K operations.

    ``counts`` (N, K) says how often each network runs each operation, ``costs`` (K,) what the isolated ones cost
    in milliseconds beyond the overhead, ``elements`` (K,) how many elements a runtime may convert for them,
    ``kinds`` (K,) numbers their kinds from 0 without a gap, and ``measured`` (N,) are the networks' latencies in
    milliseconds. ``channels`` (K,) is the largest number that divides the channels which an operation reads and
    those which it writes, and ``weights_mb`` (K,) the size of its weights in megabytes. ``widths`` (N,) are the
    channels of each network's first cell; None if all networks have the same. ``scale`` (N,) multiplies what the
    operations of each network take together; None stands for ones.
    """

    counts: FloatArray
    costs: FloatArray
    elements: FloatArray
    kinds: npt.NDArray[np.int_]
    measured: FloatArray
    channels: npt.NDArray[np.int_]
    weights_mb: FloatArray
    widths: npt.NDArray[np.int_] | None = None
    scale: FloatArray | None = None

    def without(self, network: int) -> Observations:
        """Return all but one of the networks."""
        kept = np.arange(len(self.measured)) != network
        return replace(
            self,
            counts=self.counts[kept],
            measured=self.measured[kept],
            widths=None if self.widths is None else self.widths[kept],
            scale=None if self.scale is None else self.scale[kept],
        )

    def scaled(self, widths: Widths) -> Observations:
        """Return the observations with the factors of ``widths`` as their ``scale``."""
        assert self.widths is not None
        return replace(self, scale=np.array([widths.factor(int(channels)) for channels in self.widths]))

    @property
    def weighted_counts(self) -> FloatArray:
        """Shape (N, K): ``counts`` times ``scale``."""
        return self.counts if self.scale is None else self.counts * self.scale[:, None]

    def net(self, conversion_ns: float, block: int = 1) -> FloatArray:
        """Return shape (K,): the operations less their conversions, in milliseconds."""
        elements = np.where(self.channels % block == 0, self.elements, 0.0)
        return net_costs(self.costs, elements, conversion_ns)

    def sums(self, conversion_ns: float) -> FloatArray:
        """Return shape (N,): each network's operations together, in milliseconds."""
        sums: FloatArray = self.counts @ self.net(conversion_ns)
        return sums

    def by_kind(self, conversion_ns: float) -> FloatArray:
        """Return shape (N, kinds): the parts of :meth:`sums`."""
        return self.counts @ (self.net(conversion_ns)[:, None] * self.membership)

    @property
    def membership(self) -> FloatArray:
        """Shape (K, kinds): 1 where an operation is of a kind, 0 elsewhere."""
        membership: FloatArray = np.eye(int(self.kinds.max()) + 1)[self.kinds]
        return membership

    def beyond(self, cache_mb: float) -> FloatArray:
        """Return shape (N,): the megabytes of each network's weights that the cache does not hold."""
        return np.maximum(self.counts @ self.weights_mb - cache_mb, 0.0)


@dataclass(frozen=True)
class Line:
    """``slope`` times the sum of operations net of ``conversion_ns`` an element, plus ``intercept_ms``.

    Operations whose channels are no multiples of ``traits.block`` have no conversion, and ``unaligned`` times the
    slope. ``spill_ms`` is added for every megabyte of weights beyond ``traits.cache_mb``. ``factors`` (kinds,)
    multiply the parts of the sum, if there are any.
    """

    slope: float
    intercept_ms: float
    conversion_ns: float
    factors: FloatArray | None = None
    traits: Traits = PLAIN
    unaligned: float = 1.0
    spill_ms: float = 0.0

    def costs(self, observations: Observations) -> FloatArray:
        """Return shape (K,): what each operation adds to a network, in milliseconds, without factors."""
        net = observations.net(self.conversion_ns, self.traits.block)
        aligned = observations.channels % self.traits.block == 0
        costs: FloatArray = self.slope * net * np.where(aligned, 1.0, self.unaligned)
        return costs

    def parts(self, observations: Observations) -> FloatArray:
        """Return shape (N, kinds): the milliseconds of the operations of each kind, without factors."""
        parts: FloatArray = observations.weighted_counts @ (
            self.costs(observations)[:, None] * observations.membership
        )
        return parts

    def predict(self, observations: Observations) -> FloatArray:
        """Return shape (N,): the networks' latencies in milliseconds."""
        return self.operations(observations) + self.rest(observations)

    def operations(self, observations: Observations) -> FloatArray:
        """Return shape (N,): the milliseconds of the operations of each network."""
        parts = self.parts(observations)
        operations: FloatArray = parts @ (np.ones(parts.shape[1]) if self.factors is None else self.factors)
        return operations

    def rest(self, observations: Observations) -> FloatArray:
        """Return shape (N,): the milliseconds of each network beyond its operations."""
        rest: FloatArray = self.intercept_ms + self.spill_ms * observations.beyond(self.traits.cache_mb)
        return rest


def net_costs(costs: FloatArray, elements: FloatArray, conversion_ns: float) -> FloatArray:
    """Return (K,) milliseconds: ``costs`` less the conversion of so many ``elements``.

    At least :data:`LEAST_PART` of a cost remains: an operation that is run takes time.
    """
    return np.maximum(costs - conversion_ns * 1e-6 * elements, LEAST_PART * costs)
