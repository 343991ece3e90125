"""docs/reference/schemas has a schema of every file and of every output, made from the code, and closed."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from published_schemas import END, FOLDER, names_by_format, problem

from cars_hw.cli.main import main

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = sorted(path.name.removesuffix(END) for path in FOLDER.glob(f"*{END}"))


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    """The tool that makes the schemas."""
    path = ROOT / "tools" / "make_schemas.py"
    spec = importlib.util.spec_from_file_location("make_schemas", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        patch.setitem(sys.modules, "make_schemas", module)
        spec.loader.exec_module(module)
        yield module


def test_every_schema_and_their_page_are_up_to_date(tool: ModuleType) -> None:
    remake = f"make it again: {tool.REMAKE}"
    assert [one.name for one in sorted(tool.SCHEMAS, key=lambda one: one.name)] == NAMES, remake
    for one in tool.SCHEMAS:
        path = FOLDER / f"{one.name}{END}"
        # Not compared by assert on the two texts: their difference would hide what to do.
        if path.read_text(encoding="utf-8") != tool.text_of(one):
            pytest.fail(f"{path.relative_to(ROOT)} is out of date; {remake}")
    if tool.PAGE.read_text(encoding="utf-8") != tool.page():
        pytest.fail(f"{tool.PAGE.relative_to(ROOT)} is out of date; {remake}")


def formats() -> Iterator[str]:
    """Yield the name of every format in the source."""
    for path in (ROOT / "cars_hw").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ChecksummedFormat":
                yield ast.literal_eval(node.args[0])


def test_every_format_of_a_file_has_one_schema() -> None:
    found = sorted(formats())
    assert len(found) > 20
    assert sorted(names_by_format()) == found
    assert all(len(names) == 1 for names in names_by_format().values())


def commands(command: click.Command = main, path: str = "") -> Iterator[str]:
    """Yield the commands that have ``--json``."""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from commands(below, f"{path} {name}".strip())
    elif any("--json" in parameter.opts for parameter in command.params):
        yield path


def test_every_command_with_json_has_a_schema() -> None:
    found = {f"output-{path.replace(' ', '-')}" for path in commands()}
    assert len(found) > 15
    assert found == {name for name in NAMES if name.startswith("output-")}


def objects(schema: object) -> Iterator[dict[str, Any]]:
    """Yield each part of ``schema`` that describes an object by its properties."""
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_takes_no_other_field(name: str) -> None:
    schema = json.loads((FOLDER / f"{name}{END}").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    assert schema["$id"].endswith(f"/reference/schemas/{name}{END}")
    for one in objects(schema):
        assert "additionalProperties" in one, one
        # An object of names that are not known beforehand has a schema for what they stand for.
        assert one["additionalProperties"] is not True
        assert set(one["required"]) <= set(one["properties"])
    references = {part["$ref"] for part in parts(schema) if "$ref" in part}
    assert references == {f"#/$defs/{name}" for name in schema.get("$defs", {})}


def parts(schema: object) -> Iterator[dict[str, Any]]:
    """Yield each object in ``schema``."""
    if isinstance(schema, dict):
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from parts(part)


def test_a_field_without_a_schema_a_wrong_type_and_a_value_out_of_bounds_are_named() -> None:
    (made,) = json.loads(CliRunner().invoke(main, ["cost", "CARS_A", "--json"]).stdout)
    assert problem("output-cost", [made]) is None
    assert problem("output-cost", [{**made, "colour": 1}]) is not None
    assert (
        problem("output-cost", [{**made, "parameters": "12"}]) == "$[0].parameters: '12' is not of type 'integer'"
    )
    assert problem("output-cost", [{name: one for name, one in made.items() if name != "name"}]) is not None
    cells = {**made["genotype"], "normal": [["skip_connect", -1]]}
    assert "-1 is less than the minimum of 0" in str(problem("output-cost", [{**made, "genotype": cells}]))
