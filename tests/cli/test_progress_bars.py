"""Progress where there is no terminal: now and then a line, with what is left."""

from __future__ import annotations

import pytest

from cars_hw.cli.progress_bars import Bars


def test_lines_say_what_is_left_and_do_not_count_what_was_done_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("cars_hw.cli.progress_bars.time.monotonic", lambda: now)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with Bars() as bars:
        # Resumed at 600 of 1,000: what follows takes a second each.
        for second in range(400):
            now = 1000.0 + second
            bars.update("net-01", 600 + second, 1000)
        now = 1400.0
        bars.update("net-01", 1000, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "net-01: 600/1000 after 0 s"
    assert lines[1] == "net-01: 615/1000 after 15 s, about 6 min 25 s left"
    assert lines[-1] == "net-01: 1000/1000 after 400 s"
    assert len(lines) == 28


def test_of_many_bars_the_finished_ones_make_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cars_hw.cli.progress_bars.is_screen", lambda: True)
    with Bars() as bars:
        for number in range(30):
            bars.update(f"net-{number:02d}", 5, 5)
        bars.update("net-30", 1, 5)
        shown = [task.description for task in bars._bars._progress.tasks if task.visible]  # type: ignore[union-attr]
    assert shown == [*(f"net-{number:02d}" for number in range(12)), "net-30"]
    capsys.readouterr()
