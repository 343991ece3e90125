"""docs/reference/commands.md has every command and every option; it and files.md are what their tools make."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cars_hw.cli.exit_codes import MEANINGS
from cars_hw.cli.main import SUMMARIES, main
from cars_hw.cli.verbosity import EVERYWHERE

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "reference" / "commands.md"
REMAKE = ".venv/bin/python tools/make_commands_page.py"

SHORTEST_HELP = 15
"""Characters: with fewer, nothing is said that the option's name does not say."""


def walk(command: click.Command, path: str = "cars-hw") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from walk(below, f"{path} {name}")


COMMANDS = dict(walk(main))


def options_of(command: click.Command) -> list[click.Option]:
    """Return the options of ``command``, but for those that every command has: the group's section has them."""
    everywhere = () if isinstance(command, click.Group) else EVERYWHERE
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return [option for option in options if option.name not in everywhere]


def names_of(command: click.Command) -> set[str]:
    return {name for option in options_of(command) for name in (*option.opts, *option.secondary_opts)}


def sections() -> dict[str, str]:
    parts = re.split(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def remade(tool: str) -> str:
    """Return the page that ``tools/TOOL.py`` makes."""
    path = ROOT / "tools" / f"{tool}.py"
    spec = importlib.util.spec_from_file_location(tool, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        patch.setitem(sys.modules, tool, module)
        spec.loader.exec_module(module)
    return str(module.page())


def test_the_page_has_every_command_and_no_other() -> None:
    assert len(COMMANDS) > 15
    assert sections().keys() == COMMANDS.keys(), f"make the page again: {REMAKE}"


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_and_each_of_its_options_are_documented(path: str) -> None:
    command = COMMANDS[path]
    assert command.help, f"{path} has no docstring"
    for option in options_of(command):
        text = option.help or ""
        assert len(text) >= SHORTEST_HELP, (
            f"{path} {option.opts[0]}: say what it changes and in which unit: {text!r}"
        )
        assert not option.hidden, f"{path} {option.opts[0]} is hidden"
    told = sections().get(path, "")
    listed = {
        name
        for line in re.findall(r"^- `(-[^`]+)`", told, flags=re.MULTILINE)
        for name in re.findall(r"(?<![\w-])--?[a-z][\w-]*", line)
    }
    missing, gone = names_of(command) - listed, listed - names_of(command)
    assert not missing, f"docs/reference/commands.md lacks {sorted(missing)} of {path}; make it again: {REMAKE}"
    assert not gone, f"{path} has no {sorted(gone)} any more; make docs/reference/commands.md again: {REMAKE}"
    for argument in command.params:
        if isinstance(argument, click.Argument):
            name = argument.make_metavar(click.Context(command))
            assert name in told, f"docs/reference/commands.md lacks the argument {name} of {path}: {REMAKE}"


@pytest.mark.parametrize(("page", "tool"), [("commands", "make_commands_page"), ("files", "make_files_page")])
def test_a_generated_page_is_up_to_date(page: str, tool: str) -> None:
    # Not compared by assert on the two texts: their difference would hide what to do.
    if (PAGE.parent / f"{page}.md").read_text(encoding="utf-8") != remade(tool):
        pytest.fail(f"docs/reference/{page}.md is out of date; make it again: .venv/bin/python tools/{tool}.py")


def test_the_page_has_every_exit_code() -> None:
    listed = re.findall(r"^\| (\d+) \| ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert listed == [str(int(code)) for code in MEANINGS]


def test_every_command_is_in_the_overview_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in SUMMARIES:
        assert f"cars-hw {name} " in readme, (
            f"README.md, after `Each step is a command`, does not name cars-hw {name}"
        )
