"""The tensors of a TFLite model that is not written: how large they are, and between which operators they live."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from cars_hw.export.tflite_writer import ALIGNMENT, Writer, packed

if TYPE_CHECKING:
    from cars_hw.config.measurement import Precision
    from cars_hw.export.graph import Graph


@dataclass(frozen=True)
class TensorLife:
    """A tensor that is computed: its elements, and the first and the last operator during which it is needed."""

    elements: int
    first: int
    last: int


QUANTIZED_CHANNEL: Final = 4 + 2 * 12
"""The bytes of an int8 file for each channel of a convolution: a bias, and two scales and zero points."""

QUANTIZED_TENSOR: Final = 24
"""The bytes that the quantisation of a tensor takes besides its scales and zero points."""


class TflitePlan:
    """The tensors of the TFLite model of ``graph``, whose weights may be without values.

    ``lives`` are those that are computed.

    Raises:
        ExportError: the graph holds a layer that TFLite has no operator for.
    """

    def __init__(self, graph: Graph) -> None:
        writer = _Planner(graph, dynamic_batch=False)
        for layer in graph.layers:
            writer.write(layer)
        self._model, self._constants = writer.model({}), writer.constants
        self.lives = _lives(self._model.subgraphs[0], set(writer.constants))

    def file_bytes(self, precision: Precision) -> int:
        """Return the size of the file without metadata, in bytes; an estimate for int8."""
        total = len(packed(self._model))
        if precision == "int8":
            total += QUANTIZED_TENSOR * len(self._model.subgraphs[0].tensors)
        for name, elements in self._constants.values():
            if precision == "fp32":
                size = 4 * elements
            elif name.endswith("/weight"):
                size = elements
            else:
                size = QUANTIZED_CHANNEL * elements if name.endswith("/bias") else 4 * elements
            total += -(-size // ALIGNMENT) * ALIGNMENT
        return total


class _Planner(Writer):
    """A writer that keeps no constants: ``constants`` has the name and the elements of each by its number."""

    def __init__(self, graph: Graph, dynamic_batch: bool) -> None:
        super().__init__(graph, dynamic_batch)
        self.constants: dict[int, tuple[str, int]] = {}

    def tensor(self, name: str, shape: Sequence[int], value: npt.NDArray[Any] | None = None) -> int:
        """Add a tensor; the buffer of a constant stays empty."""
        number = super().tensor(name, shape)
        if value is not None:
            self.constants[number] = name, value.size
            self.tensors[number].buffer = len(self.buffers)
            self.buffers.append(schema.BufferT())
        return number


def _lives(subgraph: Any, constants: set[int]) -> list[TensorLife]:  # noqa: ANN401 -- the schema has no types
    """Return the lives of the tensors that are computed: those of inputs and outputs are from end to end."""
    end = len(subgraph.operators) - 1
    outside = {int(number) for number in (*subgraph.inputs, *subgraph.outputs)}
    first = dict.fromkeys(outside, 0)
    last = dict.fromkeys(outside, end)
    for place, operator in enumerate(subgraph.operators):
        for number in map(int, operator.outputs):
            first.setdefault(number, place)
            last.setdefault(number, place)
        for number in map(int, operator.inputs):
            if number not in constants and number not in outside:
                last[number] = place
    return [
        TensorLife(math.prod(map(int, np.asarray(subgraph.tensors[number].shape))), first[number], last[number])
        for number in first
    ]
