"""Scripts that call the package from Python: without a main guard, from standard input, from a source tree."""

from __future__ import annotations

import ast
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from long_runs import amount
from PIL import Image
from work_of_workers import fail

from cars_hw.errors import InputError, RunError
from cars_hw.executors.workers import side_by_side

ROOT = Path(__file__).resolve().parent.parent.parent

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import cars_hw

print("the script begins")
device = cars_hw.open_device("ort")
spec = cars_hw.NetworkSpec(channels=4, layers=3, resolution=(8, 8), in_channels=1, classes=2)
once = cars_hw.MeasurePlan(sessions=1, min_runs=2, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0)
known = cars_hw.resolve_genotype("CARS_A")
(measured,) = cars_hw.measure_genotypes(device, spec, [known], once).models
assert measured.ms > 0
quick = cars_hw.PRESETS["quick"]
preset = replace(
    quick,
    evolution=replace(quick.evolution, population=2, epochs=2, warmup_epochs=1, epochs_per_generation=1),
    training=replace(quick.training, batch_size=8),
    recipe=replace(quick.recipe, epochs=1, batch_size=8),
)
data = cars_hw.DataSource("images")
run = cars_hw.run_search(cars_hw.SearchPlan(data, spec, preset, costs=("parameters",)), Path("run"))
trained = cars_hw.train_run(run, cars_hw.TrainSettings(data, top=1, jobs=2))
print("trained", len(trained) > 0)
"""
"""No guard, a worker, and a device that runs models in a process of its own."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder in which ``images`` is a data set of two classes."""
    rng = np.random.default_rng(0)
    for name, shade in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(24):
            pixels = rng.integers(shade - 30, shade + 30, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def run_python(*arguments: str, folder: Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


WORKERS = """
import sys
from pathlib import Path
from work_of_workers import write
from cars_hw.executors.workers import side_by_side
print("begun", flush=True)
log = []
side_by_side(write, [Path(name) for name in "abc"], 2, lambda *_: None, log.append)
print(sorted(log))
"""


@pytest.mark.parametrize("how", ["-c", "file", "-i"][: amount(1, 3)])
def test_workers_never_run_the_script_of_their_caller(how: str, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{WORKERS}"
    if how == "file":
        (tmp_path / "script.py").write_text(code)
        done = run_python("script.py", folder=tmp_path)
    elif how == "-c":
        done = run_python("-c", code, folder=tmp_path)
    else:
        done = run_python("-i", "-q", folder=tmp_path, given=code)
    assert done.returncode == 0, done.stderr
    told = [f"{name} worker_process.py" for name in "abc"]
    assert done.stdout.split("\n")[:2] == ["begun", str(told)]
    assert [(tmp_path / name).read_text() for name in "abc"] == ["done"] * 3


def quiet(*_: object) -> None:
    pass


def test_a_failed_task_is_raised_after_those_that_had_begun(tmp_path: Path) -> None:
    slow, never = tmp_path / "slow", tmp_path / "never"
    with pytest.raises(InputError, match=r"^it failed$") as raised:
        side_by_side(fail, [str(slow), "fail", str(never)], 2, quiet, quiet)
    assert raised.value.remedy == "zoo"
    assert 'raise InputError("it failed"' in str(raised.value.__cause__)
    assert slow.exists()
    assert not never.exists()


def test_an_error_that_cannot_be_sent_is_told_in_words() -> None:
    with pytest.raises(RuntimeError, match=r"^OddError: 1 and 2$"):
        side_by_side(fail, ["unpicklable"], 2, quiet, quiet)


def test_a_worker_that_is_killed_is_one_line() -> None:
    with pytest.raises(RunError, match="a worker process was ended by SIGKILL in the midst of its task"):
        side_by_side(fail, ["kill"], 1, quiet, quiet)


def test_what_only_the_script_has_is_one_line_that_names_it(images: Path) -> None:
    code = "\n".join(
        [
            "import sys",
            "from pathlib import Path",
            "from cars_hw.executors.workers import side_by_side",
            "def work(task, progress, log): pass",
            "class Task: pass",
            "from work_of_workers import write",
            "for what, task in ((work, 1), (write, Task()), (write, lambda: 1)):",
            "    try:",
            "        side_by_side(what, [task], 2, print, print)",
            "    except Exception as error:",
            "        print(type(error).__name__, error)",
        ]
    )
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{code}"
    done = run_python("-c", code, folder=images)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert [line.split(" ")[:2] for line in told] == [
        ["InputError", "work"],
        ["InputError", "Task"],
        ["InputError", "<lambda>"],
    ]
    assert all("define it in a module, or use jobs=1" in line for line in told)


SOURCE_TREE = """
import importlib.metadata as metadata, sys
original = metadata.Distribution.from_name.__func__
def from_name(cls, name):
    if name.lower().replace("_", "-") == "cars-hw":
        raise metadata.PackageNotFoundError(name)
    return original(cls, name)
metadata.Distribution.from_name = classmethod(from_name)
sys.path.insert(0, "tree")
"""


def test_a_script_without_a_guard_searches_from_a_source_tree_that_was_not_installed(
    images: Path,
) -> None:
    tree = images / "tree"
    tree.mkdir()
    # With its bytecode, but for what is being written: to compile it takes longer than the search.
    shutil.copytree(ROOT / "cars_hw", tree / "cars_hw", ignore=shutil.ignore_patterns("*.pyc.*"))
    shutil.copyfile(ROOT / "pyproject.toml", tree / "pyproject.toml")
    declared = re.search(r'^version = "(.*)"$', (tree / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    check = """
(one, *_) = cars_hw.export_run(run, data=data, formats=["onnx"])
assert cars_hw.__file__.startswith(str(Path("tree").resolve())), cars_hw.__file__
print(run.about.versions["cars-hw"], one.card.versions["cars-hw"], run.steps()[0].version)
from cars_hw.cli.main import main
main(["--version"], prog_name="cars-hw", standalone_mode=False)
"""
    script = (SOURCE_TREE + SCRIPT + check).replace('sys.path.insert(0, "tree")', f'sys.path.insert(0, "{tree}")')
    done = subprocess.run(
        [sys.executable, "-"],
        cwd=images,
        env={name: value for name, value in environment().items() if name != "PYTHONPATH"},
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    source = f"{declared[1]}+source"
    # The script ran once: a worker that imported it would print its lines again.
    assert done.stdout.splitlines() == [
        "the script begins",
        "trained True",
        f"{source} {source} {source}",
        f"cars-hw, version {source}",
    ]
    assert done.stderr == ""


def test_without_metadata_and_pyproject_the_version_is_unknown(tmp_path: Path) -> None:
    from cars_hw.version import _of_source_tree

    assert _of_source_tree(tmp_path / "pyproject.toml") == "0+unknown"
    for content in ("[", "[project]\nname = 'other'\nversion = '1'", "project = 1", "[project]\nname = 'cars-hw'"):
        (tmp_path / "pyproject.toml").write_text(content)
        assert _of_source_tree(tmp_path / "pyproject.toml") == "0+unknown"


PROGRESS = """
from cars_hw.progress_line import show
show("reading images", 48, 48)
"""


def in_terminal(code: str, folder: Path, term: str = "xterm") -> str:
    """Return what ``code`` writes to standard error, which is a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(TERM=term, XDG_CACHE_HOME=str(folder / "cache"), HOME=str(folder)),
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    said = b""
    while True:
        try:
            more = os.read(leader, 4096)
        except OSError:
            break
        if not more:
            break
        said += more
    os.close(leader)
    assert process.wait() == 0, said
    return said.decode()


def test_progress_is_drawn_in_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    said = in_terminal(PROGRESS, tmp_path)
    assert said == "\rreading images: 48/48\r\n"
    assert in_terminal(PROGRESS, tmp_path, term="dumb") == ""
    done = run_python("-c", PROGRESS, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


OF_THE_COMMAND_LINE = (
    *("cli", "config", "pipeline/settings.py", "pipeline/device_settings.py", "studies/settings.py"),
    "space/wanted_sizes.py",
)
"""The options themselves, and the texts of their help."""

OF_OTHER_PROGRAMS = (
    *(
        f"devices/{name}.py"
        for name in (
            "android/app",
            "android/benchmark_model",
            "host/accelerator",
            "host/ort_worker",
            "host/providers",
            "host/runtimes",
            "host/session_worker",
        )
    ),
    "executors/dask_engine.py",
)

COMMANDS = ("pipeline/further_table.py", "report/data.py", "pipeline/search.py")
"""They write down the command that repeats a search; what they raise is looked at."""


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the texts in ``tree`` that are no docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = set()
    for node in ast.walk(tree):
        for before, after in pairwise(getattr(node, "body", [])) if isinstance(node, documented) else ():
            # What stands below an assignment is its documentation.
            if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
                docstrings.add(id(after.value))
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr):
            docstrings.add(id(node.body[0].value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node


def test_no_message_of_the_library_names_an_option() -> None:
    found, looked_at = [], 0
    for path in (ROOT / "cars_hw").rglob("*.py"):
        name = path.relative_to(ROOT / "cars_hw").as_posix()
        if name.startswith(OF_THE_COMMAND_LINE) or name in OF_OTHER_PROGRAMS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
        for part in raised if name in COMMANDS else [tree]:
            for text in texts(part):
                looked_at += 1
                options = re.findall(r"(?<![\w-])--[a-z][\w-]*", str(text.value))
                found += [f"{name}:{text.lineno}: {option}" for option in options]
    assert looked_at > 3000
    assert found == []
