"""What each operation adds to a network by the predictor of a table, for networks of all sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from cars_hw.latency.arithmetic import key_cost
from cars_hw.latency.keys import OpKey, spec_keys
from cars_hw.latency.line import Observations
from cars_hw.latency.sums import OperationSums
from cars_hw.latency.table import Coefficients, LatencyTable

BYTES_OF_A_WEIGHT: Final = {"fp32": 4, "int8": 1}


class KeyCosts:
    """Figures of the operations of a table, by the text of their keys.

    ``isolated`` has the latency of each operation as a model of its own, less the overhead of running a model.
    ``added`` has what the operation adds to a network, before it is multiplied by the slope of ``coefficients``.
    Both are in milliseconds. ``weights_mb`` has the megabytes of its weights. ``sums`` adds up ``added`` over a
    network, and ``weight_sums`` adds up ``weights_mb``.

    For a table over sizes, the figures of an operation are computed when they are first read, so a further size
    costs little.

    Raises:
        TableError: the table lacks an entry.
    """

    def __init__(self, table: LatencyTable, coefficients: Coefficients) -> None:
        self._table = table
        self._coefficients = coefficients
        self.isolated = _Lazy(self._add)
        self.added = _Lazy(self._add)
        self.weights_mb = _Lazy(self._add)
        self.sums = OperationSums(table.spec, self.added)
        self.weight_sums = OperationSums(table.spec, self.weights_mb)
        keys = spec_keys(table.spec)
        if table.sizes is None:
            table.require_keys(keys)
            self._add(keys)
            return
        # All sizes have operations of the same kinds, so a kind without a regression is found at once.
        for kind, stride in dict.fromkeys((key.kind, key.stride) for key in keys):
            table.operation_costs.regression(kind, stride)

    def _add(self, keys: Sequence[OpKey]) -> None:
        operations = operations_of(self._table, keys)
        factors = self._coefficients.factors
        costs = self._coefficients.line.costs(operations) / self._coefficients.slope
        figures = zip(keys, operations.costs, costs, operations.weights_mb, strict=True)
        for key, isolated, cost, megabytes in figures:
            text = str(key)
            self.isolated[text] = float(isolated)
            self.added[text] = float(cost) * factors.get(key.kind, 1.0)
            self.weights_mb[text] = float(megabytes)


class _Lazy(dict[str, float]):
    """A dictionary by the texts of keys. If one is missing, ``add`` adds it."""

    def __init__(self, add: Callable[[Sequence[OpKey]], None]) -> None:
        super().__init__()
        self._add = add

    def __missing__(self, text: str) -> float:
        self._add([OpKey.parse(text)])
        return self[text]


def operations_of(table: LatencyTable, keys: Sequence[OpKey]) -> Observations:
    """Return the observations of the operations ``keys``, without those of networks."""
    kinds = list(dict.fromkeys(key.kind for key in keys))
    size = BYTES_OF_A_WEIGHT[table.precision] / 2**20
    return Observations(
        counts=np.zeros((0, len(keys))),
        costs=table.operation_costs.of(keys),
        elements=np.array([float(key.converted) for key in keys]),
        kinds=np.array([kinds.index(key.kind) for key in keys]),
        measured=np.zeros(0),
        channels=np.array([math.gcd(key.source.channels, key.channels) for key in keys]),
        weights_mb=np.array([key_cost(key).parameters * size for key in keys]),
    )
