"""Options from the fields of settings classes, and ``--config FILE``.

:func:`settings_options` adds an option for each field that it is given, and hands the command the settings object.
A value comes from the first of these that has it: the option, the file, the settings behind a name such as that of
``--preset``, the run, the default of the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from cars_hw.cli.completion import complete_data, complete_devices, complete_references
from cars_hw.cli.hints import message_of
from cars_hw.cli.options import FILE, FOLDER, GENOTYPE, LATENCY, MEMORY, RESOLUTION, STATE, Command, Named
from cars_hw.config.setting import Field, Setting, fields_of, leaves
from cars_hw.errors import InputError
from cars_hw.plugins import IMPORTABLE, plugin_names

if TYPE_CHECKING:
    from cars_hw.space.network_spec import NetworkSpec

Plain = dict[str, Any]

_GIVEN: Final = "cars_hw.given"
_OPTIONS: Final = "cars_hw.options"

COMPLETIONS: Final = {
    "--data": complete_data,
    "--device": complete_devices,
    "--reference": complete_references,
}


class OpenChoice(click.Choice[str]):
    """A choice to which installed packages add names by the entry points of ``group``; ``package.module:NAME`` is
    one, too."""

    def __init__(self, choices: Sequence[str], group: str) -> None:
        super().__init__(choices)
        self._group = group

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return the names of cars-hw, and dots for others."""
        return f"{(super().get_metavar(param, ctx) or '').removesuffix(']')}|...]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return ``value`` if it is one of the names."""
        if IMPORTABLE.fullmatch(value) or value in plugin_names(self._group):
            return value
        return super().convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return all names that begin with ``incomplete``."""
        del ctx, param
        names = dict.fromkeys((*self.choices, *plugin_names(self._group)))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@dataclass(frozen=True)
class Base:
    """An option whose value is a name that stands for several settings, such as ``--preset``.

    ``path`` is its key in a file, ``groups`` are the settings that it stands for, and ``label`` is what their help
    says of their default. ``plugins`` is the group of entry points that have further names, if there is one.
    ``plain`` returns the settings for a name. Given on the command line, the base replaces
    these groups of the file; other options override it.
    """

    path: str
    option: str
    choices: tuple[str, ...]
    help: str
    plain: Callable[[str], Mapping[str, Any]]
    groups: tuple[str, ...]
    label: str
    default: str | None = None
    plugins: str = ""

    @property
    def parameter(self) -> str:
        """The name of the parameter."""
        return f"base__{self.path.replace('.', '__')}"

    def add(self, command: Command) -> Command:
        """Add the option to ``command``."""
        shown: Plain = {"default": self.default, "show_default": True} if self.default is not None else {}
        kind = OpenChoice(self.choices, self.plugins) if self.plugins else click.Choice(self.choices)
        return click.option(self.option, self.parameter, type=kind, help=self.help, **shown)(command)


@dataclass(frozen=True)
class Converted:
    """An option that is no field: ``plain`` makes settings of its value and of the settings so far."""

    parameter: str
    plain: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Options:
    """What :func:`settings_options` adds to a command.

    ``paths`` are those fields of ``cls`` that have an option. ``run`` returns settings of the run that the
    arguments name. ``help`` replaces the help of fields, and of ``config``. ``completed`` returns changes of all
    settings, wherever they came from.
    """

    cls: type
    paths: tuple[str, ...]
    bases: tuple[Base, ...] = ()
    converted: tuple[Converted, ...] = ()
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    help: Mapping[str, str] = field(default_factory=dict)
    completed: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None

    def label(self, path: str) -> str | None:
        """Return what the help of ``path`` says of its default, if a base has it."""
        groups = {group: base.label for base in self.bases for group in base.groups}
        return groups.get(path.partition(".")[0])


def settings_options(
    cls: type,
    *paths: str,
    bases: tuple[Base, ...] = (),
    converted: tuple[Converted, ...] = (),
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    help: Mapping[str, str] | None = None,
    file: bool = True,
    completed: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Callable[[Command], Command]:
    """Return the decorator that adds options for ``paths``, fields of ``cls``.

    The command gets ``settings``, and an option ``--config`` unless it takes no ``file``.
    """
    wanted = Options(cls, paths, bases, converted, run, help or {}, completed)
    known = dict(leaves(cls))

    def decorate(command: Any) -> Any:  # noqa: ANN401 -- a function and its wrapper
        @wraps(command)
        def wrapper(**parameters: Any) -> Any:  # noqa: ANN401 -- the command's
            context = click.get_current_context()
            names = {_parameter(path) for path in paths} | {base.parameter for base in bases}
            names |= {one.parameter for one in converted} | {"config"}
            rest = {name: value for name, value in parameters.items() if name not in names}
            explicit = {
                name: value
                for name, value in parameters.items()
                if name in names and context.get_parameter_source(name) is not ParameterSource.DEFAULT
            }
            return command(settings=_settings(wanted, explicit, parameters, context), **rest)

        about = "Read settings of this command from this TOML file; options override it."
        if file:
            wrapper = click.option("--config", type=FILE, help=wanted.help.get("config", about))(wrapper)
        for base in reversed(bases):
            wrapper = base.add(wrapper)
        for path in reversed(paths):
            wrapper = _option(wanted, path, known[path])(wrapper)
        return wrapper

    return decorate


def given_paths() -> frozenset[str]:
    """Return the paths of the settings that the present command was given, by options or in its ``--config``."""
    found: frozenset[str] = click.get_current_context().meta[_GIVEN]
    return found


def given_options() -> Mapping[str, str]:
    """Return the settings that have an option on the command line: the name of the option by their path."""
    found: Mapping[str, str] = click.get_current_context().meta[_OPTIONS]
    return found


def _parameter(path: str) -> str:
    return path.replace(".", "__")


def _option(wanted: Options, path: str, one: Field) -> Callable[[Command], Command]:
    about, label = one.setting, wanted.label(path)
    name = _option_name(one)
    text = wanted.help.get(path, about.help)
    extra: Plain = {}
    default = _default(wanted.cls, path)
    if label is not None:
        text += f" [{label}]"
    elif default is MISSING and wanted.run is None:
        text += " [required, here or in --config]"
    elif not any(default is one for one in (None, MISSING, False, ())):
        extra = {"default": list(default) if one.many else default, "show_default": True}
    if one.type is bool and "/" not in name:
        extra["is_flag"] = True
    elif one.type is not bool:
        extra["type"] = _click_type(one.type, about)
    if about.metavar:
        extra["metavar"] = about.metavar
    if name in COMPLETIONS:
        extra["shell_complete"] = COMPLETIONS[name]
    return click.option(name, _parameter(path), multiple=one.many, help=text, **extra)


def _default(cls: type, path: str) -> Any:  # noqa: ANN401 -- any default
    """Return the default of the field at ``path``, MISSING where the field or what holds it has none."""
    name, _, rest = path.partition(".")
    one = fields_of(cls)[name]
    if not rest:
        return one.default
    if one.default in (MISSING, None):
        return _default(one.type, rest)
    value = one.default
    for part in rest.split("."):
        value = getattr(value, part)
    return value


def _click_type(kind: Any, about: Setting) -> click.ParamType[Any]:  # noqa: ANN401 -- any type
    if about.kind:
        return {"latency": LATENCY, "genotype": GENOTYPE, "state": STATE, "memory": MEMORY}[about.kind]
    if about.choices:
        return click.Choice(tuple(about.choices))
    if kind is Path:
        return FOLDER if about.folder else FILE
    if get_origin(kind) is tuple and get_args(kind) == (int, int):
        return RESOLUTION
    return _number_type(kind, about) if kind in (int, float) else click.STRING


class _WholeNumber(click.IntRange):
    """A whole number within bounds. What is none, such as 4..8, is not called an invalid range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Return the number that ``value`` says."""
        if isinstance(value, str) and not re.fullmatch(r"\s*[+-]?\d+\s*", value):
            self.fail(f"'{value}' is not one whole number", param, ctx)
        return super().convert(value, param, ctx)


def _number_type(kind: type, about: Setting) -> click.ParamType[Any]:
    low = about.minimum if about.above is None else about.above
    high = about.maximum if about.below is None else about.below
    if kind is int:
        return _WholeNumber(None if low is None else int(low), None if high is None else int(high))
    return click.FloatRange(low, high, min_open=about.above is not None, max_open=about.below is not None)


def _settings(wanted: Options, explicit: Plain, parameters: Plain, context: click.Context) -> Any:  # noqa: ANN401
    """Return the settings object; see the module for where its values come from."""
    from cars_hw.config.codec import structure, unstructure
    from cars_hw.config.toml import merged, read_settings

    path: Path | None = parameters.get("config")
    try:
        file = {} if path is None else read_settings(path, wanted.cls, [base.path for base in wanted.bases])
        values: Plain = dict(wanted.run(parameters)) if wanted.run is not None else {}
        for base in wanted.bases:
            known = fields_of(wanted.cls)
            named = _based(base, file, explicit)
            # An experiment has not all that a preset sets: no final stage.
            values = merged(values, {name: value for name, value in named.items() if name in known})
        values = merged(values, file)
    except InputError as error:
        raise (click.UsageError(message_of(error), context) if path is not None else error) from error
    context.meta[_GIVEN] = frozenset(
        one for one, _ in leaves(wanted.cls) if _parameter(one) in explicit or _has(file, one)
    )
    known = dict(leaves(wanted.cls))
    context.meta[_OPTIONS] = {one: _option_name(known[one]) for one in wanted.paths if _parameter(one) in explicit}
    for one in wanted.paths:
        if _parameter(one) in explicit:
            value = explicit[_parameter(one)]
            plain = unstructure(value.genotype if isinstance(value, Named) else value)
            values = merged(values, _nested(one, plain))
    for change in wanted.converted:
        if change.parameter in explicit:
            values = merged(values, change.plain(explicit[change.parameter], values))
    if wanted.completed is not None:
        values = merged(values, wanted.completed(values))
    _require(wanted, values, context)
    try:
        return structure(values, wanted.cls, complete=False)
    except InputError as error:
        if path is None:
            raise
        raise click.UsageError(f"{path}: {message_of(error)}", context) from error


def _based(base: Base, file: Plain, explicit: Plain) -> Mapping[str, Any]:
    """Return the settings behind the name of ``base``, which is taken out of ``file``."""
    name = _pop(file, base.path) or base.default
    if base.parameter in explicit:
        name = explicit[base.parameter]
        for group in base.groups:
            file.pop(group, None)
    return {} if name is None else base.plain(name)


def _require(wanted: Options, values: Plain, context: click.Context) -> None:
    known = dict(leaves(wanted.cls))
    for path in wanted.paths:
        required = (
            _default(wanted.cls, path) is MISSING and not fields_of(wanted.cls)[path.partition(".")[0]].optional
        )
        if required and not _has(values, path):
            raise click.UsageError(f"Missing option '{_option_name(known[path])}'.", context)


def _option_name(one: Field) -> str:
    return one.setting.option or f"--{one.name.replace('_', '-')}"


def _nested(path: str, value: Any) -> Plain:  # noqa: ANN401 -- JSON's own types
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def _has(values: Mapping[str, Any], path: str) -> bool:
    name, _, rest = path.partition(".")
    return name in values and (not rest or _has(values[name], rest))


def _pop(values: Plain, path: str) -> str | None:
    name, _, rest = path.partition(".")
    if rest:
        return _pop(values[name], rest) if name in values else None
    found: str | None = values.pop(name, None)
    return found


def _network_plain(name: str) -> Mapping[str, Any]:
    from cars_hw.config.codec import unstructure
    from cars_hw.space.network_spec import named_network

    return {"network": unstructure(named_network(name))}


def _preset_plain(name: str) -> Mapping[str, Any]:
    from cars_hw.config.codec import unstructure
    from cars_hw.config.presets import named_preset

    plain: Plain = unstructure(named_preset(name))
    del plain["summary"]
    return plain


def _recipe_plain(name: str) -> Mapping[str, Any]:
    from cars_hw.config.codec import unstructure
    from cars_hw.config.recipes import named_recipe

    return {"recipe": unstructure(named_recipe(name))}


NETWORK_PATHS: Final = (
    "network.channels",
    "network.layers",
    "network.resolution",
    "network.in_channels",
    "network.classes",
    "network.family",
)
SIZE_PATHS: Final = ("network.channels", "network.layers", "network.resolution")
"""Those of them that profile and search take several values of."""

NETWORK: Final = Base(
    path="network.name",
    option="--network",
    choices=("cifar", "imagenet", "quick", "tiny"),
    help="Specification of the exported network: cifar and imagenet are those of the paper; quick and tiny are "
    "small, for grey images of 28x28 and of 14x14 pixels.",
    plain=_network_plain,
    groups=("network",),
    label="--network's",
    default="quick",
)
PRESET: Final = Base(
    path="preset",
    option="--preset",
    choices=("quick", "cifar", "paper"),
    help="quick: minutes on a CPU; cifar: hours on a GPU; paper: the paper's settings.",
    plain=_preset_plain,
    groups=("evolution", "training", "recipe", "final", "supernet_channels", "supernet_layers"),
    label="the preset's",
    default="quick",
)
RECIPE: Final = Base(
    path="recipe.name",
    option="--recipe",
    choices=("cifar10-darts", "imagenet-cars"),
    plugins="cars_hw.recipes",
    help="A published recipe, one of an installed package, or package.module:NAME. [that of the run's preset]",
    plain=_recipe_plain,
    groups=("recipe",),
    label="the recipe's",
)


MOVED: Final = {
    "data.source": "The folder of the run's images, if it was moved. The images must be the same. "
    "[where the search found them]"
}
"""The help of ``--data`` in the steps after a search."""


def require_supernet(network: NetworkSpec, layers: int | None) -> None:
    """Refuse ``layers`` of the SuperNet that were given, not by a preset, for blocks: these have the network's."""
    if network.blocks is None or "supernet_layers" not in given_paths() or layers in (None, network.layers):
        return
    raise click.UsageError(
        f"supernet_layers = {layers} is for cells: a SuperNet of blocks has the {network.layers} blocks of the "
        "network; leave it out"
    )


def run_of(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the steps that go on with a search take from its run: the search's images, and the recipe."""
    from cars_hw.config.codec import unstructure
    from cars_hw.pipeline.plan import recipe_of
    from cars_hw.pipeline.run_folder import RunFolder

    run = RunFolder.open(parameters["run_path"])
    return {"data": unstructure(run.data.source), "recipe": unstructure(recipe_of(run))}


def run_of_networks(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the steps that train networks take from their run: the networks' images, and the recipe."""
    from cars_hw.config.codec import unstructure
    from cars_hw.pipeline.plan import recipe_of
    from cars_hw.pipeline.run_folder import RunFolder

    run = RunFolder.open(parameters["run_path"])
    return {"data": unstructure(run.training_data.source), "recipe": unstructure(recipe_of(run))}
