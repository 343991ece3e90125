"""Fill the report's templates by Jinja2: values are escaped, and an unknown name in a template is an error."""

from __future__ import annotations

import re
import shlex
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cars_hw import formatting
from cars_hw.report.curves import KINDS

SPOTS: Final = 4
"""Kinds of points that the style sheet distinguishes."""

UNSHOWABLE: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls
    "\u202a-\u202e\u2066-\u2069"  # changes of the writing direction
    "\ud800-\udfff\ufffe\uffff]"  # no characters
)
"""What a page replaces by a mark, wherever a name from a file contains it."""

FILTERS: Final = (
    "accuracy_text",
    "figure",
    "millijoules",
    "milliseconds",
    "millions",
    "percent",
    "signed_percent",
    "size",
    "state_name",
)
"""Functions of :mod:`cars_hw.formatting` that the templates use."""


@cache
def environment() -> Environment:
    """Return the environment of the templates, made once."""
    made = Environment(
        loader=PackageLoader("cars_hw.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({name: getattr(formatting, name) for name in FILTERS})
    made.filters["shell"] = shlex.quote
    made.globals.update(UNKNOWN=formatting.UNKNOWN, LINE_KINDS=KINDS, SPOT_KINDS=SPOTS, asset=asset)
    return made


def render(template: str, /, **values: Any) -> Markup:  # noqa: ANN401 -- whatever the template shows
    """Return ``template``, a file below ``templates``, filled with ``values``."""
    content = environment().get_template(template).render(values)
    return Markup(UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", content))


def asset(name: str) -> Markup:
    """Return the file ``name`` of this package, which is part of the package and is inserted unescaped."""
    return Markup(files("cars_hw.report").joinpath(name).read_text(encoding="utf-8"))
