"""The operations of cells, one file each, and the table of them. Importing it loads no torch.

Packages add operations of their own by entry points of the group :data:`GROUP`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from cars_hw.errors import InputError
from cars_hw.plugins import called, load_plugin, plugin_names
from cars_hw.space.operations.avg_pool_3x3 import AvgPool3x3
from cars_hw.space.operations.bottleneck import Conv3x3, Conv7x1And1x7
from cars_hw.space.operations.conv_1x1 import Conv1x1
from cars_hw.space.operations.dil_conv import DilConv3x3, DilConv5x5
from cars_hw.space.operations.max_pool_3x3 import MaxPool3x3
from cars_hw.space.operations.none import NONE, NoOperation
from cars_hw.space.operations.operation import Operation
from cars_hw.space.operations.sep_conv import SepConv3x3, SepConv5x5, SepConv7x7
from cars_hw.space.operations.skip_connect import SkipConnect

__all__ = ["GROUP", "NONE", "OPERATIONS", "Operation", "OperationTable"]

NAME: Final = re.compile(r"[A-Za-z]\w{0,39}", re.ASCII)
"""What an operation may be called: its name is a part of the names of a latency table."""

GROUP: Final = "cars_hw.operations"
"""The group of the entry points of packages with operations of their own."""


class OperationTable(Mapping[str, Operation]):
    """Operations by their names: ``own`` ones, and behind them those of installed packages.

    ``own`` has the names of the former. A package is imported when one of its operations is looked up for the first
    time, and not before.
    """

    def __init__(self, own: tuple[Operation, ...]) -> None:
        self._known = {operation.name: operation for operation in own}
        self.own = tuple(self._known)
        # What a package is asked for often is not there: kinds of op keys that are no operations.
        self._installed: dict[tuple[str, ...], tuple[str, ...]] = {}

    def _plugins(self) -> tuple[str, ...]:
        """Return the names in installed packages, which are read again only if Python's path has changed."""
        path = tuple(sys.path)
        if path not in self._installed:
            self._installed = {path: tuple(name for name in plugin_names(GROUP) if name not in self.own)}
        return self._installed[path]

    def __getitem__(self, name: str) -> Operation:
        """Return the operation called ``name``.

        Raises:
            KeyError: there is none.
            InputError: a package names one that is no operation, or has another name.
        """
        found = self._known.get(name)
        if found is None:
            if name not in self._plugins():
                raise KeyError(name)
            found = self._known[name] = _loaded(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._known or name in self._plugins()

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self._plugins()

    def __len__(self) -> int:
        return len(self.own) + len(self._plugins())


def _loaded(name: str) -> Operation:
    value = load_plugin(GROUP, name)
    if inspect.isclass(value):
        value = called(f"the operation {name}", value)
    if not isinstance(value, Operation):
        raise InputError(f"the operation {name} is a {type(value).__name__}, not a cars_hw.Operation")
    if not NAME.fullmatch(value.name):
        raise InputError(f"the operation {value.name!r} must have a name of letters, digits and _, 40 at most")
    if value.name != name:
        raise InputError(f"the operation {value.name} has the name {name} in the entry points of its package")
    return value


OPERATIONS: Final = OperationTable(
    (
        NoOperation(),
        MaxPool3x3(),
        AvgPool3x3(),
        SkipConnect(),
        SepConv3x3(),
        SepConv5x5(),
        DilConv3x3(),
        DilConv5x5(),
        SepConv7x7(),
        Conv1x1(),
        Conv3x3(),
        Conv7x1And1x7(),
    )
)
"""Every operation by its name: the eight of DARTS in its order, and those of other families of cells.

:mod:`cars_hw.space.families` says which of them cells of a family have.
"""
