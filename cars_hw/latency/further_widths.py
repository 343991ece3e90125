"""Further numbers of channels for operations that are estimated badly from the measured ones.

A table over sizes has operations of some numbers of channels, and a regression estimates the others. Operations
that are left out show how large its error is. Where it is large, a profile measures operations at further numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cars_hw.latency.keys import OpKey, spec_keys
from cars_hw.latency.operation_costs import kind_name
from cars_hw.latency.table import LatencyTable

LARGE_ERROR: Final = 0.1
"""A kind of operations whose estimates have a larger mean error, a fraction, is measured at further numbers."""

Missing = dict[str, dict[int, list[OpKey]]]
"""By the name of a kind and the number of channels: the operations that were not measured."""


def estimated_kinds(table: LatencyTable) -> dict[str, float]:
    """Return the mean relative error of each kind of operations that ``table`` estimates, the largest first.

    Kinds that were measured at all numbers of channels of the table are left out: nothing of them is estimated.
    """
    if table.sizes is None:
        return {}
    missing = _missing(table)
    return {name: error for name, error in table.operation_costs.left_out_errors().items() if name in missing}


def further_operations(table: LatencyTable, most: int) -> list[OpKey]:
    """Return the operations that are to be measured next, at most ``most``.

    They are those of the kinds with an error above :data:`LARGE_ERROR`, the kind with the largest error first. Of
    each kind, the number of channels in the middle of every gap between measured numbers is chosen. All operations
    of a number are measured together, or none.
    """
    missing = _missing(table)
    chosen: list[OpKey] = []
    for name, error in estimated_kinds(table).items():
        if error <= LARGE_ERROR:
            break
        for channels in _middles(table, missing[name]):
            if len(chosen) + len(missing[name][channels]) > most:
                return chosen
            chosen += missing[name][channels]
    return chosen


def further_channels(table: LatencyTable) -> dict[str, tuple[int, ...]]:
    """Return the numbers of channels at which kinds of operations were measured beyond those of every table."""
    if table.sizes is None:
        return {}
    first = {key for network in table.sizes.measured_networks(table.spec) for key in spec_keys(network)}
    found: dict[str, list[int]] = {}
    for channels in table.sizes.channels:
        further = [key for key in _keys(table, channels) if str(key) in table.entries and key not in first]
        for name in dict.fromkeys(map(kind_name, further)):
            found.setdefault(name, []).append(channels)
    return {name: tuple(channels) for name, channels in found.items()}


def _missing(table: LatencyTable) -> Missing:
    assert table.sizes is not None
    missing: Missing = {}
    for channels in table.sizes.channels:
        for key in _keys(table, channels):
            if str(key) not in table.entries:
                missing.setdefault(kind_name(key), {}).setdefault(channels, []).append(key)
    return missing


def _keys(table: LatencyTable, channels: int) -> tuple[OpKey, ...]:
    """Return the operations of networks with ``channels``: those with the fewest and with the most cells.

    The networks have the largest resolution, from which a table knows what a runtime does with numbers of channels.
    """
    assert table.sizes is not None
    ends = (table.sizes.layers[0], table.sizes.layers[-1])
    layers, resolutions = tuple(dict.fromkeys(ends)), table.sizes.resolutions[-1:]
    grid = replace(table.sizes, channels=(channels,), layers=layers, resolutions=resolutions)
    return tuple(dict.fromkeys(key for network in grid.networks(table.spec) for key in spec_keys(network)))


def _middles(table: LatencyTable, missing: dict[int, list[OpKey]]) -> Sequence[int]:
    """Return the middle of the ``missing`` numbers in every gap between measured ones, the widest gap first."""
    assert table.sizes is not None
    measured = [channels for channels in table.sizes.channels if channels not in missing]
    gaps = sorted(itertools.pairwise(measured), key=lambda gap: (gap[0] / gap[1], gap))
    found = []
    for low, high in gaps:
        between = [channels for channels in missing if low < channels < high]
        if between:
            aim = math.sqrt(low * high)
            found.append(min(between, key=lambda channels: (abs(math.log(channels / aim)), channels)))
    return found
