"""What the package does without its extras, and that each import is declared."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cars_hw.cli.extras import EXTRAS
from cars_hw.cli.main import main

Done = subprocess.CompletedProcess[str]

ROOT = Path(__file__).resolve().parent.parent.parent

DISTRIBUTIONS = {"PIL": "pillow", "google": "protobuf", "mlflow": "mlflow-skinny", "sklearn": "scikit-learn"}
"""The package that an import comes from, where the two names differ by more than - and _."""

CHOSEN = {"dask", "mlflow", "ray", "submitit", "wandb"}
"""Extras for engines and trackers: large packages that a user chooses one by one."""

BLOCKED = """
import json, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from cars_hw.cli.main import main
for number, command in enumerate(json.loads(sys.argv[1])):
    print(end="\\0" if number else "")
    try:
        main(command, prog_name="cars-hw")
    except SystemExit as ended:
        if ended.code:
            raise
"""


def light(*commands: tuple[object, ...], blocked: frozenset[str] = frozenset(EXTRAS)) -> Done:
    """Run cars-hw in a process in which ``blocked`` cannot be imported, until a command fails.

    Between the outputs of two commands, there is a null character.
    """
    given = json.dumps([[*map(str, command)] for command in commands])
    return subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=set(blocked)), given],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``table.json`` of the fake device and a finished ``run`` with one trained network."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for name, shade in (("dark", 40), ("light", 200)):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(shade - 30, shade + 30, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
    size = ["--channels", "4", "--layers", "3", "--resolution", "8", "--in-channels", "1", "--classes", "2"]
    table, run = str(folder / "table.json"), str(folder / "run")
    short = [
        "--preset",
        "quick",
        "--population",
        "4",
        "--epochs",
        "2",
        "--warmup-epochs",
        "1",
        "--batch-size",
        "8",
        "--no-measure",
    ]
    for command in (
        ["profile", "--device", "fake", *size, "--calibration", "8", "--out", table],
        ["search", "--data", str(folder / "images"), "--table", table, *short, "--out", run],
        ["train", run, "--top", "1", "--epochs", "1", "--batch-size", "8"],
        ["export", run],
    ):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    return folder


def test_tables_counts_and_reports_need_no_extra(made: Path) -> None:
    table, run = made / "table.json", made / "run"
    expected = {
        ("cost", "CARS_A", "--network", "imagenet"): "3,687,712",
        ("zoo",): "CARS_A",
        ("predict", "--table", table, "CARS_A"): "CARS_A",
        ("table", "diff", table, table): "operations",
        ("report", run): "report.html",
        ("data", "check", made / "images"): "A search takes this folder.",
    }
    done = light(*expected)
    assert done.returncode == 0, done.stderr
    for said, text in zip(done.stdout.split("\0"), expected.values(), strict=True):
        assert text in said
    assert "net-" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("runtime", "suffix"), [("onnxruntime", "onnx"), ("ai_edge_litert", "tflite")])
def test_one_runtime_is_enough_to_classify(made: Path, runtime: str, suffix: str) -> None:
    (model,) = (made / "run" / "models").glob(f"*.{suffix}")
    image = made / "images" / "light" / "0.png"
    wanted = {runtime} | ({"flatbuffers"} if runtime == "ai_edge_litert" else set())
    done = light(("classify", model, image), blocked=frozenset(EXTRAS) - wanted)
    assert done.returncode == 0, done.stderr
    assert re.search(r"(dark|light)\s+\d", done.stdout)


def test_a_missing_runtime_is_not_a_fault_of_the_model(made: Path) -> None:
    (model,) = (made / "run" / "models").glob("*.onnx")
    image = made / "images" / "light" / "0.png"
    done = light(("classify", model, image), blocked=frozenset({"onnxruntime"}))
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "needs onnxruntime, which is not installed; run: pip install 'cars-hw[search]'"
    )


def test_a_command_without_its_libraries_names_the_extra(made: Path) -> None:
    done = light(("train", made / "run"), blocked=frozenset({"torch"}))
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line == "Error: this command needs torch, which is not installed; run: pip install 'cars-hw[search]'"


def imported() -> dict[str, set[str]]:
    """Return the modules of the package by the library that they import, at the top or inside a function."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "cars_hw").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(str(path.relative_to(ROOT)))
    return found


def declared() -> dict[str, set[str]]:
    """Return the distributions that pyproject.toml names, by extra; ``""`` has those that are always installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~; ]", one)[0].lower() for one in requirements}

    extras = {name: names(one) for name, one in project["optional-dependencies"].items()}
    return {"": names(project["dependencies"]), **extras}


def test_each_import_is_declared_where_the_error_says() -> None:
    packages = declared()
    # The first is accepted in place of ai-edge-litert on old boards. PyTorch for CUDA brings the second along, and
    # without it PyTorch's own operations run.
    optional = {"tflite_runtime", "triton"}
    for library, modules in imported().items():
        if library in sys.stdlib_module_names or library == "cars_hw" or library in optional:
            continue
        distribution = DISTRIBUTIONS.get(library, library.replace("_", "-")).lower()
        where = packages[EXTRAS.get(library, "")]
        assert distribution in where, (
            f"{library} is imported by {sorted(modules)}, and {distribution} is not declared"
        )


def test_all_is_all_extras_that_users_need() -> None:
    (requirement,) = (
        one
        for one in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]["all"]
    )
    assert (
        set(re.findall(r"\w+", requirement.partition("[")[2]))
        == set(declared()) - {"", "all", "dev", "docs"} - CHOSEN
    )
    assert set(EXTRAS.values()) <= set(declared())
