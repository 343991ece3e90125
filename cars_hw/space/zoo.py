"""Published genotypes by name, each with the repository, revision and file that it was read from."""

from __future__ import annotations

import difflib
import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from cars_hw.errors import GenotypeError
from cars_hw.space.families import DARTS
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec, named_network


class Published(NamedTuple):
    """A genotype, where it was published, and the networks that it was published in.

    ``networks`` has them by the name of :data:`~cars_hw.space.network_spec.NETWORKS` that they stand for, where
    they differ from it.
    """

    genotype: Genotype
    source: str
    networks: Mapping[str, NetworkSpec] = MappingProxyType({})

    def network(self, name: str) -> NetworkSpec:
        """Return the network of the genotype for the images of the network called ``name``.

        Raises:
            SpecError: there is no network of this name.
        """
        found = self.networks.get(name)
        return named_network(name).with_changes(family=self.genotype.family) if found is None else found


@cache
def zoo() -> Mapping[str, Published]:
    """Return the published genotypes of DARTS cells by name, in the order of their papers."""
    return MappingProxyType({name: one for name, one in whole_zoo().items() if one.genotype.family == DARTS})


@cache
def whole_zoo() -> Mapping[str, Published]:
    """Return the published genotypes of all families of cells by name."""
    text = resources.files("cars_hw.space").joinpath("zoo.json").read_text(encoding="utf-8")
    entries = json.loads(text).items()
    # All callers get the same object, so it is read-only.
    return MappingProxyType(
        {name: Published(Genotype.from_dict(value), value["source"], _networks(value)) for name, value in entries}
    )


def _networks(value: Mapping[str, Any]) -> Mapping[str, NetworkSpec]:
    changed = value.get("networks", {})
    family = value.get("family", DARTS)
    return MappingProxyType(
        {name: replace(named_network(name), family=family, **one) for name, one in changed.items()}
    )


def resolve_genotype(text: str) -> Genotype:
    """Return the genotype that ``text`` is: a name in the zoo, a JSON file, JSON or DARTS text.

    Raises:
        GenotypeError: none of these, or an illegal genotype.
    """
    if text in whole_zoo():
        return whole_zoo()[text].genotype
    stripped = text.strip()
    if re.match(r"\{|Genotype\s*\(", stripped):
        return Genotype.parse(stripped)
    path = Path(text)
    if path.suffix == ".json" or _is_file(path):
        return _read(path)
    near = difflib.get_close_matches(text, whole_zoo(), n=1, cutoff=0.5)
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
