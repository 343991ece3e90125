"""Elements of SVG, written as markup. Text and values of attributes are escaped."""

from __future__ import annotations

from markupsafe import Markup, escape

Attribute = str | int | float


def tag(name: str, /, *content: str, **attributes: Attribute) -> Markup:
    """Return the element ``name`` around ``content``, which is markup or text.

    ``class_`` stands for ``class``, and ``data_network`` for ``data-network``. A float is written to a tenth.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value))
        for key, value in attributes.items()
    )
    if not content:
        return Markup("<{}{}/>").format(name, written)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, Markup("").join(content))


def _value(value: Attribute) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else escape(value)
