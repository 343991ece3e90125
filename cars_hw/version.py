"""The version of cars-hw, installed or not."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "cars-hw"
UNKNOWN: Final = "0+unknown"


@cache
def own_version() -> str:
    """Return the version of the installed package.

    In a source tree that was not installed it is that of ``pyproject.toml`` with ``+source`` behind it, and
    ``0+unknown`` where there is no such file.
    """
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return _of_source_tree(Path(__file__).resolve().parent.parent / "pyproject.toml")


def _of_source_tree(path: Path) -> str:
    import tomllib

    try:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        return f"{project['version']}+source" if project["name"] == DISTRIBUTION else UNKNOWN
    # It may be the file of another project, or none at all.
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN


def versions_of(distributions: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those of ``distributions`` that are installed, and of cars-hw if it is among them."""
    found = {}
    for name in distributions:
        try:
            found[name] = own_version() if name == DISTRIBUTION else version(name)
        except PackageNotFoundError:
            continue
    return found
