"""Published genotypes by name, each with the repository, revision and file that it was read from."""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from cars_hw.errors import GenotypeError
from cars_hw.genotype import Genotype


class Published(NamedTuple):
    """A genotype and where it was published."""

    genotype: Genotype
    source: str


@cache
def zoo() -> dict[str, Published]:
    """Return the published genotypes by name, in the order of their papers."""
    text = resources.files("cars_hw").joinpath("zoo.json").read_text(encoding="utf-8")
    return {name: Published(Genotype.from_dict(entry), entry["source"]) for name, entry in json.loads(text).items()}


def resolve(text: str) -> Genotype:
    """Return the genotype that ``text`` is: a name in the zoo, a JSON file, JSON or DARTS text.

    Raises:
        GenotypeError: none of these, or an illegal genotype.
    """
    if text in zoo():
        return zoo()[text].genotype
    stripped = text.strip()
    if stripped.startswith(("{", "Genotype")):
        return Genotype.parse(stripped)
    path = Path(text)
    if path.suffix == ".json" or path.is_file():
        return _read(path)
    near = difflib.get_close_matches(text, zoo(), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "see: cars-hw zoo"
    raise GenotypeError(f"unknown genotype '{text}': no such name, file or DARTS text; {hint}")


def _read(path: Path) -> Genotype:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GenotypeError(f"cannot read the genotype file {path}: {error}") from error
    try:
        return Genotype.parse(text)
    except GenotypeError as error:
        raise GenotypeError(f"{path}: {error}") from error
