"""Published genotypes by name, each with the repository, revision and file that it was read from."""

from __future__ import annotations

import difflib
import json
import re
import reprlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from cars_hw.errors import GenotypeError
from cars_hw.space.genotype import Genotype


class Published(NamedTuple):
    """A genotype and where it was published."""

    genotype: Genotype
    source: str


@cache
def zoo() -> Mapping[str, Published]:
    """Return the published genotypes by name, in the order of their papers."""
    text = resources.files("cars_hw.space").joinpath("zoo.json").read_text(encoding="utf-8")
    entries = json.loads(text).items()
    # All callers get the same object, so it is read-only.
    return MappingProxyType(
        {name: Published(Genotype.from_dict(value), value["source"]) for name, value in entries}
    )


def resolve_genotype(text: str) -> Genotype:
    """Return the genotype that ``text`` is: a name in the zoo, a JSON file, JSON or DARTS text.

    Raises:
        GenotypeError: none of these, or an illegal genotype.
    """
    if text in zoo():
        return zoo()[text].genotype
    stripped = text.strip()
    if re.match(r"\{|Genotype\s*\(", stripped):
        return Genotype.parse(stripped)
    path = Path(text)
    if path.suffix == ".json" or _is_file(path):
        return _read(path)
    near = difflib.get_close_matches(text, zoo(), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise GenotypeError(
        f"unknown genotype {reprlib.repr(text)}: no such name, file or DARTS text{hint}",
        remedy=None if near else "zoo",
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # A text that is too long to be a file's name is none.
        return False


def _read(path: Path) -> Genotype:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise GenotypeError(f"cannot read the genotype file {path}: {error.strerror}") from error
    except ValueError as error:
        raise GenotypeError(f"cannot read the genotype file {str(path)!r}: {error}") from error
    try:
        return Genotype.parse(text)
    except GenotypeError as error:
        raise GenotypeError(f"{path}: {error}") from error
