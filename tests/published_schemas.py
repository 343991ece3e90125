"""The schemas of docs/reference/schemas, and what they say of a file or of an output."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import click
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from cars_hw.cli import options

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference" / "schemas"
END = ".schema.json"

json_text = options.json_text


@cache
def validator(name: str) -> Draft202012Validator:
    """Return the validator of the schema ``name``."""
    return Draft202012Validator(json.loads((FOLDER / f"{name}{END}").read_text(encoding="utf-8")))


@cache
def names_by_format() -> dict[str, list[str]]:
    """Return the schemas of files by the format that they require; one format may have several."""
    found: dict[str, list[str]] = {}
    for path in sorted(FOLDER.glob(f"*{END}")):
        if path.name.startswith("output-"):
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        (head, *_) = content.get("oneOf", [content])
        found.setdefault(head["properties"]["format"]["const"], []).append(path.name.removesuffix(END))
    return found


def problem(name: str, plain: object) -> str | None:
    """Return why ``plain`` does not fit the schema ``name``; None if it does."""
    error = best_match(validator(name).iter_errors(plain))
    return None if error is None else f"{error.json_path}: {error.message[:300]}"


def require_file(path: Path) -> str:
    """Check that the JSON file ``path`` fits the schema of its format, and return the name of the schema."""
    text = path.read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
    (name,) = names_by_format()[records[0]["format"]]
    for record in records:
        found = problem(name, record)
        assert found is None, f"{path} does not fit {name}{END}: {found}"
    return name


def require_files(folder: Path) -> set[str]:
    """Check every JSON file of cars-hw below ``folder``, and return the names of their schemas."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".jsonl")]
    return {require_file(path) for path in paths if '"format": "cars-hw ' in path.read_text(encoding="utf-8")[:200]}


def checked_text(plain: object) -> str:
    """Return the text of an output, after it was compared with the schema of its command."""
    command = click.get_current_context().command_path.partition(" ")[2]
    text = json_text(plain)
    found = problem(f"output-{command.replace(' ', '-')}", json.loads(text))
    assert found is None, f"the output of cars-hw {command} --json does not fit its schema: {found}"
    return text
