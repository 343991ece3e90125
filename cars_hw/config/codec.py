"""The codec: frozen dataclasses to plain values for JSON and TOML, and back with every leaf checked.

Fields are read by their types. A missing, unknown, mistyped or out-of-bounds leaf ends in one line that names its
path: ``run/run.json: network.layers must be a whole number, not '5'``. A class can have properties written beside
its fields by naming them in ``DERIVED``, and other names for its fields in ``PLAIN_NAMES``. Fields that files of
earlier versions lack are named in ``ADDED``; a file without them has their defaults. Fields in ``OPTIONAL`` are
read alike, and are not written where they have their defaults. A class with a form of its own is registered by
:func:`register`.

cattrs does the walking; it is imported at the first use, since every command imports this module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_args, get_origin

from cars_hw.errors import CarsHwError, InputError

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")


@dataclass(frozen=True)
class _Form:
    to_plain: Callable[[Any], Any]
    from_plain: Callable[[Any], Any]


_FORMS: dict[type, _Form] = {}


def register(cls: type[T], *, to_plain: Callable[[T], Any], from_plain: Callable[[Any], T]) -> None:
    """Give ``cls`` a form of its own; ``from_plain`` raises InputError for what it cannot read."""
    _FORMS[cls] = _Form(to_plain, from_plain)


def registered() -> frozenset[type]:
    """Return the classes with a form of their own."""
    return frozenset(_FORMS)


def unstructure(value: Any) -> Any:  # noqa: ANN401 -- any record
    """Return ``value`` in JSON's own types: objects, lists, texts, numbers, truth values and None."""
    return _converter(True).unstructure(value)


class _PathError(InputError):
    """An error whose message begins with the path of a leaf."""


def structure(
    value: Any,  # noqa: ANN401 -- whatever a file holds
    cls: type[T],
    where: str = "",
    error: type[CarsHwError] = InputError,
    *,
    complete: bool = True,
) -> T:
    """Return the ``cls`` that ``value`` holds, as :func:`unstructure` wrote it.

    Every field has to be there if it is ``complete``, as in JSON; otherwise fields have their defaults, as in TOML,
    which has no None.

    Raises:
        CarsHwError: of the class ``error``: a leaf is missing, unknown, mistyped or out of its bounds; the message
            is one line that begins with ``where``, the name of the file, and the path of the leaf.
    """
    from cattrs.errors import BaseValidationError

    try:
        return _converter(complete).structure(value, cls)
    except BaseValidationError as found:
        problem, first = _problem(found, ""), _first(found)
    except (CarsHwError, RecursionError) as found:
        problem, first = str(found), found
    if not where and error is InputError:
        # A registered form reads its parts by this function: the path goes on from there.
        kind = InputError if problem.startswith("must be ") else _PathError
        raise kind(problem, remedy=first.remedy, **first.about) if isinstance(first, CarsHwError) else kind(problem)
    raise error(f"{where}: {problem}" if where else problem)


def read_json(path: Path, error: type[CarsHwError] = InputError) -> dict[str, Any]:
    """Return the object that the JSON file ``path`` holds; it has no checksum.

    Raises:
        CarsHwError: of the class ``error``: the file cannot be read, or is not a JSON object.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except OSError as found:
        raise error(f"cannot read {path}: {found.strerror}") from found
    except ValueError as found:
        raise error(f"{path} is not JSON: {found}") from found
    if not isinstance(content, dict):
        raise error(f"{path} does not hold a JSON object")
    return content


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 -- whatever JSON can hold
    """Return the value in ``text``, which a file holds that anybody may have changed.

    Raises:
        ValueError: it is not JSON, it has a number that JSON has not, such as NaN, or it is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as found:
        raise ValueError(f"it is nested too deeply ({found})") from found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _first(error: Exception) -> Exception:
    """Return the exception behind the first problem in the tree of ``error``."""
    from cattrs.errors import BaseValidationError

    while isinstance(error, BaseValidationError):
        error = error.exceptions[0]
    return error


