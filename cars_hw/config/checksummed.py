"""JSON files that a person can read and that say so when they are not as they were written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cars_hw.config.files import write_text
from cars_hw.errors import Remedy, TableError

LINE = 200
"""What fits on so many characters stands on one line."""


@dataclass(frozen=True)
class ChecksummedFormat:
    """A kind of file: what its ``format`` field says, its schema, and what helps when one cannot be read."""

    name: str
    version: int
    remedy: Remedy

    def write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write ``content`` with format, version and checksum to ``path`` in one step."""
        full = {"format": self.name, "version": self.version, **content}
        write_text(path, readable_json({**full, "checksum": checksum(full)}) + "\n")

    def read(self, path: Path) -> dict[str, Any]:
        """Return what was written, without format, version and checksum.

        Raises:
            TableError: unreadable, not JSON, another format, a newer schema, or not as it was written.
        """
        content = self._parse(path)
        if content.get("format") != self.name or type(content.get("version")) is not int:
            raise TableError(f"{path} is not a {self.name}", remedy=self.remedy)
        if content["version"] > self.version:
            raise TableError(
                f"{path} was written by a newer cars-hw (schema {content['version']}, this one reads "
                f"{self.version}); upgrade cars-hw"
            )
        if content["version"] != self.version:
            raise TableError(
                f"{path} was written by an older cars-hw (schema {content['version']}, this one reads "
                f"{self.version})",
                remedy=self.remedy,
            )
        stored = content.pop("checksum", None)
        if stored != checksum(content):
            raise TableError(
                f"{path} was changed or damaged after it was written: checksum mismatch", remedy=self.remedy
            )
        return {name: value for name, value in content.items() if name not in ("format", "version")}

    def _parse(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        except OSError as error:
            raise TableError(f"cannot read {path}: {error.strerror}", remedy=self.remedy) from error
        except (ValueError, RecursionError) as error:
            raise TableError(f"{path} is not JSON ({error})", remedy=self.remedy) from error
        if not isinstance(content, dict):
            raise TableError(f"{path} is not a {self.name}", remedy=self.remedy)
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


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
