"""ONNX Runtime sends nothing and leaves nothing behind, in whichever process cars-hw loads it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import offline
import pytest
from long_runs import amount

ROOT = Path(__file__).resolve().parent.parent.parent
THE_ONE = ROOT / "cars_hw" / "devices" / "host" / "ort_runtime.py"
WITHOUT_THE_PACKAGE = (
    ROOT / "benchmarks" / "runtime_worker.py",
    ROOT / "examples" / "plugin" / "cars_hw_example.py",
)
"""They run in environments without the package, or beside it, so they silence the runtime by themselves."""

SILENCED = 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"'

needs_filter = pytest.mark.skipif(
    not offline.POSSIBLE, reason="the filter of sockets is for Linux on x86-64 and arm64"
)

SILENCING = {
    "ORT_DISABLE_TELEMETRY",
    *("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID"),
    *("BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR"),
}
"""ONNX Runtime 1.32 sends nothing where one of these variables is set. Most mean a CI service."""

LIVES_S = 13
"""ONNX Runtime 1.32 opens its first socket 9 s after it was imported."""

BEGIN = """
import sys, time
import offline
offline.forbid_internet()
"""

EXPORT = """
from cars_hw.cli.main import main
main(["export", "CARS_A", "--data", "fashion-mini", "--channels", "4", "--layers", "3", "--format", "onnx",
      "--out", "models"], standalone_mode=False)
import uuid
from pathlib import Path
import numpy as np
from cars_hw.export.onnx import ONNX
# The quantiser names things by uuid1, which reads the network card's address through a socket without a connection.
uuid._generate_time_safe, uuid._node = None, 1
feeds = [{"image": np.full((1, 1, 28, 28), level, np.float32)} for level in (0.0, 1.0)]
assert ONNX.quantize(Path("models/CARS_A.onnx").read_bytes(), feeds, {}, "asymmetric")
assert "onnxruntime.quantization" in sys.modules
"""

CLASSIFY = """
from cars_hw.cli.main import main
main(["classify", "models/CARS_A.onnx", "image.png"], standalone_mode=False)
assert "onnxruntime" in sys.modules
"""

MEASURE = """
from pathlib import Path
from cars_hw import MeasurePlan
from cars_hw.devices import OrtDevice
model = Path("models/CARS_A.onnx")
# A killed process gives no second sample.
plan = MeasurePlan(min_runs=5, min_seconds=0.0)
samples = OrtDevice().run([model, model], plan, 0, lambda done: time.sleep({lives} if done == 1 else 0))
assert len(samples) == 2
assert "onnxruntime" not in sys.modules
"""

UNSILENCED = """
import os
import onnxruntime
from cars_hw.devices.host.ort_worker import open_session
open_session("models/CARS_A.onnx", 1, 0, []).run()
"""

SOCKET = """
import socket
socket.socket(socket.AF_UNIX).close()
print("still here", flush=True)
socket.socket(socket.{family})
"""

END = """
print("done", flush=True)
time.sleep({lives})
"""


class Ended(NamedTuple):
    """How a process ended: exit status, output, and the files in its home folder."""

    status: int
    output: str
    home: list[str]


class Process:
    """A process with an empty home folder that may open no internet socket."""

    def __init__(self, code: str, folder: Path, home: Path) -> None:
        home.mkdir()
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in SILENCING and not name.startswith("XDG_")
        }
        paths = [str(ROOT / "tests"), str(ROOT)]
        self._home = home
        self._process = subprocess.Popen(
            [sys.executable, "-c", BEGIN + code],
            cwd=folder,
            env={**environment, "HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._said = ""

    def wait_for(self, line: str) -> None:
        """Return when the process prints ``line``, or ends."""
        assert self._process.stdout is not None
        for said in self._process.stdout:
            self._said += said
            if said.strip() == line:
                return

    def end(self) -> Ended:
        """Return how it ended."""
        output, _ = self._process.communicate(timeout=120)
        files = sorted(str(path.relative_to(self._home)) for path in self._home.rglob("*") if path.is_file())
        return Ended(self._process.returncode, self._said + output, files)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """The processes of every kind, all at the same time, because they mostly wait."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("telemetry")
    Image.new("L", (28, 28), 100).save(folder / "image.png")
    end = END.format(lives=LIVES_S)
    running = {"export": Process(EXPORT + end, folder, folder / "home-export")}
    # The others need the file that it writes.
    running["export"].wait_for("done")
    codes = {"classify": CLASSIFY + end, "measure": MEASURE.format(lives=LIVES_S), "unsilenced": UNSILENCED + end}
    running |= {name: Process(code, folder, folder / f"home-{name}") for name, code in codes.items()}
    return {name: process.end() for name, process in running.items()}