def _problem(error: Exception, path: str) -> str:
    """Return the first problem in the tree of ``error`` as ``path.of.the.leaf must be ...``."""
    from cattrs.errors import (
        AttributeValidationNote,
        BaseValidationError,
        ForbiddenExtraKeysError,
        IterableValidationNote,
    )

    if isinstance(error, BaseValidationError):
        first = error.exceptions[0]
        for note in getattr(first, "__notes__", ()):
            if isinstance(note, AttributeValidationNote):
                path = f"{path}.{note.name}" if path else note.name
            elif isinstance(note, IterableValidationNote):
                path = f"{path}[{note.index}]"
        # A bounds check begins its message with the name of the field.
        if isinstance(first, InputError) and str(first).split(" ")[0] in getattr(error.cl, "__annotations__", ()):
            first = _PathError(str(first))
        return _problem(first, path)
    if isinstance(error, ForbiddenExtraKeysError):
        name = sorted(map(str, error.extra_fields))[0]
        return f"{f'{path}.{name}' if path else name} is unknown"
    if isinstance(error, KeyError):
        return f"{path} is missing"
    if not path:
        return str(error)
    if isinstance(error, _PathError):
        return f"{path}.{error}"
    return f"{path} {error}" if str(error).startswith("must be ") else f"{path}: {error}"


@cache
def _converter(complete: bool) -> Converter:
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True, unstruct_collection_overrides={tuple: list})
    for kind, read in ((int, _whole), (float, _number), (str, _text), (bool, _truth), (Path, _path)):
        converter.register_structure_hook(kind, lambda value, _kind, read=read: read(value))
    converter.register_unstructure_hook(Path, str)
    converter.register_structure_hook_func(_is_choice, _choice)
    converter.register_structure_hook_factory(_is_list, lambda kind: _list_hook(converter, kind))
    converter.register_structure_hook_factory(_is_object, lambda kind: _object_hook(converter, kind))
    converter.register_structure_hook_factory(is_dataclass, lambda cls: _class_hook(converter, cls, complete))
    converter.register_unstructure_hook_factory(is_dataclass, lambda cls: _plain_hook(converter, cls))
    converter.register_structure_hook_factory(
        _has_form, lambda cls: lambda value, _cls: _form_of(cls).from_plain(value)
    )
    converter.register_unstructure_hook_factory(_has_form, lambda cls: _form_of(cls).to_plain)
    return converter


def _has_form(cls: Any) -> bool:  # noqa: ANN401 -- any type
    return isinstance(cls, type) and any(base in _FORMS for base in cls.__mro__)


def _form_of(cls: type) -> _Form:
    """Return the form of ``cls``, or of the class that it is a special case of."""
    return next(_FORMS[base] for base in cls.__mro__ if base in _FORMS)


def _class_hook(converter: Converter, cls: type[Any], complete: bool) -> Callable[[Any, Any], Any]:
    from cattrs.gen import make_dict_structure_fn

    read = make_dict_structure_fn(cls, converter, **_renamed(cls))
    derived: tuple[str, ...] = getattr(cls, "DERIVED", ())
    renamed = getattr(cls, "PLAIN_NAMES", {})
    names = [renamed.get(one.name, one.name) for one in fields(cls)]
    added: frozenset[str] = getattr(cls, "ADDED", frozenset()) | _optional(cls)

    def hook(value: Any, kind: Any) -> Any:  # noqa: ANN401 -- cattrs's own signature
        if not isinstance(value, Mapping):
            raise InputError(f"must be an object, not {_shown(value)}")
        given = {name: value[name] for name in derived if name in value}
        if complete:
            for name in (*names, *derived):
                if name not in value and name not in added:
                    raise _PathError(f"{name} is missing")
        built = read({name: one for name, one in value.items() if name not in given}, kind)
        for name, one in given.items():
            expected = getattr(built, name)
            # Figures of another version may differ in their last digit.
            if not isinstance(expected, float) and one != converter.unstructure(expected):
                raise _PathError(f"{name} must be {expected}, not {_shown(one)}")
        return built

    return hook


