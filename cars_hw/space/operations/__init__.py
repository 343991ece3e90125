"""The candidate operations, one file each, and the table of them. Importing it loads no torch."""

from __future__ import annotations

from typing import Final

from cars_hw.space.operations.avg_pool_3x3 import AvgPool3x3
from cars_hw.space.operations.dil_conv import DilConv3x3, DilConv5x5
from cars_hw.space.operations.max_pool_3x3 import MaxPool3x3
from cars_hw.space.operations.none import NONE, NoOperation
from cars_hw.space.operations.operation import Operation
from cars_hw.space.operations.sep_conv import SepConv3x3, SepConv5x5
from cars_hw.space.operations.skip_connect import SkipConnect

__all__ = ["NONE", "OPERATIONS", "Operation", "real_operations"]

OPERATIONS: Final[dict[str, Operation]] = {
    operation.name: operation
    for operation in (
        NoOperation(),
        MaxPool3x3(),
        AvgPool3x3(),
        SkipConnect(),
        SepConv3x3(),
        SepConv5x5(),
        DilConv3x3(),
        DilConv5x5(),
    )
}
"""Every operation by its name, in the order of DARTS.

The order is part of an architecture's encoding: a new operation is a file like the others and an entry at the end.
"""


def real_operations() -> tuple[str, ...]:
    """Return the names of all operations but ``none``, in their order."""
    return tuple(name for name in OPERATIONS if name != NONE)
