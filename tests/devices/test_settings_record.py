"""The settings of a phone come right again, wherever the script that changes or restores them ends.

The scripts run in a shell of this machine, with a phone's commands for settings as small scripts.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from long_runs import amount

from cars_hw.devices.android.settings_record import CHANGE, RESTORE, change_text, restore_text
from cars_hw.devices.android.stop_app import STOP_APP
from cars_hw.devices.remote import Answer, BrokenOffError
from cars_hw.devices.remote_folder import RemoteFolder
from cars_hw.errors import DeviceError

SHELL = shutil.which("mksh") or "sh"
COMMANDS = {
    "settings": """\
case $1 in
  get) cat "$PHONE/value" 2>/dev/null || echo null ;;
  put) echo "$4" > "$PHONE/value" ;;
  delete) rm -f "$PHONE/value" ;;
esac""",
    "svc": 'echo 7 > "$PHONE/value"',
    "cmd": 'echo "$3" > "$PHONE/mode"',
    "input": ":",
    "fsync": ":",
}


class Local:
    """A shell of this machine with the commands of a phone."""

    where = "the phone"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "bin").mkdir()
        for name, text in COMMANDS.items():
            program = folder / "bin" / name
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)

    def call(self, command: str, limit_s: float = 30.0) -> Answer:
        done = subprocess.run(
            [SHELL, "-c", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
            env={"PHONE": str(self._folder), "PATH": f"{self._folder}/bin:{os.environ['PATH']}"},
        )
        if done.returncode == -9:
            raise BrokenOffError("it died")
        return Answer(done.stdout, done.returncode)


def places(text: str) -> list[int]:
    """Return the lines of ``text`` after which another command can stand."""
    lines = text.splitlines()
    return [number for number, line in enumerate(lines, start=1) if not line.endswith(" in")][:-1]


def dying(text: str, line: int) -> str:
    lines = text.splitlines()
    return "\n".join([*lines[:line], "kill -9 $$", *lines[line:]])


CASES = [
    (name, line, value)
    for name, text in (("change", CHANGE), ("restore", RESTORE))
    for line in places(text)
    for value in (None, "0", "3")
]


@pytest.mark.parametrize(("name", "line", "value"), random.Random(0).sample(CASES, amount(2, len(CASES))))
def test_settings_are_right_at_the_next_contact_wherever_a_script_ended(
    name: str, line: int, value: str | None, tmp_path: Path
) -> None:
    local, path = Local(tmp_path), f"{tmp_path}/cars-hw"
    restore, change = restore_text(path, STOP_APP), change_text(path)
    if value is not None:
        (tmp_path / "value").write_text(f"{value}\n")

    def contact() -> RemoteFolder:
        made = RemoteFolder(local, path, restore=restore, log=lambda _: None)  # type: ignore[arg-type]
        made.claim()
        return made

    one = contact()
    try:
        if name == "change":
            local.call(f"{one.functions}\n{dying(change, line)}")
        else:
            local.call(f"{one.functions}\n{change}")
            text = restore_text(path, "stop_app() { :; }")
            begin = text.index("stay_on()")
            local.call(f"{one.functions}\n{dying(text[begin:], line)}\nrestore")
    except DeviceError:
        pass
    one.give_up()
    contact().leave()
    assert ((tmp_path / "value").read_text() if (tmp_path / "value").exists() else None) == (
        None if value is None else f"{value}\n"
    )
    assert not (tmp_path / "mode").exists() or (tmp_path / "mode").read_text() == "false\n"
    assert not Path(path).exists()