def _optional(cls: type[Any]) -> frozenset[str]:
    return getattr(cls, "OPTIONAL", frozenset())


def _renamed(cls: type[Any]) -> dict[str, Any]:
    from cattrs.gen import override

    return {name: override(rename=plain) for name, plain in getattr(cls, "PLAIN_NAMES", {}).items()}


def _plain_hook(converter: Converter, cls: type[Any]) -> Callable[[Any], Any]:
    from cattrs.gen import make_dict_unstructure_fn, override

    overrides = _renamed(cls)
    overrides |= {name: override(omit_if_default=True) for name in _optional(cls)}
    write = make_dict_unstructure_fn(cls, converter, **overrides)
    derived: tuple[str, ...] = getattr(cls, "DERIVED", ())
    if not derived:
        return write
    return lambda value: {**write(value), **{name: converter.unstructure(getattr(value, name)) for name in derived}}


def _is_list(kind: Any) -> bool:  # noqa: ANN401 -- any type
    return get_origin(kind) is tuple


def _list_hook(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:  # noqa: ANN401 -- any type
    from cattrs.errors import IterableValidationError, IterableValidationNote

    arguments = get_args(kind)
    many = len(arguments) == 2 and arguments[1] is Ellipsis
    hooks = [converter.get_structure_hook(one) for one in arguments if one is not Ellipsis]

    def hook(value: Any, _kind: Any) -> Any:  # noqa: ANN401 -- cattrs's own signature
        if not isinstance(value, list | tuple):
            raise InputError(f"must be a list, not {_shown(value)}")
        if not many and len(value) != len(arguments):
            raise InputError(f"must be a list of {len(arguments)}, not {_shown(value)}")
        found = []
        for index, one in enumerate(value):
            place = 0 if many else index
            try:
                found.append(hooks[place](one, arguments[place]))
            except Exception as error:
                error.add_note(IterableValidationNote(f"at index {index}", index, arguments[place]))
                raise IterableValidationError("in a list", [error], kind) from error
        return tuple(found)

    return hook


def _is_object(kind: Any) -> bool:  # noqa: ANN401 -- any type
    return get_origin(kind) in (dict, Mapping)


def _object_hook(converter: Converter, kind: Any) -> Callable[[Any, Any], Any]:  # noqa: ANN401 -- any type
    from cattrs.errors import IterableValidationError, IterableValidationNote

    _, inner = get_args(kind)
    read = converter.get_structure_hook(inner)

    def hook(value: Any, _kind: Any) -> Any:  # noqa: ANN401 -- cattrs's own signature
        if not isinstance(value, Mapping):
            raise InputError(f"must be an object, not {_shown(value)}")
        found = {}
        for name, one in value.items():
            try:
                found[_text(name)] = read(one, inner)
            except Exception as error:
                error.add_note(IterableValidationNote(f"at {name}", str(name), inner))
                raise IterableValidationError("in an object", [error], kind) from error
        return found

    return hook


def _is_choice(kind: Any) -> bool:  # noqa: ANN401 -- any type
    origin: Any = get_origin(kind)
    return origin is Literal


def _choice(value: Any, kind: Any) -> Any:  # noqa: ANN401 -- any type
    choices = get_args(kind)
    if value not in choices or type(value) is bool:
        raise InputError(f"must be one of {', '.join(map(str, choices))}, not {_shown(value)}")
    return value


def _whole(value: object) -> int:
    # A bool is an int to isinstance.
    if type(value) is not int:
        raise InputError(f"must be a whole number, not {_shown(value)}")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float):
        raise InputError(f"must be a number, not {_shown(value)}")
    assert isinstance(value, int | float)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"must be a finite number, not {_shown(value)}")
    return number


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"must be a text, not {_shown(value)}")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"must be true or false, not {_shown(value)}")
    return value


def _path(value: object) -> Path:
    return value if isinstance(value, Path) else Path(_text(value))


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
