"""Settings as TOML files: written whole, read with every key checked against the fields of a settings class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import GenericAlias
from typing import Any, Final

from cars_hw.config.checksummed import digest
from cars_hw.config.codec import structure, unstructure
from cars_hw.config.files import expanded, write_text
from cars_hw.config.setting import Field, fields_of
from cars_hw.errors import InputError

CHECKSUM: Final = "# checksum: "
"""What the first line of a file that cars-hw wrote begins with."""


def to_toml(settings: object) -> str:
    """Return ``settings`` as TOML; a setting that is None is left out.

    Raises:
        InputError: a path is not UTF-8, which TOML cannot hold.
    """
    import tomli_w

    text = tomli_w.dumps(without_none(unstructure(settings)))
    if not_utf8 := re.search('[^"\n]*[\udc80-\udcff][^"\n]*', text):
        raise InputError(f"the path {not_utf8[0]!a} is not UTF-8; a TOML file cannot hold it: rename the folder")
    return text


def write_settings(path: Path, settings: object, comment: str) -> None:
    """Write ``settings`` to ``path`` below ``comment``, lines of text; see :func:`to_toml`.

    The first line is a comment with the checksum of the others, which :func:`read_settings` verifies.
    """
    text = "".join(f"# {line}\n" for line in comment.splitlines()) + to_toml(settings)
    write_text(path, f"{CHECKSUM}{digest(text.encode())}\n{text}")


def read_settings(path: Path, cls: type, extra: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings of ``cls`` that the TOML file ``path`` holds, nested, in JSON's own types.

    ``extra`` are paths of texts that may stand there besides, such as ``preset``. A relative path of a file is
    taken from the folder of ``path``.

    Raises:
        InputError: the file cannot be read or is not TOML, or a key is unknown, mistyped or out of its bounds; the
            message names the file and the key.
    """
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        _verify(path, text)
        content = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    try:
        return _checked(content, cls, "", path.parent, frozenset(extra))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _verify(path: Path, text: str) -> None:
    """Check the checksum that ``text`` begins with, if cars-hw wrote it; a file by hand has none."""
    first, _, rest = text.partition("\n")
    if first.startswith(CHECKSUM) and first.removeprefix(CHECKSUM) != digest(rest.encode()):
        raise InputError(
            f"{path} was changed or damaged after it was written: checksum mismatch; if you changed it on purpose, "
            f"remove its first line"
        )


def merged(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``before`` with what ``after`` says otherwise, object by object."""
    result = dict(before)
    for name, value in after.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def without_none(value: Any) -> Any:  # noqa: ANN401 -- JSON's own types
    """Return ``value`` without the entries that are None, which TOML cannot hold."""
    if isinstance(value, Mapping):
        return {name: without_none(one) for name, one in value.items() if one is not None}
    return [without_none(one) for one in value] if isinstance(value, list) else value


def _checked(
    content: Mapping[str, Any], cls: type, prefix: str, folder: Path, extra: frozenset[str]
) -> dict[str, Any]:
    known, found = fields_of(cls), {}
    for name, value in content.items():
        path = f"{prefix}{name}"
        if path in extra:
            found[name] = _leaf(path, value, str)
        elif name not in known:
            others = [one.removeprefix(prefix) for one in extra if one.rpartition(".")[0] == prefix.rstrip(".")]
            raise InputError(f"{path} is unknown; known here: {', '.join([*others, *known])}")
        else:
            found[name] = _value(path, value, known[name], folder, extra)
    return found


def _value(path: str, value: Any, field: Field, folder: Path, extra: frozenset[str]) -> Any:  # noqa: ANN401 -- TOML's
    if field.nested and isinstance(value, Mapping):
        return _checked(value, field.type, f"{path}.", folder, extra)
    if field.many and field.tables:
        entries = _leaf(path, value, tuple[Any, ...])
        return [_entry(f"{path}[{index}]", one, field.type, folder) for index, one in enumerate(entries)]
    checked = _leaf(path, value, GenericAlias(tuple, (field.type, ...)) if field.many else field.type)
    problem = field.check(checked)
    if problem is not None:
        raise InputError(f"{path} {problem}")
    if isinstance(checked, Path):
        return str(folder / expanded(checked))
    return unstructure(checked)


def _entry(path: str, value: Any, cls: type, folder: Path) -> dict[str, Any]:  # noqa: ANN401 -- TOML's own types
    if not isinstance(value, Mapping):
        raise InputError(f"{path} must be a table, not {value!r}")
    return _checked(value, cls, f"{path}.", folder, frozenset())


def _leaf(path: str, value: Any, kind: Any) -> Any:  # noqa: ANN401 -- any type
    try:
        return structure(value, kind)
    except InputError as error:
        text = str(error)
        raise InputError(f"{path}{'' if text.startswith('[') else ' '}{text}") from error
