"""The HTML document around what a page shows: one file that opens from disk and fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from cars_hw.report.markup import Html, tag

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The browser itself sees to it that a page fetches nothing; scripts run where there are any, and only inline."""


def document(title: str, body: Sequence[Html], *, style: str = "", script: str | None = None) -> str:
    """Return the page with ``body``, in the report's style and ``style``, with the script in file ``script``."""
    policy = POLICY if script is None else f"{POLICY}; script-src 'unsafe-inline'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} - cars-hw"),
        tag("style", Html(_asset("style.css") + style)),
    )
    last = () if script is None else (tag("script", _asset(script)),)
    return f"<!doctype html>\n{tag('html', head, tag('body', *body, *last), lang='en')}\n"


def _asset(name: str) -> Html:
    """Return the file ``name`` beside this module, which is ours and is trusted."""
    return Html(files("cars_hw.report").joinpath(name).read_text(encoding="utf-8"))
