"""Options and ``--config FILE`` say the same settings, and a run is repeated from its own."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from invoked import run
from PIL import Image

from cars_hw.cli import (
    baselines,
    experiment,
    export,
    measure,
    predict,
    profile,
    rank,
    search,
    train,
    validate,
    verify,
)
from cars_hw.cli.main import main
from cars_hw.cli.settings import NETWORK, PRESET, RECIPE, settings_options
from cars_hw.config.codec import structure, unstructure
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.recipes import RECIPES
from cars_hw.config.setting import leaves
from cars_hw.config.toml import read_settings
from cars_hw.devices import FakeDevice
from cars_hw.latency import profile_device
from cars_hw.pipeline.device_settings import MeasureSettings, PredictSettings, ProfileSettings, ValidateSettings
from cars_hw.pipeline.plan import search_plan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import ExportSettings, SearchSettings, SizeChoice, TrainSettings, VerifySettings
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.studies.settings import (
    BaselinesSettings,
    FrontSettings,
    PaperTablesSettings,
    RankSettings,
    TrapSettings,
)

COMMANDS: dict[str, tuple[click.Command, type]] = {
    "profile": (profile.command, ProfileSettings),
    "predict": (predict.command, PredictSettings),
    "search": (search.command, SearchSettings),
    "train": (train.command, TrainSettings),
    "export": (export.command, ExportSettings),
    "verify": (verify.command, VerifySettings),
    "rank": (rank.command, RankSettings),
    "baselines": (baselines.command, BaselinesSettings),
    "measure": (measure.command, MeasureSettings),
    "validate": (validate.command, ValidateSettings),
    "experiment tables": (experiment.tables, PaperTablesSettings),
    "experiment small-model-trap": (experiment.trap, TrapSettings),
    "experiment front": (experiment.front, FrontSettings),
}

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=2)


def fails(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error:"))
    for part in parts:
        assert part in line


def options() -> Iterator[tuple[str, str]]:
    for name, (command, cls) in COMMANDS.items():
        for parameter in command.params:
            path = (parameter.name or "").replace("__", ".")
            if path in dict(leaves(cls)):
                yield name, path


OPTIONS = [one for one in options() if one != ("export", "formats")]
"""By command and field; the formats are one text with commas on the command line."""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_at_most_eight_values(name: str) -> None:
    command, _ = COMMANDS[name]
    assert command.callback is not None
    inner: Any = command.callback.__wrapped__
    assert inner.__code__.co_argcount + inner.__code__.co_kwonlyargcount <= 8
    assert any("--config" in parameter.opts for parameter in command.params)


@pytest.mark.parametrize(("name", "path"), OPTIONS)
def test_an_option_is_its_field(name: str, path: str) -> None:
    command, cls = COMMANDS[name]
    (option,) = (one for one in command.params if (one.name or "").replace("__", ".") == path)
    assert isinstance(option, click.Option)
    field = dict(leaves(cls))[path]
    about = field.setting
    assert option.opts[0] == (about.option or f"--{field.name.replace('_', '-')}").partition("/")[0]
    assert option.multiple == field.many
    if about.choices:
        assert isinstance(option.type, click.Choice)
        assert tuple(option.type.choices) == about.choices
    elif field.type in (int, float) and not about.kind:
        low = about.minimum if about.above is None else about.above
        assert isinstance(option.type, click.IntRange | click.FloatRange)
        assert option.type.min == low
        assert option.type.min_open == (about.above is not None)
        assert option.type.max_open == (about.below is not None)


def test_names_of_bases_are_those_that_there_are() -> None:
    assert set(PRESET.choices) == set(PRESETS)
    assert set(NETWORK.choices) == set(NETWORKS)
    assert set(RECIPE.choices) == set(RECIPES)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "table.json"
    profile_device(FakeDevice(), SPEC, calibration=6, out=path, plan=MeasurePlan(sessions=1))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, shade in (("dark", 20), ("light", 220)):
        (folder / name).mkdir()
        for number in range(30):
            Image.new("L", (8, 8), shade + number % 5).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def got(monkeypatch: pytest.MonkeyPatch) -> list[SearchSettings]:
    """The settings that a search is asked for; none is run."""
    asked: list[SearchSettings] = []
    monkeypatch.setattr(search, "_search", lambda settings, _: asked.append(settings))
    return asked


def test_options_override_the_file_and_the_file_the_preset(got: list[SearchSettings], tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        'preset = "cifar"\nseed = 5\n[data]\nsource = "cifar10"\n[network]\nname = "cifar"\nlayers = 8\n'
        "[evolution]\npopulation = 32\nepochs = 20\n"
        "[evolution.rates]\nrandom = 0.2\nmutation = 0.4\ncrossover = 0.4\n"
    )
    assert run("search", "--config", config).exit_code == 0
    (settings,) = got
    assert settings.data.source == "cifar10"
    assert settings.network == NETWORKS["cifar"].with_changes(layers=8)
    cifar = PRESETS["cifar"]
    assert settings.evolution == replace(
        cifar.evolution,
        population=32,
        epochs=20,
        rates=replace(cifar.evolution.rates, random=0.2, mutation=0.4, crossover=0.4),
    )
    assert (settings.training, settings.recipe) == (cifar.training, cifar.recipe)
    got.clear()
    given = ("--seed", "7", "--population", "9", "--layers", "5", "--random-share", "0.5", "--cost", "parameters")
    assert run("search", "--config", config, *given).exit_code == 0
    (settings,) = got
    assert (settings.seed, settings.evolution.population, settings.evolution.epochs) == (7, 9, 20)
    assert (settings.evolution.rates.random, settings.evolution.rates.mutation) == (0.5, 0.25)
    assert settings.network == NETWORKS["cifar"].with_changes(layers=8)
    # It is a search of one size, which takes the place of the file's.
    assert settings.sizes == SizeChoice(layers=(5,))
    assert search_plan(settings, "cpu").network == NETWORKS["cifar"].with_changes(layers=5)
    assert search_plan(settings, "cpu").sizes is None
    assert settings.costs == ("parameters",)


def test_a_preset_on_the_command_line_replaces_that_of_the_file(got: list[SearchSettings], tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("seed = 5\n[evolution]\npopulation = 32\n")
    given = ("--data", "fashion-mini", "--preset", "paper", "--epochs", "100")
    assert run("search", "--config", config, *given).exit_code == 0
    (settings,) = got
    assert settings.seed == 5
    assert settings.evolution == replace(PRESETS["paper"].evolution, epochs=100)


def test_tables_of_the_file_are_found_beside_it(got: list[SearchSettings], tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[data]\nsource = "fashion-mini"\n[[targets]]\ntable = "t.json"\nlimit_ms = 2\n')
    assert run("search", "--config", config).exit_code == 0
    assert run("search", "--config", config, "--latency", "3ms").exit_code == 0
    assert run("search", "--config", config, "--table", "other.json").exit_code == 0
    found = [[(one.table, one.limit_ms) for one in settings.targets] for settings in got]
    beside = tmp_path / "t.json"
    assert found == [[(beside, 2.0)], [(beside, 3.0)], [(Path("other.json"), None)]]
    fails(run("search", "--config", config, "--latency", "3ms", "--latency", "1ms"), "2 --latency for 1 --table")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sed = 1", ["c.toml: sed is unknown"]),
        ("seed = -1", ["c.toml: seed must be at least 0, not -1"]),
        ("[evolution]\nepochs = 'many'", ["c.toml: evolution.epochs must be a whole number, not 'many'"]),
        ("preset = 'fast'", ["preset", "'fast'"]),
        ("[evolution]\nepochs = 2", ["c.toml: ", "leave no generation"]),
        ("[evolution.rates]\nrandom = 0.9", ["c.toml: ", "must sum to 1"]),
    ],
)
def test_what_is_wrong_in_a_file_is_a_usage_error(
    text: str, parts: list[str], got: list[SearchSettings], tmp_path: Path
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    fails(run("search", "--config", config, "--data", "fashion-mini"), *parts)
    assert got == []


def test_what_is_missing_in_both_is_a_missing_option(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("")
    fails(run("search", "--config", config, "--out", tmp_path / "run"), "Missing option '--data'")
    fails(run("profile", "--out", tmp_path / "t.json"), "Missing option '--device'")


def test_a_search_is_repeated_from_its_config_with_its_command(table: Path, images: Path, tmp_path: Path) -> None:
    small = ("--population", "4", "--epochs", "3", "--warmup-epochs", "1", "--batch-size", "8", "--on", "cpu")
    given = ("--table", table, "--latency", "5ms", *small, "--random-share", "0.2", "--seed", "3")
    result = run("search", "--data", images, *given, "--out", tmp_path / "first")
    assert result.exit_code == 0, result.output
    first = RunFolder.open(tmp_path / "first")
    content = tomllib.loads(first.config_file.read_text())
    assert content["targets"] == [{"table": "tables/0.json", "limit_ms": 5.0, "level": 0.95, "state": "quiet"}]
    assert content["data"]["source"] == str(images)
    result = run("search", "--config", first.config_file, "--out", tmp_path / "again")
    assert result.exit_code == 0, result.output
    again = RunFolder.open(tmp_path / "again")
    assert again.front() == first.front()
    assert again.history() == first.history()
    assert again.configuration == first.configuration
    (step,) = first.steps()
    assert step.arguments == ("search", "--data", str(images), *map(str, given), "--out", str(tmp_path / "first"))
    assert step.settings == content
    read = structure(read_settings(first.config_file, SearchSettings), SearchSettings, complete=False)
    assert (read.seed, read.evolution.epochs, read.device) == (3, 3, "cpu")


def test_each_step_is_kept_with_its_settings(table: Path, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    small = ("--population", "4", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8", "--on", "cpu")
    for arguments in (
        ("search", "--data", images, "--table", table, *small, "--out", path),
        ("train", path, "--top", "1", "--epochs", "1", "--on", "cpu", "--jobs", "1"),
        ("export", path, "--format", "onnx"),
        ("verify", path, "--device", "fake", "--sessions", "1"),
    ):
        result = run(*arguments)
        assert result.exit_code in (0, 3), result.output
    steps = RunFolder.open(path).steps()
    assert [step.name for step in steps] == ["search", "train", "export", "verify"]
    classes = (SearchSettings, TrainSettings, ExportSettings, VerifySettings)
    searched, trained, exported, verified = (
        structure(step.settings, cls, complete=False) for step, cls in zip(steps, classes, strict=True)
    )
    assert (trained.top, trained.recipe.epochs, trained.jobs) == (1, 1, 1)
    assert exported.formats == ("onnx",)
    assert (verified.device, verified.measurement.sessions) == ("fake", 1)
    assert all(step.arguments and step.arguments[0] == step.name for step in steps)
    config = tmp_path / "verify.toml"
    config.write_text('device = "fake"\n[measurement]\nsessions = 2\n')
    assert run("verify", path, "--config", config).exit_code in (0, 3)
    assert RunFolder.open(path).steps()[-1].settings["measurement"]["sessions"] == 2
    told = json.dumps(unstructure(searched))
    assert json.loads(told)["data"]["source"] == str(images)


def test_an_unknown_field_cannot_have_an_option() -> None:
    with pytest.raises(KeyError, match=r"evolution.speed"):
        settings_options(SearchSettings, "evolution.speed")(lambda **_: None)


def test_objective_and_class_weights_of_a_search_hold_for_its_trainings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[SearchSettings] = []
    monkeypatch.setattr("cars_hw.cli.search._search", lambda settings, _run: seen.append(settings))
    base = ["search", "--data", "cifar10", "--cost", "parameters", "--out", "run"]
    options = ["--objective", "balanced-accuracy", "--class-weights", "balanced"]
    by_loss = ["--objective", "loss", "--share", "nodes"]
    for arguments in (base, base + options, base + by_loss):
        assert CliRunner().invoke(main, arguments).exit_code == 0
    plain, asked, losses = seen
    # A loss is for the shared weights; a training chooses its best epoch by an accuracy.
    assert (losses.evolution.objective, losses.recipe.objective) == ("loss", "accuracy")
    assert (losses.training.share, plain.training.share) == ("nodes", "edges")
    assert (plain.evolution.objective, plain.recipe.objective) == ("accuracy", "accuracy")
    assert (plain.training.class_weights, plain.recipe.class_weights) == ("none", "none")
    assert (asked.evolution.objective, asked.recipe.objective) == ("balanced-accuracy", "balanced-accuracy")
    assert (asked.training.class_weights, asked.recipe.class_weights) == ("balanced", "balanced")
    assert asked.recipe.epochs == plain.recipe.epochs


@pytest.mark.parametrize("name", COMMANDS)
def test_only_the_search_is_said_to_take_the_settings_of_a_search(name: str) -> None:
    (option,) = (one for one in COMMANDS[name][0].params if one.name == "config")
    assert isinstance(option, click.Option)
    assert ("RUN/config.toml" in (option.help or "")) is (name == "search")
