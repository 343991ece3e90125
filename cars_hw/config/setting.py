"""A setting: a field of a frozen dataclass that carries its help text, unit, bounds and choices.

Everything that shows or checks a setting reads this metadata: the bounds check of :class:`Settings`, the
command-line options (:mod:`cars_hw.cli.options`), ``--config FILE``, the JSON and TOML codec
(:mod:`cars_hw.config.codec`), and the pages of the documentation.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Collection, Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Final, Literal, NamedTuple, get_args, get_origin

from cars_hw.errors import InputError

_KEY: Final = "setting"

NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,99}")
"""What a network may be called: its name becomes the name of files, a cell of a table and a word of a command.

The part behind a ``@`` is the number of a further training of one network: ``net-01@2``.
"""


@dataclass(frozen=True)
class Setting:
    """What is known of a setting besides its type and default.

    ``minimum`` and ``maximum`` are allowed values, ``above`` and ``below`` are excluded ones. ``option`` is the
    name of the command-line option, where that differs from the name of the field, and ``metavar`` what stands for
    its value in a usage line. ``folder`` marks a path that is a folder and not a file. ``kind`` is the notation of
    a value on the command line, where the type alone does not tell it. ``name`` marks a text that becomes a part
    of a file's name: see :data:`NAME`.
    """

    help: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Collection[str] = ()
    option: str = ""
    metavar: str = ""
    folder: bool = False
    kind: Literal["", "latency", "genotype", "state", "memory"] = ""
    name: bool = False

    def problem(self, value: Any) -> str | None:  # noqa: ANN401 -- whatever the field holds
        """Return what is wrong with ``value``, or None: ``must be at least 1, not 0``."""
        if (problem := self._problem_of_text(value)) is not None:
            return problem
        # Each test is written so that NaN fails it.
        if self.minimum is not None and not value >= self.minimum:
            return f"must be at least {self.minimum:g}, not {value}"
        if self.maximum is not None and not value <= self.maximum:
            return f"must be at most {self.maximum:g}, not {value}"
        if self.above is not None and not value > self.above:
            return f"must be above {self.above:g}, not {value}"
        if self.below is not None and not value < self.below:
            return f"must be below {self.below:g}, not {value}"
        return None

    def _problem_of_text(self, value: Any) -> str | None:  # noqa: ANN401 -- whatever the field holds
        if self.name and not NAME.fullmatch(value):
            return f"must be a name of letters, digits and . _ + @ -, not {value!r}"
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}, not {value!r}"
        return None


def setting(
    default: Any = MISSING,  # noqa: ANN401 -- as dataclasses.field
    *,
    factory: Callable[[], Any] | None = None,
    **about: Any,  # noqa: ANN401 -- the fields of Setting, which checks them
) -> Any:  # noqa: ANN401 -- as dataclasses.field
    """Return a dataclass field with ``about``, the fields of :class:`Setting`, as its metadata."""
    metadata = {_KEY: Setting(**about)}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def fraction(default: Any = MISSING) -> Any:  # noqa: ANN401 -- as dataclasses.field
    """Return a field for a fraction from 0 to 1."""
    return setting(default, minimum=0, maximum=1)


def milliseconds(default: Any = MISSING) -> Any:  # noqa: ANN401 -- as dataclasses.field
    """Return a field for a latency: a femtosecond at least, eleven days at most."""
    return setting(default, unit="ms", minimum=1e-12, maximum=1e9)


def predicted(default: Any = MISSING) -> Any:  # noqa: ANN401 -- as dataclasses.field
    """Return a field for a predicted latency, which a poor predictor may place below zero."""
    return setting(default, unit="ms", minimum=-1e9, maximum=1e9)


def count(default: Any = MISSING, *, minimum: int = 0) -> Any:  # noqa: ANN401 -- as dataclasses.field
    """Return a field for a number of things."""
    return setting(default, minimum=minimum, maximum=10**15)


MOST_SEED: Final = 2**63 - 1
"""The largest seed of a command: torch's generators take one more bit, and some generators have the next seeds."""


def seed_field() -> Any:  # noqa: ANN401 -- as dataclasses.field
    """Return a field for a seed, as torch's generators take them."""
    return setting(minimum=0, maximum=2**64 - 1)


class Field(NamedTuple):
    """A field of a settings class, its type resolved.

    ``type`` is the type without ``None``; ``optional`` says whether None is allowed, ``many`` whether the field
    is a tuple of any number of ``type``. ``default`` is MISSING where a value has to be given.
    """

    name: str
    type: Any
    optional: bool
    many: bool
    default: Any
    setting: Setting

    @property
    def nested(self) -> bool:
        """Whether the field holds another settings class; what has a notation of its own is a leaf."""
        return is_dataclass(self.type) and not self.many and not self.setting.kind

    @property
    def tables(self) -> bool:
        """Whether the field holds any number of objects of another settings class."""
        return is_dataclass(self.type) and self.many

    def check(self, value: Any) -> str | None:  # noqa: ANN401 -- whatever the field holds
        """Return what is wrong with ``value``, or None."""
        if value is None and self.optional:
            return None
        for one in value if self.many else (value,):
            problem = self.setting.problem(one)
            if problem is not None:
                return problem
        return None


_FIELDS: dict[type, dict[str, Field]] = {}


def fields_of(cls: type) -> dict[str, Field]:
    """Return the fields of the dataclass ``cls`` by name; one without metadata has an empty :class:`Setting`."""
    # Types are resolved once: a settings object is checked whenever it is built.
    if cls not in _FIELDS:
        _FIELDS[cls] = _resolved(cls)
    return _FIELDS[cls]


def _resolved(cls: type[Any]) -> dict[str, Field]:
    hints = typing.get_type_hints(cls)
    found = {}
    for one in fields(cls):
        kind, optional = _without_none(hints[one.name])
        arguments = get_args(kind)
        many = get_origin(kind) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis
        if many:
            kind = arguments[0]
        about: Setting = one.metadata.get(_KEY, Setting(""))
        if get_origin(kind) is Literal:
            about = Setting(**{**about.__dict__, "choices": get_args(kind)})
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        found[one.name] = Field(one.name, kind, optional, many, default, about)
    return found


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Yield the settings of ``cls`` and of those that it holds, each by its path such as ``evolution.epochs``."""
    for name, one in fields_of(cls).items():
        if one.nested:
            yield from leaves(one.type, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", one


def _without_none(hint: Any) -> tuple[Any, bool]:  # noqa: ANN401 -- any type
    if get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    rest = [one for one in get_args(hint) if one is not type(None)]
    return (rest[0] if len(rest) == 1 else hint), len(rest) < len(get_args(hint))


class Settings:
    """Base of the settings classes: checks every field against its bounds and choices when it is built.

    Raises:
        InputError: a value is out of bounds; the message names the field. A subclass can name another error.
    """

    out_of_bounds: ClassVar[type[InputError]] = InputError

    def __post_init__(self) -> None:
        for name, one in fields_of(type(self)).items():
            problem = one.check(getattr(self, name))
            if problem is not None:
                raise self.out_of_bounds(f"{name} {problem}")
