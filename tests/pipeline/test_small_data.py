"""A search on 450 images with 20 for validation and 20 for tests: what output and report say of accuracies."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cars_hw.cli.main import main
from cars_hw.pipeline.run_folder import RunFolder

TOOL = Path(__file__).resolve().parents[2] / "benchmarks" / "small_set.py"


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A run on the small set, and what its search printed."""
    spec = importlib.util.spec_from_file_location("small_set", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("small")
    module.write(folder / "birds")
    shape = ("--network", "tiny", "--channels", "4", "--classes", "3", "--on", "cpu")
    size = ("--cost", "multiply-adds", "--population", "4", "--epochs", "3", "--warmup-epochs", "1")
    result = run("search", "--data", folder / "birds", *shape, *size, "--out", folder / "run")
    run("train", folder / "run", "--top", "2", "--epochs", "1", "--jobs", "1", "--on", "cpu")
    return RunFolder(folder / "run"), result.output


def test_a_search_counts_the_validation_images(searched: tuple[RunFolder, str]) -> None:
    folder, printed = searched
    assert re.search(
        r"generation 2/2: best accuracy [\d.]+% \([\d.]+ to [\d.]+\) of 20 images under shared", printed
    )
    assert (
        "under shared weights with the shared classifier on 20 validation images. These images chose the front"
        in " ".join(printed.split())
    )
    for network in folder.front():
        assert network.validation is not None
        assert network.validation.images == (12, 6, 2)
        assert network.accuracy == network.validation.accuracy
        low, high = network.validation.interval("accuracy")
        assert f"{100 * low:.1f}% to {100 * high:.1f}%" in printed


def test_training_says_what_the_test_images_show(searched: tuple[RunFolder, str]) -> None:
    folder, _ = searched
    command = ("train", folder.path, "--top", "2", "--epochs", "1", "--jobs", "1", "--on", "cpu")
    printed = " ".join(run(*command).output.split())
    assert "Accuracies are on 20 test images, and on 20 held-out images, which chose the epoch." in printed
    records = json.loads(run(*command, "--json").stdout)
    for one in records:
        assert one["test"]["images"] == [12, 6, 2]
        assert [sum(row) for row in one["test"]["confusion"]] == [12, 6, 2]
        assert one["class_names"] == ["a", "b", "c"]
        assert f"{100 * one['test']['low']:.1f}% to {100 * one['test']['high']:.1f}%" in printed
        poor = one["test"]["low"] <= 0.6
        assert (f"{one['name']} is not shown to be better than the answer 'a' for every image" in printed) is poor
    if len(records) > 1:
        assert "has the highest test accuracy" in printed


def test_the_report_says_what_the_accuracy_is_worth(searched: tuple[RunFolder, str]) -> None:
    folder, _ = searched
    run("report", folder.path)
    page = folder.report.read_text(encoding="utf-8")
    for one in folder.trained():
        test, section = one.test, page[page.index(f'<section id="{one.name}"') :]
        interval = f"95%: {100 * test.low:.1f}% to {100 * test.high:.1f}%, 20 images"
        assert interval in section
        assert f"Confusion matrix of {one.name}" in page[page.index('id="classes"') :]
    best = max(folder.trained(), key=lambda one: one.accuracy)
    assert f"{best.name} has the highest test accuracy" in page
    poor = [one.name for one in folder.trained() if not one.test.beats_majority]
    for name in poor:
        assert f"{name} is not shown to be better than the answer &#39;a&#39; for every image" in page
