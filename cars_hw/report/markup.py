"""Markup that cannot be broken by what is in it: whatever is not markup already is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

Attribute = str | int | float | bool | None


class Html(str):
    """Markup. Any other string is text."""

    __slots__ = ()


VOID = frozenset({"meta", "input", "br", "path", "circle", "rect", "line"})
"""Elements that are written without an end: HTML's own, and SVG's where they hold nothing."""


def text(content: str) -> Html:
    """Return ``content`` as markup that shows it as it stands."""
    return content if isinstance(content, Html) else Html(html.escape(content))


def join(parts: Iterable[str]) -> Html:
    """Return ``parts``, markup or text, one after the other."""
    return Html("".join(map(text, parts)))


def tag(name: str, /, *content: str, **attributes: Attribute) -> Html:
    """Return the element ``name`` around ``content``, markup or text.

    ``class_`` stands for ``class``, and ``data_network`` for ``data-network``. An attribute of None or False is
    left out, one of True has no value, and a float is written to a tenth, which is enough for a drawing.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    inner = join(content)
    if name in VOID and not inner:
        # With the slash a drawing is XML as well, and HTML does not mind.
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{inner}</{name}>")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> Html:
    """Return a table in a box of its own, in which it scrolls where the page is narrow.

    The first column names its row. ``caption`` is what the table is called for those who do not see it.
    """
    head = tag("tr", *(tag("th", column, scope="col") for column in columns))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    whole = tag("table", tag("thead", head), tag("tbody", *body))
    # A box that scrolls has to be reached with the keyboard to be scrolled with it.
    return tag("div", whole, class_="scroll", role="region", tabindex="0", aria_label=caption)


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
    return f' {name}="{html.escape(shown)}"'
