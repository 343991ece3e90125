"""Progress that nobody asked for: drawn where somebody watches, and nowhere else."""

from __future__ import annotations

import inspect
import io
import sys
from types import SimpleNamespace

import pytest

import cars_hw
from cars_hw.progress_line import ProgressLine, show


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def watch(patch: pytest.MonkeyPatch, *, terminal: bool, term: str = "xterm") -> Stream:
    """Put a stream in the place of standard error; pytest's own comes back between a fixture and its test."""
    stream = Stream(terminal)
    patch.setattr(sys, "stderr", stream)
    patch.setenv("TERM", term)
    return stream


def test_a_line_is_drawn_over_and_a_finished_stage_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch, terminal=True)
    line = ProgressLine()
    line("a long stage", 0, 3)
    line("a long stage", 1, 3)
    line("short", 1, 2)
    line.log("a message\x1b[2J")
    line("short", 2, 2)
    line("nothing to do", 0, 0)
    text = terminal.getvalue()
    # The second report of the first stage came within a tenth of a second.
    assert text == "".join(
        (
            "\ra long stage: 0/3",
            "\rshort: 1/2       ",
            "\ra message\\x1b[2J\n",
            "\rshort: 2/2\n",
        )
    )


@pytest.mark.parametrize("term", ["", "dumb"])
def test_nothing_is_drawn_where_a_line_cannot_be_drawn_over(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch, terminal=True, term=term)
    show("stage", 1, 1)
    show.log("message")
    assert terminal.getvalue() == ""
    monkeypatch.setenv("TERM", "xterm")
    show("stage", 1, 1)
    assert terminal.getvalue() == "\rstage: 1/1\n"


def test_nothing_is_drawn_into_a_file_or_without_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = watch(monkeypatch, terminal=False)
    show("stage", 1, 1)
    assert stream.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    show("stage", 1, 1)
    show.log("message")


def test_it_is_drawn_in_a_notebook_and_not_in_a_redirected_ipython(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = watch(monkeypatch, terminal=False)
    shell = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    ProgressLine()("stage", 1, 1)
    assert stream.getvalue() == ""
    shell.kernel = object()
    ProgressLine()("stage", 1, 1)
    assert stream.getvalue() == "\rstage: 1/1\n"


def test_every_public_function_that_takes_progress_shows_it_by_default() -> None:
    taking = {}
    for name in dir(cars_hw):
        value = getattr(cars_hw, name)
        if inspect.isfunction(value) and "progress" in (parameters := inspect.signature(value).parameters):
            taking[name] = parameters["progress"].default
    assert len(taking) >= 12
    assert all(default is show for default in taking.values()), taking
