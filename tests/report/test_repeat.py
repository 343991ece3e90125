"""The report repeats the commands that were given, and the search from the run's own settings."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cars_hw.config.command_line import command_line
from cars_hw.config.measurement import MeasurePlan
from cars_hw.errors import RunError
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import VerifySettings
from cars_hw.report.data import gather
from cars_hw.report.page import section

MakeRun = Callable[..., RunFolder]

VERIFY = VerifySettings("fake", 2, MeasurePlan(sessions=3))


def test_a_command_is_repeated_as_it_was_given(make_run: MakeRun) -> None:
    run = make_run("repeated")
    with command_line(["verify", "my run", "--device", "fake"]):
        run.add_step("verify", VERIFY)
    (step,) = run.steps()
    assert step.command == "cars-hw verify 'my run' --device fake"
    assert step.folder == str(Path.cwd())
    assert step.settings["measurement"]["sessions"] == 3
    told = html.unescape(str(section("repeat", gather(run))))
    assert "cars-hw verify 'my run' --device fake" in told
    assert str(Path.cwd()) in told
    assert "run from Python" not in told


def test_a_step_from_python_is_told_by_its_settings(make_run: MakeRun) -> None:
    run = make_run("from-python")
    run.add_step("verify", VERIFY)
    (step,) = run.steps()
    assert (step.name, step.arguments, step.command) == ("verify", None, None)
    told = html.unescape(str(section("repeat", gather(run))))
    assert "This step was run from Python" in told
    assert json.dumps(step.settings, indent=1) in told


def test_the_search_is_repeated_from_its_settings(make_run: MakeRun) -> None:
    run = make_run("two words")
    assert "no record of its steps" in str(section("repeat", gather(run)))
    assert gather(run).search_command is None
    run.config_file.write_text("seed = 0\n")
    assert gather(run).search_command == "cars-hw search --config 'two words/config.toml' --out 'two words-again'"
    assert "cars-hw search --config 'two words/config.toml'" in html.unescape(str(section("repeat", gather(run))))


@pytest.mark.parametrize(
    ("line", "message"), [("{", "is not JSON"), ('{"name": "verify"}', "is not a cars-hw steps")]
)
def test_damaged_steps_are_one_line(make_run: MakeRun, line: str, message: str) -> None:
    run = make_run(f"damaged-{len(line)}")
    (run.path / "steps.jsonl").write_text(line + "\n")
    with pytest.raises(RunError, match=message):
        run.steps()
