"""Every message that a phone can cause has a row in the docs, which says what helps."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import cars_hw
from cars_hw import errors
from cars_hw.devices.android import app, settings_record

SOURCE = Path(cars_hw.__file__).parent / "devices"
MODULES = (
    # What the command runner says is caused by files and addresses.
    *(path for path in sorted((SOURCE / "android").glob("*.py")) if path.name != "runner.py"),
    *(SOURCE / f"{name}.py" for name in ("remote", "remote_folder", "remote_machine", "scripted")),
)
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "measure-on-a-phone.md"
ERRORS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.DeviceError) and kind is not errors.ConnectionLostError
} | {"ConnectionLostError", "BrokenOffError", "NoOutputError", "OtherMachineError"}
SAYING = {"_warn", "_log"}
HOLE = "\0"
"""Stands for what is filled in."""

ELSEWHERE = (
    # Has its own words in the messages that it becomes a part of.
    "is not connected$",
    f"^{HOLE}$",
    f"^{HOLE}: {HOLE}$",
    f"^{HOLE}: {HOLE}{HOLE}$",
    f"^{HOLE}: {HOLE} on {HOLE}: {HOLE}: {HOLE}$",
    # Only the library causes it.
    "there is no model file",
    # What every command says that is stopped or waits.
    "^Stopping: ",
    "; waiting for up to ",
    f"^{HOLE} {HOLE}; waiting for",
)


def text_of(node: ast.expr) -> str | None:
    """Return the text that ``node`` builds, with :data:`HOLE` for what is filled in; None for another kind."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(one.value) if isinstance(one, ast.Constant) else HOLE for one in node.values)
    return None


def messages() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each message."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            text = text_of(node.args[0])
            if text is not None and called in ERRORS | SAYING:
                yield f"{path.name}:{node.lineno}", text
    for script in (settings_record.RESTORE, settings_record.CHANGE):
        for note in re.findall(r'note "((?:[^"]|\\\n)*)"', script):
            yield "settings_record.py", re.sub(r"\$\w+", HOLE, note)
    for reason in app._REASONS.values():
        yield "app.py", reason


def rows() -> list[re.Pattern[str]]:
    """Return a pattern for the message of each row; three dots stand for anything."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Messages\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    found = [one for cell in cells for one in re.findall(r"`([^`]+)`", cell)]
    return [re.compile(re.escape(one).replace(r"\.\.\.", ".*")) for one in found]


def test_each_message_has_a_row_that_says_what_helps() -> None:
    told, patterns = list(messages()), rows()
    assert len(told) > 50
    without = [
        f"{place}: {text.replace(HOLE, '{}')}"
        for place, text in told
        if not any(re.search(one, text) for one in ELSEWHERE) and not any(row.search(text) for row in patterns)
    ]
    assert not without, "\n".join(without)


def test_each_row_is_of_a_message_that_there_is() -> None:
    texts = [text for _, text in messages()]
    # Some are warnings that are put together elsewhere.
    states = SOURCE.parent / "measurement" / "states.py"
    source = "\n".join(path.read_text(encoding="utf-8") for path in (*MODULES, states))
    for row in rows():
        assert any(row.search(text) for text in texts) or row.search(source), row.pattern
