"""Texts from files reach a terminal as texts: no markup, no control characters, and one word of a command each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cars_hw.cli.hints import message_of
from cars_hw.cli.options import print_table
from cars_hw.cli.verbosity import note
from cars_hw.errors import RunError
from cars_hw.formatting import printable


def test_what_is_not_shown_as_itself_is_escaped() -> None:
    assert printable("Größe [red] \N{SNOWMAN}") == "Größe [red] \N{SNOWMAN}"
    assert printable("a\x1b[31mb\x00\u202ec\nd") == r"a\x1b[31mb\x00\u202ec\nd"
    assert printable("a\nb\x07", lines=True) == "a\nb\\x07"
    # A byte of a path that is not UTF-8 is written as that byte.
    assert printable("a\udcff") == "a\udcff"


def test_a_table_shows_its_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[bold]title[/bold]", ("[red]a", "b"), [("[link=x]net[/link]", "\x1b[2J"), (":smile:", "[/]")])
    told = capsys.readouterr().out
    for text in ("[bold]title[/bold]", "[red]a", "[link=x]net[/link]", r"\x1b[2J", ":smile:", "[/]"):
        assert text in told
    assert "\x1b" not in told


def test_a_note_keeps_its_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    note("first\nsecond\r\x1b[A")
    assert capsys.readouterr().err == "first\nsecond\\r\\x1b[A\n"


def test_a_path_is_one_word_of_a_hint() -> None:
    told = message_of(RunError("no network has been trained", remedy="train", run=Path("my run; rm x")))
    assert re.search(r"cars-hw train 'my run; rm x'$", told)
