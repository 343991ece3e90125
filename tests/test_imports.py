"""The packages import downwards only, and no modules import each other in a circle."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "draw_imports.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The tool that draws the imports."""
    spec = importlib.util.spec_from_file_location("draw_imports", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_imports_point_down_and_make_no_circle(tool: ModuleType) -> None:
    imports = tool.imports_of()
    assert len(imports) > 100
    assert tool.upward(imports) == []
    assert tool.circles(imports) == []


def test_an_import_that_points_up_and_a_circle_are_found(tool: ModuleType) -> None:
    imports = {
        "cars_hw.space.a": {"cars_hw.cli.b"},
        "cars_hw.cli.b": {"cars_hw.space.a"},
        "cars_hw.nn.c": {"cars_hw.devices.d", "cars_hw.space.a"},
        "cars_hw.devices.d": set(),
    }
    assert tool.upward(imports) == [
        ("cars_hw.space.a", "cars_hw.cli.b"),
        ("cars_hw.nn.c", "cars_hw.devices.d"),
    ]
    assert tool.circles(imports) == [["cars_hw.cli.b", "cars_hw.space.a"]]


def test_the_picture_has_every_package(tool: ModuleType) -> None:
    picture = tool.draw(tool.imports_of())
    for rooms in tool.FLOORS:
        assert all(f">{room} (" in picture for room in rooms)
