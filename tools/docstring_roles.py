"""A griffe extension for the API page: Sphinx roles in docstrings become plain Markdown.

A role of Sphinx becomes the name in backquotes, double backquotes become single ones, and a paragraph that ends in
``::`` ends in ``:``. mkdocs.yml names this file.
"""

from __future__ import annotations

import re
from typing import Any

try:
    from griffe import Extension, Object
except ImportError:  # Only the site needs griffe; the page of files needs the function alone.
    Extension = Object = object  # type: ignore[assignment,misc]

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`(?:~?(?P<path>[\w.]+))`")


def markdown(text: str) -> str:
    """Return the docstring ``text`` with its roles and ``::`` written in Markdown."""

    def name(found: re.Match[str]) -> str:
        path = found["path"]
        short = found[0].split("`")[1].startswith("~")
        return f"`{path.rpartition('.')[2] if short else path}`"

    text = re.sub(r"``([^`]+)``", r"`\1`", ROLE.sub(name, text))
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


class DocstringRoles(Extension):
    """Rewrites every docstring when its object has been read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:  # noqa: ANN401 -- griffe passes its own state
        """Rewrite the docstring of ``obj``."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
