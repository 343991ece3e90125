"""What names on the command line can stand for, and the packages that these come from."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Final, NamedTuple

from cars_hw.config.data import DATA_SETS
from cars_hw.config.data import GROUP as DATA
from cars_hw.config.recipes import GROUP as RECIPE
from cars_hw.config.recipes import RECIPES, named_recipe
from cars_hw.devices.registry import GROUP as DEVICE
from cars_hw.devices.registry import KINDS
from cars_hw.errors import CarsHwError, InputError
from cars_hw.executors.engine import GROUP as EXECUTOR
from cars_hw.executors.engine import OWN_ENGINES, check_engine
from cars_hw.export.formats import FORMATS, export_format
from cars_hw.export.formats import GROUP as FORMAT
from cars_hw.pipeline.costs import COSTS, network_cost_of
from cars_hw.pipeline.costs import GROUP as COST
from cars_hw.plugins import load_plugin, plugin_names
from cars_hw.space.operations import GROUP as OPERATION
from cars_hw.space.operations import OPERATIONS
from cars_hw.tracking.trackers import GROUP as TRACKER
from cars_hw.tracking.trackers import OWN_TRACKERS, check_tracker

OWN: Final = "cars-hw"


class Extension(NamedTuple):
    """A name of a kind of things: ``package`` is where it comes from, with its version for other packages.

    ``detail`` describes it, or says why it cannot be used.
    """

    kind: str
    name: str
    package: str
    usable: bool
    detail: str


class _Kind(NamedTuple):
    """A kind: its entry points, the names of cars-hw, and what describes a name or raises CarsHwError."""

    name: str
    group: str
    own: tuple[str, ...]
    describe: Callable[[str], str]


def _device(name: str) -> str:
    if name in KINDS:
        return "cars-hw devices tells whether it can be used"
    made = load_plugin(DEVICE, name)
    return f"runs {getattr(made, 'model_format', 'files of no named format')} files"


def _data(name: str) -> str:
    if name in DATA_SETS:
        return "embedded" if name == "fashion-mini" else "fetched when asked for"
    made = load_plugin(DATA, name)
    if not callable(made):
        raise InputError(f"the data set {name} is a {type(made).__name__}, not a function")
    return _first_line(made.__doc__)


def _cost(name: str) -> str:
    cost = network_cost_of(name)
    return f"{cost.summary}, {cost.unit}"


def _recipe(name: str) -> str:
    recipe = named_recipe(name)
    return f"{recipe.epochs} epochs, batch {recipe.batch_size}, learning rate {recipe.learning_rate:g}"


def _format(name: str) -> str:
    written = export_format(name)
    return f"files *{written.suffix}, {', '.join(written.precisions)}"


def _operation(name: str) -> str:
    return OPERATIONS[name].title


def _executor(name: str) -> str:
    check_engine(name)
    return OWN_ENGINES.get(name) or _first_line(load_plugin(EXECUTOR, name).__doc__)


def _tracker(name: str) -> str:
    check_tracker(name)
    return OWN_TRACKERS.get(name) or _first_line(load_plugin(TRACKER, name).__doc__)


def _first_line(text: str | None) -> str:
    lines = (text or "").strip().splitlines()
    return lines[0] if lines else "not described"


KINDS_OF_NAMES: Final = (
    _Kind("device", DEVICE, tuple(KINDS), _device),
    _Kind("data", DATA, tuple(DATA_SETS), _data),
    _Kind("cost", COST, tuple(COSTS), _cost),
    _Kind("recipe", RECIPE, tuple(RECIPES), _recipe),
    _Kind("format", FORMAT, tuple(FORMATS), _format),
    _Kind("operation", OPERATION, OPERATIONS.own, _operation),
    _Kind("tracker", TRACKER, tuple(OWN_TRACKERS), _tracker),
    _Kind("executor", EXECUTOR, tuple(OWN_ENGINES), _executor),
)


def extensions() -> list[Extension]:
    """Return every name of a kind in :data:`KINDS_OF_NAMES`; plug-ins are imported."""
    found = []
    for kind in KINDS_OF_NAMES:
        others = [name for name in plugin_names(kind.group) if name not in kind.own]
        for name in (*kind.own, *others):
            package = OWN if name in kind.own else _package(kind.group, name)
            try:
                found.append(Extension(kind.name, name, package, True, kind.describe(name)))
            except CarsHwError as error:
                found.append(Extension(kind.name, name, package, False, str(error)))
    return found


def _package(group: str, name: str) -> str:
    """Return the packages that have a plug-in of this name, with their versions."""
    points = entry_points(group=group, name=name)
    known = (f"{point.dist.name} {point.dist.version}" for point in points if point.dist is not None)
    return ", ".join(dict.fromkeys(known))
