"""The pages of the site: the navigation lists each of them, and every link leads to a page, a file or a heading."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
REPOSITORY = "https://github.com/cars-hw/cars-hw/blob/main/"
RAW = "https://raw.githubusercontent.com/cars-hw/cars-hw/main/"


def navigation() -> list[str]:
    """Return the pages that the navigation of mkdocs.yml lists, in order."""
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    return re.findall(r":\s*(\S+\.md)$", nav, flags=re.MULTILINE)


def links(page: Path) -> Iterator[str]:
    """Yield the targets of all links and pictures of ``page``, outside of code."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of ``page``, as GitHub and the site make them."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_navigation_lists_every_page_once() -> None:
    listed = navigation()
    assert sorted(listed) == [page.relative_to(DOCS).as_posix() for page in PAGES]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        if path.startswith((REPOSITORY, RAW)):
            target = ROOT / path.removeprefix(REPOSITORY).removeprefix(RAW)
        elif path.startswith("https://"):
            continue
        else:
            target = (page.parent / path).resolve() if path else page
            assert page.name != "README.md", f"{link}: README.md is shown on the package index, link absolutely"
        assert target.exists(), f"{page.relative_to(ROOT)} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.relative_to(ROOT)} links to {link}: no such heading"


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings_handlers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    # Without the notice of mkdocs-material's successor, which is no warning about this site.
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    assert (tmp_path / "site" / "reference" / "api" / "index.html").is_file()
