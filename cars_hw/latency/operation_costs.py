"""Latencies of operations on a device: measured ones, and estimates for sizes between the measured ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from cars_hw.errors import TableError
from cars_hw.latency.keys import OpKey
from cars_hw.latency.kind_regression import KindRegression

FloatArray = npt.NDArray[np.float64]


class OperationCosts:
    """Latencies of operations in milliseconds, less the overhead of running a model.

    ``measured`` has those that were measured. With ``between``, a regression estimates the others.
    """

    def __init__(self, measured: Mapping[OpKey, float], *, between: bool = False) -> None:
        self._measured = measured
        self._between = between
        self._kinds: dict[tuple[str, int], KindRegression] = {}

    def of(self, keys: Iterable[OpKey]) -> FloatArray:
        """Return the costs of ``keys``, shape (K,).

        Raises:
            TableError: one was not measured, and no regression can estimate it.
        """
        return np.array([self._of(key) for key in keys])

    def _of(self, key: OpKey) -> float:
        known = self._measured.get(key)
        if known is not None:
            return known
        if not self._between:
            raise TableError(f"the table has no entry for {key}; profile the device again")
        return self.regression(key.kind, key.stride).estimate(key)

    def left_out_errors(self) -> dict[str, float]:
        """Return the mean relative error by kind, largest first, if each operation is estimated from the others.

        A key is a kind and, for candidate operations, its stride: ``sep_conv_3x3/s1``. A kind is left out if none
        of its operations lies between others.
        """
        errors = {}
        for kind, stride in dict.fromkeys((key.kind, key.stride) for key in self._measured):
            error = self.regression(kind, stride).left_out_error
            if error is not None:
                errors[_name(kind, stride)] = error
        return dict(sorted(errors.items(), key=lambda item: -item[1]))

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


def kind_name(key: OpKey) -> str:
    """Return the name of the kind of ``key``; for a candidate operation, it has the stride: ``sep_conv_3x3/s1``."""
    return _name(key.kind, key.stride)


def _name(kind: str, stride: int) -> str:
    return f"{kind}/s{stride}" if stride else kind