@needs_filter
@pytest.mark.skipif(not amount(0, 1), reason="long: the processes wait for 13 seconds; imports are checked below")
@pytest.mark.parametrize("kind", ["export", "classify", "measure"])
def test_no_process_opens_an_internet_socket_or_writes_to_the_home_folder(
    kind: str, ended: dict[str, Ended]
) -> None:
    assert ended[kind].status == 0, ended[kind].output
    assert ended[kind].home == []


@needs_filter
@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_a_runtime_that_is_imported_in_another_way_is_caught(ended: dict[str, Ended]) -> None:
    spec = find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    libraries = list((Path(spec.origin).parent / "capi").glob("onnxruntime_pybind11_state*"))
    assert libraries
    if not any(b"ORT_DISABLE_TELEMETRY" in path.read_bytes() for path in libraries):
        pytest.skip("this ONNX Runtime has no telemetry")
    assert ended["unsilenced"].status == offline.KILLED
    assert "done" in ended["unsilenced"].output
    assert any(path.startswith(".cache/Microsoft/") for path in ended["unsilenced"].home)


@needs_filter
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_the_filter_kills_a_process_that_opens_a_socket(family: str, tmp_path: Path) -> None:
    killed = Process(SOCKET.format(family=family), tmp_path, tmp_path / "home").end()
    assert (killed.status, killed.output) == (offline.KILLED, "still here\n")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of every module that ``tree`` imports, also through ``import_module`` or a like call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Call) and re.search(r"import|load_module", ast.unparse(node.func)):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value


def other_imports(source: str) -> list[int]:
    """Return the lines of ``source`` that import ONNX Runtime."""
    return [line for line, name in imports(ast.parse(source)) if name.partition(".")[0] == "onnxruntime"]


def before_import(source: str, line: int) -> str:
    """Return the line of ``source`` before ``line``, which is counted from 1."""
    return source.splitlines()[line - 2].strip()


def test_only_one_module_imports_the_runtime() -> None:
    found, files = [], 0
    for folder in ("cars_hw", "benchmarks", "tests", "tools", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            files += 1
            lines = other_imports(path.read_text(encoding="utf-8"))
            if path in WITHOUT_THE_PACKAGE:
                assert [before_import(path.read_text(encoding="utf-8"), line) for line in lines] == [SILENCED]
            elif path != THE_ONE:
                found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert files > 200
    assert found == []
    assert len(other_imports(THE_ONE.read_text(encoding="utf-8"))) == 2


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import onnxruntime", [1]),
        ("import os\ndef f():\n    import onnxruntime as ort", [3]),
        ("from onnxruntime.quantization import quantize_static", [1]),
        ("from importlib import import_module\nimport_module('onnxruntime.capi')", [2]),
        ("__import__('onnxruntime')", [1]),
        ("pytest.importorskip('onnxruntime')", [1]),
        ("import onnx\nfrom cars_hw.devices.host import ort_runtime\nmetadata.version('onnxruntime')", []),
    ],
)
def test_an_import_in_another_way_is_found(source: str, lines: list[int]) -> None:
    assert other_imports(source) == lines


def test_documented_code_silences_the_runtime_before_it_imports_it() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    importing = 0
    for page in pages:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            before, found, _ = block.partition("import onnxruntime")
            if found:
                importing += 1
                assert 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"' in before, page
    assert importing == 2
