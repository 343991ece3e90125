"""Completion in the shell, asked for as bash, zsh and fish ask for it."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest
from click.testing import CliRunner

from cars_hw.cli import completion
from cars_hw.cli.main import COMPLETION, SUMMARIES, main
from cars_hw.config.presets import PRESETS
from cars_hw.config.recipes import RECIPES
from cars_hw.devices import open_device
from cars_hw.errors import InputError
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.zoo import whole_zoo
from cars_hw.studies.published_front import TORCHVISION
from cars_hw.studies.settings import StrategyName


def completed(line: str) -> list[tuple[str, str]]:
    """Return what bash is told at the end of ``line``: the kind of each completion, and its text."""
    words = line.split(" ")
    variables = {
        "_CARS_HW_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    result = CliRunner().invoke(main, prog_name="cars-hw", env=variables)
    assert result.exit_code == 0, result.output
    return [(kind, text) for kind, _, text in (one.partition(",") for one in result.stdout.splitlines())]


def names(line: str) -> list[str]:
    return [text for kind, text in completed(line) if kind == "plain"]


def test_commands_are_completed() -> None:
    assert names("cars-hw ") == list(SUMMARIES)
    assert names("cars-hw pr") == ["profile", "predict"]
    assert names("cars-hw table ") == ["diff", "show"]
    assert names("cars-hw run") == ["runner"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cars-hw profile --device ", ["ort", "litert", "android", "fake", "ssh"]),
        ("cars-hw verify run --device l", ["litert"]),
        ("cars-hw experiment tables --device o", ["ort"]),
        ("cars-hw search --network ", list(NETWORKS)),
        ("cars-hw search --preset ", list(PRESETS)),
        ("cars-hw baselines run --against ", list(get_args(StrategyName))),
        ("cars-hw train run --recipe ", list(RECIPES)),
        ("cars-hw train run --recipe i", ["imagenet-cars"]),
        ("cars-hw export run --format ", ["onnx", "tflite"]),
        ("cars-hw export run --format onnx,", ["onnx,tflite"]),
        ("cars-hw experiment front run --reference ResN", ["ResNet-18"]),
        ("cars-hw experiment front run --reference CARS_A", ["CARS_A"]),
        ("cars-hw predict --state u", ["usual"]),
        ("cars-hw search --state ", ["quiet", "usual", "sustained"]),
        ("cars-hw cost --verb", ["--verbose"]),
    ],
)
def test_names_are_completed(line: str, expected: list[str]) -> None:
    assert names(line) == expected


@pytest.mark.parametrize("line", ["cars-hw cost ", "cars-hw train run --genotype ", "cars-hw export "])
def test_a_genotype_is_a_published_name_or_a_file(line: str) -> None:
    assert completed(line) == [("file", ""), *(("plain", name) for name in whole_zoo())]
    assert completed(f"{line}CARS_B") == [("file", "CARS_B"), ("plain", "CARS_B")]


def test_data_is_a_name_or_a_folder() -> None:
    assert completed("cars-hw search --data fashion-mi") == [("dir", "fashion-mi"), ("plain", "fashion-mini")]
    assert completed("cars-hw train run --data ci") == [("dir", "ci"), ("plain", "cifar10")]


def test_the_names_are_those_that_there_are() -> None:
    assert set(completion.REFERENCES) == set(TORCHVISION)
    with pytest.raises(InputError) as refused:
        open_device("abacus")
    assert set(str(refused.value).partition("use one of: ")[2].split(", ")) == set(completion.DEVICES)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell_is_printed(shell: str) -> None:
    env = {"_CARS_HW_COMPLETE": f"{shell}_source"}
    result = CliRunner().invoke(main, prog_name="cars-hw", env=env)
    assert result.exit_code == 0, result.output
    assert "_CARS_HW_COMPLETE=" in result.stdout
    assert COMPLETION in CliRunner().invoke(main, ["--help"]).stdout


def test_completion_imports_nothing_heavy() -> None:
    code = (
        "import os, sys\n"
        "os.environ.update(_CARS_HW_COMPLETE='bash_complete', COMP_WORDS='cars-hw cost C', COMP_CWORD='2')\n"
        "from cars_hw.cli.main import main\n"
        "try: main(prog_name='cars-hw')\n"
        "except SystemExit: pass\n"
        "print(*{'torch', 'numpy', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "plain,CARS_A" in done.stdout.splitlines()
    assert done.stderr.strip() == ""
