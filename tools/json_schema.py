"""JSON Schema (draft 2020-12) of records, from the dataclasses and their settings.

A schema describes what :func:`cars_hw.config.codec.unstructure` makes of a record: names, types, bounds, choices,
properties that are written beside the fields (``DERIVED``), and fields that may be missing (``ADDED``,
``OPTIONAL``). Every object is closed: a field that the schema does not name is an error.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from docstring_roles import markdown

from cars_hw.config import codec
from cars_hw.config.setting import NAME, Setting
from cars_hw.devices.protocol import Measurement
from cars_hw.latency import table
from cars_hw.space.families import BLOCK_FAMILIES
from cars_hw.space.genotype import Genotype

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

EDGE: Schema = {
    "type": "array",
    "prefixItems": [{"type": "string"}, {"type": "integer", "minimum": 0}],
    "items": False,
    "minItems": 2,
}
CELL: Schema = {
    "type": "array",
    "items": EDGE,
    "description": "Pairs of an operation and its source, two a node. Sources 0 and 1 are the inputs of the cell.",
}
JOINED: Schema = {
    "type": "array",
    "description": "The states that make the output of the cell. Without it: those of the family.",
    "items": {"type": "integer"},
}

CELLS: Schema = {
    "type": "object",
    "description": "The two cells of a network.",
    "properties": {
        "normal": CELL,
        "reduce": CELL,
        "family": {"type": "string", "description": "The family of the cells. Without it: darts."},
        "normal_concat": JOINED,
        "reduce_concat": JOINED,
    },
    "required": ["normal", "reduce"],
    "additionalProperties": False,
}

BLOCKS: Schema = {
    "type": "object",
    "description": "The choices for the blocks of a network.",
    "properties": {
        "family": {"type": "string", "enum": list(BLOCK_FAMILIES), "description": "The family of the blocks."},
        "blocks": {
            "type": "array",
            "description": "The choice for each block: such as k3_e6_se, or skip where it is left out.",
            "items": {"type": "string"},
            "minItems": 1,
        },
    },
    "required": ["family", "blocks"],
    "additionalProperties": False,
}

GENOTYPE: Schema = {"description": "What fills a network: two cells, or blocks.", "anyOf": [CELLS, BLOCKS]}

SIMPLE: Mapping[Any, Schema] = {
    str: {"type": "string"},
    Path: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
    object: {},
}


class Definitions:
    """The schemas of the classes that a schema refers to, by name.

    ``missing`` has for a class the fields that the document may lack, beside those that any document may lack.
    """

    def __init__(self, missing: Mapping[type, frozenset[str]] | None = None) -> None:
        self._missing = missing or {}
        self.schemas: dict[str, Schema] = {}
        self._classes: dict[str, type] = {}

    def of(self, kind: Any) -> Schema:  # noqa: ANN401, PLR0911 -- any type, a line a kind
        """Return the schema of a value of the type ``kind``."""
        if kind in SIMPLE:
            return dict(SIMPLE[kind])
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.of(one) for one in arguments]}
        if origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if origin in (list, Sequence) or (origin is tuple and arguments[1:] == (Ellipsis,)):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is tuple:
            return {
                "type": "array",
                "prefixItems": [self.of(one) for one in arguments],
                "items": False,
                "minItems": len(arguments),
            }
        if isinstance(kind, type):
            return self._refer(kind)
        raise TypeError(f"no schema is known for {kind}")

    def object_of(self, cls: type) -> Schema:
        """Return the schema of the object that is written for the dataclass ``cls``."""
        hints = typing.get_type_hints(cls)
        names: Mapping[str, str] = getattr(cls, "PLAIN_NAMES", {})
        properties: dict[str, Schema] = {}
        required = []
        may_be_missing = getattr(cls, "ADDED", frozenset()) | getattr(cls, "OPTIONAL", frozenset())
        may_be_missing |= self._missing.get(cls, frozenset())
        for field in dataclasses.fields(cls):
            name = names.get(field.name, field.name)
            properties[name] = self._field(hints[field.name], field.metadata.get("setting", Setting()))
            if may_be_missing.isdisjoint((field.name, name)):
                required.append(name)
        for name in getattr(cls, "DERIVED", ()):
            properties[name] = self.of(_returned(cls, name))
            required.append(name)
        return {
            "type": "object",
            "description": description(cls),
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def _refer(self, cls: type) -> Schema:
        name = cls.__name__
        if self._classes.setdefault(name, cls) is not cls:
            raise TypeError(f"{cls} and {self._classes[name]} have one name")
        if name not in self.schemas:
            # A class that holds itself finds its name taken.
            self.schemas[name] = {}
            self.schemas[name] = self._registered(cls) if cls in codec.registered() else self.object_of(cls)
        return {"$ref": f"#/$defs/{name}"}

    def _registered(self, cls: type) -> Schema:
        """Return the schema of a class with a form of its own."""
        if cls is Genotype:
            return GENOTYPE
        if cls is Measurement:
            found = self.object_of(table.MeasuredForm)
        elif cls is table.CalibrationNetwork:
            found = self.object_of(table.CalibratedForm)
        else:
            raise TypeError(f"{cls} has a form of its own; give its schema here")
        return {**found, "description": description(cls)}

    def _field(self, kind: Any, about: Setting) -> Schema:  # noqa: ANN401 -- any type
        found = _bounded(self.of(kind), about)
        text = about.help + (f" Unit: {about.unit}." if about.unit else "")
        return {**found, "description": text.strip()} if text else found


def document(title: str, address: str, content: Schema, definitions: Definitions) -> Schema:
    """Return a whole schema, in the order in which people read it."""
    found = {"$schema": DIALECT, "$id": address, "title": title, **content}
    schemas = dict(sorted(definitions.schemas.items()))
    # What was merged into the top is referred to no more.
    references = json.dumps([content, schemas])
    kept = {name: one for name, one in schemas.items() if f'"#/$defs/{name}"' in references}
    return {**found, "$defs": kept} if kept else found


def description(cls: type) -> str:
    """Return the docstring of a class as Markdown, without what it raises in Python."""
    text = markdown(inspect.getdoc(cls) or "")
    return re.split(r"^(?:Raises|Attributes):$", text, flags=re.MULTILINE)[0].strip()


def _returned(cls: type, name: str) -> Any:  # noqa: ANN401 -- any type
    """Return the type of the property ``name``."""
    getter = inspect.getattr_static(cls, name)
    function = getter.fget if isinstance(getter, property) else getter.func
    return typing.get_type_hints(function)["return"]


def _bounded(schema: Schema, about: Setting) -> Schema:
    """Return ``schema`` with the bounds and choices of a setting, for a value, for each of several, or for null."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_bounded(one, about) for one in schema["anyOf"]]}
    if schema.get("type") == "array" and "prefixItems" not in schema:
        return {**schema, "items": _bounded(schema["items"], about)}
    added: Schema = {}
    if schema.get("type") in ("number", "integer"):
        bounds = {
            "minimum": about.minimum,
            "maximum": about.maximum,
            "exclusiveMinimum": about.above,
            "exclusiveMaximum": about.below,
        }
        added = {name: value for name, value in bounds.items() if value is not None}
    elif schema.get("type") == "string":
        # Packages add to a mapping of choices.
        if about.choices and not isinstance(about.choices, Mapping):
            added["enum"] = list(about.choices)
        if about.name:
            added["pattern"] = f"^{NAME.pattern}$"
    return {**schema, **added}
