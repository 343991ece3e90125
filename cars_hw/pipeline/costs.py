"""The costs that a search can minimise besides latencies: those with a name, and those of plug-ins.

``--cost NAME`` minimises a cost, and ``--cost NAME=LIMIT`` keeps it within a limit, in the unit of the cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Final

from cars_hw.config.measurement import Precision
from cars_hw.errors import InputError
from cars_hw.evolution.objectives import CostObjective
from cars_hw.plugins import IMPORTABLE, called, load_plugin, plugin_names
from cars_hw.space.architecture import Architecture

GROUP: Final = "cars_hw.costs"
"""The group of the entry points of packages with costs of their own."""


@dataclass(frozen=True)
class NetworkCost:
    """A cost of a network: ``value`` of an architecture and the precision of its model, in ``unit``.

    The same architecture must always have the same value, a number that is not negative. Choose the unit so that
    networks differ by more than a thousandth of it.
    """

    unit: str
    summary: str
    value: Callable[[Architecture, Precision], float]


def _parameters(architecture: Architecture, _: Precision) -> float:
    from cars_hw.nn.cost import network_cost

    return network_cost(architecture.network, architecture.genotype).parameters / 1e6


def _multiply_adds(architecture: Architecture, _: Precision) -> float:
    from cars_hw.nn.cost import network_cost

    return network_cost(architecture.network, architecture.genotype).multiply_adds / 1e6


def _file_size(architecture: Architecture, precision: Precision) -> float:
    from cars_hw.export.memory import file_bytes

    return file_bytes(architecture, precision) / 1e6


def _peak_memory(architecture: Architecture, precision: Precision) -> float:
    from cars_hw.export.memory import activation_bytes

    return activation_bytes(architecture, precision) / 1e6


def _peak_memory_ort(architecture: Architecture, precision: Precision) -> float:
    from cars_hw.export.ort_memory import activation_bytes

    return activation_bytes(architecture, precision) / 1e6


def _energy(_architecture: Architecture, _: Precision) -> float:
    raise InputError("the energy of a network needs a latency table that has it", remedy="measure-energy")


ENERGY: Final = "energy"
"""The cost that a latency table predicts."""

COSTS: Final = {
    "parameters": NetworkCost("M", "parameters of the exported file", _parameters),
    "multiply-adds": NetworkCost("M", "multiply-adds of an image", _multiply_adds),
    "file-size": NetworkCost("MB", "the size of the TFLite file, without metadata", _file_size),
    "peak-memory": NetworkCost("MB", "the activations of the TFLite model: the size of its arena", _peak_memory),
    "peak-memory-ort": NetworkCost(
        "MB", "the activations of the ONNX model, as ONNX Runtime says", _peak_memory_ort
    ),
    ENERGY: NetworkCost("mJ", "the energy beyond rest on the device of a table that has it", _energy),
}
"""The costs that cars-hw has."""

COUNTED: Final = ("parameters", "multiply-adds")
"""The costs that every network of a front has in fields of their own."""


def cost_names() -> list[str]:
    """Return the names of all costs: those of cars-hw, and those of installed plug-ins."""
    return [*COSTS, *(name for name in plugin_names(GROUP) if name not in COSTS)]


def parse_cost(text: str) -> tuple[str, float | None]:
    """Return the name and the limit in ``text``: ``peak-memory``, or ``peak-memory=0.5``.

    Raises:
        InputError: the limit is no number above zero.
    """
    name, equals, limit = text.partition("=")
    if not equals:
        return name, None
    try:
        value = float(limit)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"the limit of the cost {name} must be a number above zero, not {limit!r}")
    return name, value


def network_cost_of(name: str) -> NetworkCost:
    """Return the cost called ``name``, or the one that ``package.module:NAME`` says how to import.

    Raises:
        InputError: there is none, or it is no NetworkCost.
    """
    if name in COSTS:
        return COSTS[name]
    if not IMPORTABLE.fullmatch(name) and name not in plugin_names(GROUP):
        raise InputError(
            f"unknown cost '{name}'; known: {', '.join(cost_names())}, those of installed plug-ins, and "
            "package.module:NAME"
        )
    found = load_plugin(GROUP, name)
    if not isinstance(found, NetworkCost):
        raise InputError(f"the cost {name} is a {type(found).__name__}, not a cars_hw.NetworkCost")
    return found


def unit_of(name: str) -> str:
    """Return the unit of the cost ``name``; empty where no installed package has it.

    A module that only ``name`` names is not imported: to look at a run must not execute what the run says.
    """
    if name not in COSTS and name not in plugin_names(GROUP):
        return ""
    try:
        return network_cost_of(name).unit
    except InputError:
        return ""


def named_objective(text: str, precision: Precision) -> CostObjective:
    """Return the objective of ``text``, a name with or without a limit, for models of ``precision``.

    Raises:
        InputError: see :func:`parse_cost` and :func:`network_cost_of`; and later, a value that is no number.
    """
    name, limit = parse_cost(text)
    cost = network_cost_of(name)
    known: dict[object, float] = {}

    def value(architecture: Architecture) -> float:
        key = architecture.key()
        if key not in known:
            known[key] = _checked(name, called(f"the cost {name}", lambda: cost.value(architecture, precision)))
        return known[key]

    return CostObjective(name=name, unit=cost.unit, value=value, limit=limit)


def _checked(name: str, value: object) -> float:
    number = float(value) if isinstance(value, Real) else math.nan
    if not 0 <= number < math.inf:
        raise InputError(f"the cost {name} of a network is {value!r}, which is no number of at least zero")
    return number
