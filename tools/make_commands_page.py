"""Make docs/reference/commands.md, every command and every option, from the help that the commands have.

::

    .venv/bin/python tools/make_commands_page.py

``tests/docs/test_commands_page.py`` fails if the page is not what this writes.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from cars_hw.cli.exit_codes import MEANINGS
from cars_hw.cli.main import COMPLETION
from cars_hw.cli.main import main as cars_hw
from cars_hw.cli.verbosity import EVERYWHERE
from cars_hw.config.files import write_text

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "commands.md"
REMAKE = ".venv/bin/python tools/make_commands_page.py"
WIDTH = 120

EXIT_CODES = "\n".join(f"| {code:d} | {meaning} |" for code, meaning in MEANINGS.items())

INTRODUCTION = f"""# Every command and every option

This page is made from the help of the commands (`--help` or `-h`) by `{REMAKE}`. A test fails if
it is out of date.

- Square brackets at the end of an option show its default and the values that it accepts. `[default: 0; x>=0]`
  means that the default is 0 and that values below 0 are rejected. `[--network's]` and `[the preset's]` mean that
  the default comes from that option.
- RUN is a run folder, which `cars-hw search --out` writes. TABLE is a latency table, which
  `cars-hw profile --out` writes.
- Tables and JSON are written to standard output, progress and warnings to standard error.
- `--verbose` and `--quiet` can also be written after the command.

## Exit codes

| code | meaning |
|---|---|
{EXIT_CODES}

An error is one line on standard error: what happened, and what to do next.

## Completion

Write `{COMPLETION}` into `~/.bashrc`. bash then completes commands, options,
devices, networks, presets, recipes and genotypes. For zsh and fish, write `zsh_source` or `fish_source` instead of
`bash_source`.

## Commands
"""


class Documented(NamedTuple):
    """A command, by the words that call it, such as ``cars-hw table diff``."""

    path: str
    command: click.Command

    @property
    def context(self) -> click.Context:
        """Return what click formats the command's help with."""
        return click.Context(self.command, info_name=self.path)

    @property
    def options(self) -> list[click.Option]:
        """Return its own options, in the order of its help; those of every command stand at ``cars-hw``."""
        everywhere = () if isinstance(self.command, click.Group) else EVERYWHERE
        options = [parameter for parameter in self.command.params if isinstance(parameter, click.Option)]
        return [option for option in options if option.name not in everywhere]


def documented(command: click.Command = cars_hw, path: str = "cars-hw") -> Iterator[Documented]:
    """Yield ``command`` and all that it has below, each before its own."""
    yield Documented(path, command)
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from documented(below, f"{path} {name}")


def page() -> str:
    """Return the page, Markdown."""
    found = list(documented())
    contents = [f"- [`{one.path}`](#{one.path.replace(' ', '-')}): {first_sentence(one)}" for one in found]
    return "\n".join([INTRODUCTION, *contents, "", *(section(one) for one in found)]).rstrip() + "\n"


def first_sentence(one: Documented) -> str:
    """Return what the command does, in one sentence."""
    return one.command.get_short_help_str(limit=200).rstrip(".")


def section(one: Documented) -> str:
    """Return what the page says of one command."""
    # What a usage line leaves out, the command's own name, is its heading.
    arguments = " ".join(one.command.collect_usage_pieces(one.context))
    parts = [f"### {one.path}", f"Usage: `{one.path} {arguments}`", *paragraphs(one.command.help or "")]
    if one.options:
        parts.append("\n".join(option_line(option, one.context) for option in one.options))
    return "\n\n".join(parts) + "\n"


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; what click must not wrap, and is indented, is a block of commands."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if not paragraph.startswith("\b"):
            yield wrapped(paragraph)
            continue
        lines = paragraph.splitlines()[1:]
        prose = [line for line in lines if not line.startswith(" ")]
        commands = [line for line in lines if line.startswith(" ")]
        if prose:
            yield wrapped(" ".join(prose))
        if commands:
            yield "```console\n" + textwrap.dedent("\n".join(commands)) + "\n```"


def option_line(option: click.Option, context: click.Context) -> str:
    """Return the option as an item of a list."""
    record = option.get_help_record(context)
    assert record is not None, f"{option.name} is hidden"
    names, text = record
    return wrapped(f"- `{names}`: {' '.join(text.split())}", "  ")


def wrapped(text: str, indent: str = "") -> str:
    """Return ``text`` in lines of at most :data:`WIDTH` characters, an address left whole."""
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    write_text(PAGE, page())
    print(f"{PAGE}: {len(list(documented()))} commands")
