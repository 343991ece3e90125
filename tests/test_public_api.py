"""The public API: every name can be imported, is typed and documented, and the docs use no other name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import cars_hw

ROOT = Path(__file__).resolve().parent.parent
STUB = Path(cars_hw.__file__).with_suffix(".pyi")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

VALUES = {"FORMATS": dict, "NETWORKS": dict, "PRESETS": dict, "RECIPES": dict}
"""The names that stand for values, which have no docstring of their own."""


def imports(source: str) -> list[tuple[str, str]]:
    """Return the module and the name of every import from this package."""
    return [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        and node.module is not None
        and node.module.partition(".")[0] == "cars_hw"
        for alias in node.names
    ]


def test_each_name_is_the_one_that_the_stub_imports() -> None:
    listed = imports(STUB.read_text(encoding="utf-8"))
    assert len(listed) > 50
    assert cars_hw.__all__ == sorted(name for _, name in listed)
    assert len(set(cars_hw.__all__)) == len(cars_hw.__all__)
    for module, name in listed:
        assert getattr(cars_hw, name) is getattr(import_module(module), name)
    assert dir(cars_hw) == cars_hw.__all__


def test_a_type_checker_sees_every_name() -> None:
    # Only "import x as x" makes a name of a stub public.
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("name", cars_hw.__all__)
def test_each_name_has_a_docstring(name: str) -> None:
    value = getattr(cars_hw, name)
    if name in VALUES:
        assert isinstance(value, VALUES[name])
        return
    # A dataclass without a docstring has its signature for one.
    assert value.__doc__, name
    assert not value.__doc__.startswith(f"{name}("), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_docs_import_public_names_only(page: Path) -> None:
    for block in re.findall(r"^```python$(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for module, name in imports(block):
            if module == "cars_hw.testing":
                # The tests for authors of plug-ins have no other names.
                assert name.endswith("Contract"), f"{page.name} imports {name} from {module}"
                continue
            assert module == "cars_hw", f"{page.name} imports {name} from {module}"
            assert name in cars_hw.__all__, f"{page.name} imports {name}, which is not public"
        for name in re.findall(r"\bcars_hw\.(?!testing\b)(\w+)", block):
            assert name in cars_hw.__all__, f"{page.name} uses cars_hw.{name}, which is not public"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cars_hw.nonsense  # type: ignore[attr-defined]


def test_a_star_import_gives_every_name() -> None:
    namespace: dict[str, object] = {}
    exec("from cars_hw import *", namespace)
    assert set(cars_hw.__all__) <= namespace.keys()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, cars_hw; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
