"""What exporting depends on, by its import statements: nothing of the latency package or of what is above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import cars_hw

PACKAGE = Path(cars_hw.__file__).parent
BELOW_EXPORT = (
    *("errors", "progress", "progress_line", "version", "significance", "formatting", "plugins"),
    *("config", "space", "nn", "data", "devices", "measurement", "export"),
)


def module_file(name: str) -> Path | None:
    """Return the file of the module ``name``, None if it is none of this package's."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def imported(file: Path) -> Iterator[str]:
    """Yield the package's modules that ``file`` imports anywhere, inside of functions and for types too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("cars_hw.") and module_file(name) is not None)


def reached(start: str) -> set[str]:
    """Return the modules that importing ``start`` and calling all of it can load."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if name not in found and file is not None:
            found.add(name)
            waiting += imported(file)
    return found


def test_the_walk_finds_imports() -> None:
    assert "cars_hw.latency.keys" in reached("cars_hw.latency.models")
    assert "cars_hw.nn.network" in reached("cars_hw.export.export")


def test_exporting_a_genotype_does_not_pass_through_the_latency_package() -> None:
    assert cars_hw.export_genotype.__module__ == "cars_hw.export.export"
    assert not [name for name in reached("cars_hw.export.export") if name.startswith("cars_hw.latency")]


def test_the_export_package_imports_only_what_stands_below_it() -> None:
    for file in sorted((PACKAGE / "export").glob("*.py")):
        for name in imported(file):
            assert name.split(".")[1] in BELOW_EXPORT, f"{file.name} imports {name}"
