"""Every example of README.md and docs/ runs: what a reader copies is what is tried here.

Python blocks of a page are run in their order, in one namespace and one folder, as a reader would. The commands of
each console block are run in a fresh copy of a folder that holds what they take for granted; see ``stand_ins``.
What cannot be run here is in :data:`NOT_RUN`, with the reason, and is checked as far as it goes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

import click
import pytest
from click.testing import CliRunner
from stand_ins import FEWER, make_small, make_world, write_quickly

from cars_hw.cli.main import main

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

RUN_TAGS = ("console", "python")
SHOWN_TAGS = ("text", "json", "toml", "html", "kotlin")
"""Blocks that only show something: output, formats, formulas. No line of theirs may be a command."""

NOT_RUN = {
    r"make \w+": "installs, or takes minutes: the target has to exist",
    r"cars-hw runner fetch\b": "fetches from the network: the command line has to be one that click accepts",
    r"cars-hw experiment\b": "takes minutes, and is run in tests/studies: click has to accept it",
    r"cars-hw baselines \S+ --seeds\b": "searches many times, and is run in tests/pipeline: click has to accept it",
    r"cars-hw search .*--epochs 25\b": "takes long on any images: click has to accept it",
    r"cars-hw train own --data /mnt/photos": "needs a moved folder, as in tests/pipeline/test_data_facts.py",
    r"cars-hw train run .*(--executor|cluster\.toml)": "needs a cluster: click has to accept it",
    r"cars-hw search --data birds\b": "takes long, and is run smaller in tests/pipeline/test_small_data.py",
    r"cars-hw train run .*--teacher\b": "needs weights of a large network; as in tests/training/test_teacher.py",
    r"cars-hw train run --init\b": "needs trained weights; as in tests/pipeline/test_starting_weights.py",
    r"cars-hw search --data big\b": "needs a large folder; as in tests/pipeline/test_streamed_run.py",
    r"cars-hw .*(\bmobile\.json|--family mobile|\bblocks\b)": "takes long, and is run smaller in "
    "tests/cli/test_mobile_search.py: click has to accept it",
    r"cars-hw \w+ .*\bresolutions\.json": "takes long, and is run smaller in tests/cli: click has to accept it",
    r"(\S*python3? )?benchmarks/": "takes minutes: the script has to exist and to accept the arguments",
    r"(\S*python3? )?tools/": "writes into the repository: the script has to exist",
    r"(\S*pytest|\S*python3? -m pytest)\b": "is this very suite: the files have to exist",
    r"cars-hw \w+ .*ort:openvino": "needs another wheel of ONNX Runtime; as in tests/devices/test_accelerator.py",
    r"cars-hw (energy\b|\w+ .*\bbattery\.json|verify .*--energy)": "needs a counter; as in tests/devices",
    r"git \w+|cd \w+|pip (un)?install": "is not ours: nothing is checked",
}
"""What is not run, by what the command line begins with, and why; what is left to check is checked."""

SHOWN_ELSEWHERE = ("quickstart.md",)
"""Pages with the command lines of another page and other figures: click has to accept them."""

MODELS_ARE_RUN = ("use-from-python.md", "extend.md", "make-plots.md", "track-experiments.md", "measure-energy.md")
"""Pages whose Python has devices that look into model files; elsewhere only their size counts."""

COMMAND = re.compile(
    r"(\$ )?(?P<line>(cars-hw|make|torchrun|git|cd|pip|pytest|\S*python3?|\S*bin/\w+) .*|cars-hw)$"
)


class Block(NamedTuple):
    """A fenced block: its page, the line of its fence, its tag and its text, not indented."""

    page: Path
    line: int
    tag: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    pattern = re.compile(r"^(?P<indent> *)```(?P<tag>\S*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
    content = page.read_text(encoding="utf-8")
    for found in pattern.finditer(content):
        text = re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        yield Block(page, content.count("\n", 0, found.start()) + 1, found["tag"], text)


def commands(block: Block) -> list[str]:
    """Return the command lines of a block, whole where they go on after a backslash; other lines are output."""
    joined = block.text.replace("\\\n", " ")
    return [found["line"] for line in joined.splitlines() if (found := COMMAND.match(line))]


BLOCKS = [block for page in PAGES for block in blocks(page)]
CONSOLES = [block for block in BLOCKS if block.tag == "console"]
PYTHON_PAGES = [page for page in PAGES if any(block.tag == "python" for block in blocks(page))]


def name_of(where: Block | Path) -> str:
    return where.where if isinstance(where, Block) else str(where.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_says_by_its_tag_whether_it_is_run(page: Path) -> None:
    for block in blocks(page):
        assert block.tag in RUN_TAGS + SHOWN_TAGS, f"{block.where}: tag it {', '.join(RUN_TAGS + SHOWN_TAGS)}"
        if block.tag == "console":
            assert commands(block), f"{block.where} has no command line: tag it text"
        elif block.tag in SHOWN_TAGS:
            assert not commands(block), f"{block.where} has {commands(block)[0]!r}: tag it console"
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(list(blocks(page))), f"{name_of(page)} has a fence that is not closed"
    indented = re.findall(r"^ {4,}(?:\$ )?(?:cars-hw|torchrun) .*$", text, flags=re.MULTILINE)
    assert not [line for line in indented if line.strip() not in page_of_blocks(page)], (
        f"fence {indented} in {page}"
    )


def page_of_blocks(page: Path) -> str:
    return "\n".join(block.text for block in blocks(page))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        write_quickly(patch)
        make_world(folder)
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    make_small(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return monkeypatch


@pytest.mark.parametrize("block", CONSOLES, ids=name_of)
def test_command_lines_run(block: Block, world: Path, small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_quickly(small)
    folder = tmp_path / "here"
    shutil.copytree(world, folder)
    small.chdir(folder)
    remove_what_is_made(block, folder)
    for line in commands(block):
        words = shlex.split(line, comments=True)
        if block.page.name in SHOWN_ELSEWHERE or any(re.match(pattern, line) for pattern in NOT_RUN):
            check(words, block)
            continue
        if words[0] == "torchrun":
            words = ["cars-hw", *unlaunched(words, block)]
        assert words[0] == "cars-hw", f"{block.where}: {line!r} is not run; say in NOT_RUN why"
        result = CliRunner().invoke(main, words[1:], default_map=FEWER)
        assert result.exit_code == 0, f"{block.where}: {line}\n{result.output}{result.exception!r}"


def remove_what_is_made(block: Block, folder: Path) -> None:
    """Remove tables and runs that the block makes itself, and that other blocks take for granted."""
    for line in commands(block):
        words = shlex.split(line, comments=True)
        if "search" not in words and "profile" not in words:
            continue
        for flag, value in pairwise(words):
            if flag != "--out":
                continue
            # Of several devices each has a table of its own, called after it.
            for made in (folder / value, *folder.glob(f"{Path(value).stem}-*.json")):
                if made.is_dir():
                    shutil.rmtree(made)
                else:
                    made.unlink(missing_ok=True)


def check(words: list[str], block: Block) -> None:
    """Check a command line that is not run."""
    if words[0] == "make":
        done = subprocess.run(
            ["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False, env=environment()
        )
        assert done.returncode == 0, f"{block.where}: {done.stderr}"
    elif words[0] == "cars-hw":
        accepted(words[1:], block)
    elif "pytest" in words[0] or "pytest" in words:
        for word in words[words.index("pytest") + 1 if "pytest" in words else 1 :]:
            if "/" in word:
                assert (ROOT / word.partition("::")[0]).exists(), f"{block.where}: there is no {word}"
    elif "python" in words[0]:
        script = ROOT / words[1]
        assert script.is_file(), f"{block.where}: there is no {words[1]}"
        if words[1].startswith("benchmarks/"):
            arguments_accepted(script, words[2:], block)


def environment() -> dict[str, str]:
    # A make that runs these tests hands its own options to those that it starts.
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def accepted(words: list[str], block: Block) -> None:
    """Check that click takes the command line ``words``, without running the command."""
    command: click.Command = main
    context = click.Context(main, info_name="cars-hw")
    try:
        while isinstance(command, click.Group):
            name, below, words = command.resolve_command(context, words)
            assert below is not None
            command, context = below, click.Context(below, context, info_name=name)
        command.parse_args(context, list(words))
    except click.ClickException as error:
        pytest.fail(f"{block.where}: {error.format_message()}")


class ParsedError(Exception):
    """A script has taken its arguments: it need not go on."""


def arguments_accepted(script: Path, arguments: list[str], block: Block) -> None:
    """Check that the parser of ``script`` takes ``arguments``; nothing after it is run."""
    taken = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, args: object = None, namespace: object = None) -> NoReturn:
        taken(self)
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ParsedError):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", [str(script), *arguments])
        patch.syspath_prepend(str(script.parent))
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as error:
            pytest.fail(f"{block.where}: {script.name} does not take {arguments}: {error}")


def unlaunched(words: list[str], block: Block) -> list[str]:
    """Return the arguments of cars-hw behind those of torchrun, which must be ones that torchrun takes.

    One process runs them here; tests/pipeline/test_distributed.py runs several.
    """
    from torch.distributed.run import get_args_parser

    try:
        launcher = get_args_parser().parse_args(words[1:])
    except SystemExit as error:
        pytest.fail(f"{block.where}: torchrun does not take {words[1:]}: {error}")
    assert launcher.module, f"{block.where}: torchrun needs -m cars_hw"
    assert launcher.training_script == "cars_hw", block.where
    return list(launcher.training_script_args)


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name_of)
def test_python_runs(
    page: Path,
    small: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if page.name not in MODELS_ARE_RUN:
        write_quickly(small)
    if any(block.tag == "python" and "run/models/" in block.text for block in blocks(page)):
        shutil.copytree(request.getfixturevalue("world"), tmp_path, dirs_exist_ok=True)
    small.chdir(tmp_path)
    module = types.ModuleType("examples")
    small.setitem(sys.modules, "examples", module)
    for block in blocks(page):
        if block.tag != "python":
            continue
        # Blank lines before it, so that a traceback has the line of the page.
        code = compile("\n" * block.line + block.text, str(page), "exec", dont_inherit=True)
        exec(code, module.__dict__)
        printed = capsys.readouterr().out.splitlines()
        for promised in re.findall(r"^print\(.*\)  # (.+)$", block.text, flags=re.MULTILINE):
            assert promised in printed, f"{block.where} says that it prints {promised!r}; it printed {printed}"


SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FILES = re.compile(r"^(?:benchmarks|tests|tools|cars_hw|docs)/[\w./-]+")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_options_and_files_in_the_text_exist(page: Path) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    known = all_options()
    for span in SPAN.findall(prose):
        words = span.split()
        if words[0] == "cars-hw" and len(words) > 1:
            named: click.Command | None = main
            for word in words[1:]:
                if not isinstance(named, click.Group) or not re.fullmatch(r"[a-z]+", word):
                    break
                named = named.get_command(click.Context(named), word)
            assert named is not None, f"{name_of(page)}: there is no command {span!r}"
            wrong = options_in(span) - options_of(named) - {"--help"}
            assert not wrong, f"{name_of(page)}: {span!r} has no option {sorted(wrong)}"
        elif words[0].startswith("--"):
            assert words[0].rstrip(",") in known, f"{name_of(page)}: no command has an option {words[0]}"
        if found := FILES.match(words[0]):
            assert (ROOT / found[0]).exists(), f"{name_of(page)}: there is no {found[0]}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


def options_of(command: click.Command) -> set[str]:
    """Return the options of ``command`` and of all that it has below."""
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            options |= options_of(below)
    return options


@functools.cache
def all_options() -> set[str]:
    """Return every option of cars-hw, of the benchmarks and of torchrun."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")]
    scripts = {option for text in texts for option in re.findall(r'add_argument\("(--[\w-]+)"', text)}
    return options_of(main) | scripts | {"--help", "--rdzv-endpoint", "--nproc-per-node"}
