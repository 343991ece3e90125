"""What helps against an error, in the words of the command line; the library names no option."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

import cars_hw
from cars_hw.cli.hints import HINTS, message_of, with_hint
from cars_hw.cli.main import SUMMARIES, main
from cars_hw.errors import BudgetError, CarsHwError, Remedy, RunError

PACKAGE = Path(cars_hw.__file__).parent


def options_of(command: click.Command) -> set[str]:
    found = {option for parameter in command.params for option in parameter.opts}
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            found |= options_of(below)
    return found


def test_each_remedy_has_words() -> None:
    assert set(HINTS) == set(get_args(Remedy))


@pytest.mark.parametrize("hint", HINTS.values())
def test_words_name_commands_and_options_that_there_are(hint: str) -> None:
    for name in re.findall(r"cars-hw ([a-z]+)", hint):
        assert name in SUMMARIES, hint
    assert set(re.findall(r"--[a-z][a-z0-9-]*", hint)) <= options_of(main) | {"--help"}, hint


def test_the_message_comes_first_and_then_what_helps() -> None:
    error = RunError("no network of run has been trained", remedy="train", run=Path("run"))
    assert str(error) == "no network of run has been trained"
    assert message_of(error) == "no network of run has been trained; first run: cars-hw train run"
    assert message_of(RunError("two\nlines")) == "two lines"
    assert with_hint("a message", None) == "a message"


def test_an_error_that_a_worker_sends_arrives_whole() -> None:
    # A copy is made as pickle makes it: from the arguments and the attributes.
    error = BudgetError("no architecture", (1.5, 2.5), remedy="smaller-network", number=3)
    again = copy.copy(error)
    assert type(again) is BudgetError
    assert (str(again), again.smallest, again.remedy, again.about) == (
        "no architecture",
        (1.5, 2.5),
        "smaller-network",
        {"number": 3},
    )


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of an error of this package outside of the command line, with where it stands."""
    names = {name for name, value in vars(cars_hw.errors).items() if isinstance(value, type)}
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_no_error_of_the_library_names_an_option_or_a_command() -> None:
    calls = list(raised())
    assert len(calls) > 100
    named = re.compile(rf"(?<![\w-])--[a-z]|cars-hw ({'|'.join(SUMMARIES)})\b")
    for where, call in calls:
        for node in ast.walk(call):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not named.search(node.value), f"{where}: {node.value}"


def test_the_values_that_words_need_are_given() -> None:
    for where, call in raised():
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if "remedy" not in given:
            continue
        for remedy in [node.value for node in ast.walk(given["remedy"]) if isinstance(node, ast.Constant)]:
            needed = set(re.findall(r"\{(\w+)\}", HINTS.get(remedy, "")))
            assert needed <= given.keys(), f"{where}: {remedy} needs {needed}"


def test_every_error_of_the_package_is_a_cars_hw_error() -> None:
    assert all(issubclass(value, CarsHwError) for value in vars(cars_hw.errors).values() if isinstance(value, type))
