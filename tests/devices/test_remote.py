"""The script that runs a block of sessions, in a real shell, and the reading of what it prints."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cars_hw.devices.remote import (
    CORE_OF,
    Answer,
    BrokenOffError,
    ScriptEndedError,
    Session,
    SessionResult,
    ask,
    last_lines,
    script,
    session_results,
)

MARK = "@mark"


def lines_of(text: str, folder: Path) -> list[str]:
    done = subprocess.run(["sh", "-c", text], cwd=folder, capture_output=True, text=True, check=False, timeout=20)
    return (done.stdout + done.stderr).splitlines()


def test_every_session_ends_with_its_status_and_its_own_words(tmp_path: Path) -> None:
    sessions = [Session(3, "echo one"), Session(4, "sh -c 'printf two; exit 7'"), Session(5, "cat")]
    text = script(sessions, MARK, before="echo before", after="touch after", clock_file=None)
    ran = list(session_results(lines_of(text, tmp_path), MARK))
    assert [(one.number, one.status, one.output) for one in ran] == [(3, 0, "one"), (4, 7, "two"), (5, 0, "")]
    assert (tmp_path / "after").exists()


def test_load_and_clock_are_read_where_they_are_told(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("1804800\n")
    text = script([Session(0, "true")], MARK, before=":", after=":", clock_file=str(tmp_path / "clock"))
    (ran,) = session_results(lines_of(text, tmp_path), MARK)
    assert ran.clock_mhz == 1804.8
    assert (ran.load is not None) == Path("/proc/loadavg").exists()
    text = script([Session(0, "true")], MARK, before=":", after=":", clock_file=str(tmp_path / "nothing"))
    (ran,) = session_results(lines_of(text, tmp_path), MARK)
    assert ran.clock_mhz is None


def test_the_cores_that_are_open_at_the_end_are_told(tmp_path: Path) -> None:
    text = script([Session(0, "true")], MARK, before=":", after=":", clock_file=None)
    status = tmp_path / "status"
    status.write_text("Name:\tsh\nCpus_allowed:\t7f\nCpus_allowed_list:\t0-4,6\nMems_allowed:\t1\n")
    (ran,) = session_results(lines_of(text.replace("/proc/self/status", str(status)), tmp_path), MARK)
    assert ran.allowed == "0-4,6"
    (ran,) = session_results(lines_of(text.replace("/proc/self/status", "/nowhere"), tmp_path), MARK)
    assert (ran.allowed, ran.status) == ("", 0)


def test_the_core_of_a_process_is_read_whatever_its_name(tmp_path: Path) -> None:
    stat = tmp_path / "7" / "stat"
    stat.parent.mkdir()
    # The 39th field of Linux: proc_pid_stat(5).
    fields = " ".join(map(str, range(4, 53)))
    for name in ("sh", "a b) c (d"):
        stat.write_text(f"7 ({name}) R {fields}\n".replace(" 39 ", " 5 "))
        text = CORE_OF.replace("/proc/", f"{tmp_path}/") + '\ncore_of 7; echo "$core"; core_of 8; echo "<$core>"'
        for shell in {"sh", shutil.which("mksh") or "sh"}:
            done = subprocess.run([shell, "-c", text], capture_output=True, text=True, check=True)
            assert (done.stdout, done.stderr) == ("5\n<>\n", "")


@pytest.mark.parametrize("told", [signal.SIGHUP, signal.SIGTERM])
def test_a_script_that_is_told_to_stop_stops_at_once_and_restores_once(
    told: signal.Signals, tmp_path: Path
) -> None:
    """Although it is told twice, as by a connection that closes and by whoever comes next."""
    after = "sleep 0.3; echo restored >> after"
    text = script([Session(0, "sleep 30")], MARK, before="touch began", after=after, clock_file=None)
    # Tests that are run by nohup ignore it, and a shell cannot trap what was ignored when it began.
    before = signal.signal(told, signal.SIG_DFL)
    process = subprocess.Popen(["sh", "-c", text], cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    signal.signal(told, before)
    try:
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        began = time.monotonic()
        os.kill(process.pid, told)
        time.sleep(0.1)
        os.kill(process.pid, told)
        assert process.wait(timeout=10) == 129
        assert time.monotonic() - began < 5
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "after").read_text() == "restored\n"


def test_lines_that_end_too_early_are_an_error_with_the_last_words() -> None:
    lines = [f"{MARK} begin 0", "hello", f"{MARK} end 0 0 / 1.5 / ", f"{MARK} begin 1", "Killed"]
    found = session_results(lines, MARK)
    assert next(found) == SessionResult(0, 0, "hello", 1.5, None)
    with pytest.raises(ScriptEndedError, match="Killed"):
        next(found)


def test_the_end_of_another_session_is_nobodys() -> None:
    lines = [
        f"{MARK} begin 0",
        f"{MARK} end 1 0 / 1 / ",
        f"{MARK} begin 2",
        f"{MARK} end 2 0 / 1 / ",
        f"{MARK} done",
    ]
    assert [one.number for one in session_results(lines, MARK)] == [2]


def test_everything_is_read_also_behind_the_last_mark() -> None:
    lines = iter([f"{MARK} done", "rm: nothing", ""])
    assert list(session_results(lines, MARK)) == []
    assert list(lines) == []


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), max_size=30), st.integers(0, 60))
def test_noise_between_the_marks_changes_no_session(noise: list[str], seed: int) -> None:
    noise = [line for line in noise if MARK not in line and "\n" not in line]
    lines = []
    for number in range(3):
        lines += [
            *noise[number::3],
            f"{MARK} begin {number}",
            *noise[:seed],
            f"{MARK} end {number} {seed} / 1 / 2000",
        ]
    ran = list(session_results([*lines, f"{MARK} done"], MARK))
    assert [(one.number, one.status, one.clock_mhz) for one in ran] == [(number, seed, 2.0) for number in range(3)]


def test_last_words_are_one_line_and_not_too_many() -> None:
    assert last_lines("a\n  b\n") == "a b"
    assert last_lines("") == "no output"
    assert len(last_lines("x" * 5000)) == 400


class BreaksOff:
    """A shell whose answers break off so many times."""

    where = "the phone"

    def __init__(self, times: int) -> None:
        self.times = times
        self.opened = 0

    def open(self) -> None:
        self.opened += 1

    def call(self, command: str, limit_s: float = 30.0) -> Answer:
        del command, limit_s
        self.times -= 1
        if self.times >= 0:
            raise BrokenOffError("the phone stopped in the middle of an answer")
        return Answer("\n@cars-hw part one\n1\n\n@cars-hw part two\n2\n", 0)


def test_what_is_only_read_is_asked_once_more_if_the_answer_breaks_off() -> None:
    shell = BreaksOff(1)
    found = ask(shell, {"one": "echo 1", "two": "echo 2"})  # type: ignore[arg-type]
    assert {name: text.strip() for name, text in found.items()} == {"one": "1", "two": "2"}
    assert shell.opened == 1
    with pytest.raises(BrokenOffError):
        ask(BreaksOff(2), {"one": "echo 1"})  # type: ignore[arg-type]
