"""Files that say so when they are not as they were written: JSON, JSON lines, and bytes behind a header.

Every reader verifies the checksum before it uses anything of the content. Files for other programs, such as model
files and weights, have no room for a checksum: their digest is in the JSON record beside them (:func:`digest`,
:func:`read_verified`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cars_hw.config.codec import parse_json, structure, unstructure
from cars_hw.config.files import replacing, require_writable, write_text
from cars_hw.errors import CarsHwError, InputError, Remedy, TableError

Record = TypeVar("Record")

LINE = 200
"""What fits on so many characters stands on one line."""

DIGEST: Final = r"sha256:[0-9a-f]{64}"
"""How a digest looks, as a regular expression."""

DAMAGED: Final = "was changed or damaged after it was written: checksum mismatch"


@dataclass(frozen=True)
class ChecksummedFormat:
    """A kind of file: what its ``format`` field says, its schema, and what helps when one cannot be read.

    ``error`` is the class of the errors of its readers.
    """

    name: str
    version: int
    remedy: Remedy
    error: type[CarsHwError] = TableError

    def write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write ``content`` with format, version and checksum to ``path`` in one step."""
        write_text(path, self.text(content))

    def text(self, content: Mapping[str, Any]) -> str:
        """Return ``content`` with format, version and checksum as JSON; :meth:`parse` reads it."""
        full = {"format": self.name, "version": self.version, **content}
        return readable_json({**full, "checksum": checksum(full)}) + "\n"

    def write_record(self, path: Path, record: object) -> None:
        """Write the dataclass ``record`` to ``path``; :meth:`read_record` returns it."""
        self.write(path, unstructure(record))

    def write_lines(self, path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write a line for each of ``lines``, below a line with format, version, their number and checksum."""
        head = {"format": self.name, "version": self.version, "lines": len(lines), "checksum": self._sum(lines)}
        texts = [json.dumps(line, allow_nan=False, ensure_ascii=False) for line in (head, *lines)]
        write_text(path, "".join(f"{text}\n" for text in texts))

    def read(self, path: Path) -> dict[str, Any]:
        """Return what was written, without format, version and checksum.

        Raises:
            CarsHwError: of the class ``error``: unreadable, not JSON, another format, another schema, or not as it
                was written.
        """
        return self.parse(path, self._text(path))

    def parse(self, path: Path, text: str) -> dict[str, Any]:
        """Return the content that :meth:`text` made ``text`` of; ``path`` is the file that holds it.

        Raises:
            CarsHwError: of the class ``error``: see :meth:`read`.
        """
        content = self._object(path, text)
        self._require_version(path, content)
        stored = content.pop("checksum", None)
        self._require(path, stored, content)
        return {name: value for name, value in content.items() if name not in ("format", "version")}

    def read_record(self, path: Path, cls: type[Record]) -> Record:
        """Return the ``cls`` that :meth:`write_record` wrote.

        Raises:
            CarsHwError: of the class ``error``: see :meth:`read`; or a leaf is missing, unknown, mistyped or out of
                its bounds.
        """
        return self.structured(path, self.read(path), cls)

    def read_lines(self, path: Path) -> list[dict[str, Any]]:
        """Return the lines that :meth:`write_lines` wrote.

        Raises:
            CarsHwError: of the class ``error``: see :meth:`read`.
        """
        # Not by splitlines, which splits at characters that JSON may hold as they are.
        first, *texts = self._text(path).removesuffix("\n").split("\n")
        head = self._object(path, first)
        self._require_version(path, head)
        lines = [self._object(path, text) for text in texts]
        if head.get("lines") != len(lines):
            raise self.error(f"{path} {DAMAGED}", remedy=self.remedy)
        self._require(path, head.get("checksum"), {"lines": lines})
        return lines

    def structured(self, path: Path, content: object, cls: type[Record]) -> Record:
        """Return the ``cls`` in ``content``, which was read from ``path``.

        Raises:
            CarsHwError: of the class ``error``: a leaf is missing, unknown, mistyped or out of its bounds.
        """
        try:
            return structure(content, cls)
        except InputError as problem:
            raise self.error(f"{path} is damaged: {problem}", remedy=self.remedy) from problem

    def is_one(self, path: Path) -> bool:
        """Return whether ``path`` says that it is a file of this format, of any version and in any state."""
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(content, dict) and content.get("format") == self.name

    def require_replaceable(self, path: Path) -> None:
        """Check that a file of this format can be written to ``path``: before the work whose result it is.

        Raises:
            InputError: another kind of file is there, or the folder cannot be written.
        """
        if path.exists() and not self.is_one(path):
            raise InputError(f"{path} exists and is not a {self.name}; give another name, or remove it")
        require_writable(path)

    def _sum(self, lines: Sequence[Mapping[str, Any]]) -> str:
        return checksum({"lines": list(lines)})

    def _require(self, path: Path, stored: object, content: Mapping[str, Any]) -> None:
        try:
            same = stored == checksum(content)
        except (ValueError, RecursionError):
            # A number beyond all floats, or a nesting that cannot be written.
            same = False
        if not same:
            raise self.error(f"{path} {DAMAGED}", remedy=self.remedy)

    def _require_version(self, path: Path, content: Mapping[str, Any]) -> None:
        version = content.get("version")
        if content.get("format") != self.name or type(version) is not int:
            raise self.error(f"{path} is not a {self.name}", remedy=self.remedy)
        if version > self.version:
            raise self.error(
                f"{path} was written by a newer cars-hw (schema {version}, this one reads {self.version}); "
                "upgrade cars-hw"
            )
        if version != self.version:
            raise self.error(
                f"{path} was written by an older cars-hw (schema {version}, this one reads {self.version})",
                remedy=self.remedy,
            )

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except OSError as problem:
            raise self.error(f"cannot read {path}: {problem.strerror}", remedy=self.remedy) from problem
        except ValueError as problem:
            raise self.error(f"{path} is not JSON ({problem})", remedy=self.remedy) from problem

    def _object(self, path: Path, text: str) -> dict[str, Any]:
        try:
            content = parse_json(text)
        except ValueError as problem:
            raise self.error(f"{path} is not JSON ({problem})", remedy=self.remedy) from problem
        if not isinstance(content, dict):
            raise self.error(f"{path} is not a {self.name}", remedy=self.remedy)
        return content


@dataclass(frozen=True)
class ChecksummedBytes:
    """A kind of binary file: one line with its name, its version and the digest of the rest, then the rest."""

    name: str
    version: int

    def write(self, path: Path, content: bytes, *, private: bool = False) -> None:
        """Write ``content`` behind its header to ``path`` in one step; only the owner reads a ``private`` one."""
        with replacing(path, private=private) as temporary, temporary.open("wb") as file:
            file.write(f"{self.name} {self.version} {digest(content)}\n".encode())
            file.write(content)

    def read(self, path: Path) -> bytes:
        """Return what was written, after its digest was verified.

        Raises:
            OSError: the file cannot be read.
            InputError: it is of another kind or version, or not as it was written; the message does not name it.
        """
        head, _, content = path.read_bytes().partition(b"\n")
        try:
            name, version, stored = head.decode("ascii").rsplit(" ", 2)
        except ValueError:
            name, version, stored = "", "", ""
        if name != self.name:
            raise InputError(f"it is not a {self.name} of this version")
        if version != str(self.version):
            raise InputError(f"it has schema {version}; this version reads {self.version}")
        if stored != digest(content):
            raise InputError("it was changed or damaged after it was written: checksum mismatch")
        return content


def digest(content: bytes) -> str:
    """Return ``sha256:...`` over ``content``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def read_verified(path: Path, expected: str, error: type[CarsHwError], remedy: Remedy) -> bytes:
    """Return the content of ``path``, whose digest is in the record beside it.

    Raises:
        CarsHwError: of the class ``error``: the file cannot be read, or its digest is not ``expected``.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise error(f"cannot read {path}: {problem.strerror}", remedy=remedy) from problem
    if digest(content) != expected:
        raise error(
            f"{path} was changed or damaged after it was written: its SHA-256 is not that of its record",
            remedy=remedy,
        )
    return content


def checksum(content: Mapping[str, Any]) -> str:
    """Return ``sha256:...`` over the canonical JSON of ``content``: keys sorted, no spaces."""
    # Escaped, because a damaged file can hold half a character that has no bytes of its own.
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def readable_json(value: Any, indent: str = "") -> str:  # noqa: ANN401 -- whatever json can hold
    """Return ``value`` as JSON in which everything that fits stands on one line; NaN is refused."""
    line = json.dumps(value, allow_nan=False, ensure_ascii=False)
    if len(line) <= LINE or not isinstance(value, dict | list):
        return line
    deeper = indent + " "
    if isinstance(value, list):
        inside = [readable_json(item, deeper) for item in value]
    else:
        inside = [
            f"{json.dumps(name, ensure_ascii=False)}: {readable_json(item, deeper)}" for name, item in value.items()
        ]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(inside) + f"\n{indent}{closing}"
