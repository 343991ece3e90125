"""The commands that repeat a run, from what it was configured with; what was not written down is not guessed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS, Preset
from cars_hw.config.recipes import RECIPES
from cars_hw.config.training import Recipe
from cars_hw.export.formats import FORMATS
from cars_hw.latency import LatencyTable
from cars_hw.pipeline.run_folder import FrontNetwork
from cars_hw.report.data import Candidate, ReportData
from cars_hw.space.network_spec import NETWORKS, NetworkSpec

EVOLUTION_OPTIONS = {
    "population": "--population",
    "epochs": "--epochs",
    "warmup_epochs": "--warmup-epochs",
    "epochs_per_generation": "--epochs-per-generation",
    "protection": "--protect",
    "uniform_draws": "--uniform-share",
}
TRAINING_OPTIONS = {"architectures": "--architectures", "batch_size": "--batch-size"}
RECIPE_OPTIONS = ("epochs", "batch_size", "learning_rate", "ema", "hold_out", "precision")
_DEFAULT_RECIPE = asdict(Recipe(epochs=1))


class Step(NamedTuple):
    """One step of a run: what it does, its commands, and what they cannot say."""

    title: str
    commands: tuple[str, ...]
    notes: tuple[str, ...] = ()


def steps(report_data: ReportData) -> list[Step]:
    """Return the steps that repeat the run of ``report_data``, given in the folder that holds the run's."""
    again = f"{report_data.name}-again"
    found = [profile(target.target.table) for target in report_data.targets if target.target is not None]
    found.append(search(report_data, again))
    found += training(report_data, again)
    found += exporting(report_data, again)
    devices = dict.fromkeys(str(row["device"]) for row in report_data.verified)
    if devices:
        commands = tuple(_line("verify", again, "--device", device) for device in devices)
        found.append(Step("Measure the exported models", commands))
    found.append(Step("Write this page", (_line("report", again),)))
    return found


def profile(table: LatencyTable) -> Step:
    """Return the step that makes a table like ``table``."""
    words = ["profile", "--device", table.device, *network_options(table.spec)]
    if table.precision != "fp32":
        words += ["--precision", table.precision]
    if table.threads != 1:
        words += ["--threads", str(table.threads)]
    if table.calibration and len(table.calibration) != 40:
        words += ["--calibration", str(len(table.calibration))]
    if table.plan.get("seed"):
        words += ["--seed", str(table.plan["seed"])]
    usual = asdict(MeasurePlan())
    other = [name for name, value in table.plan.items() if name != "seed" and usual.get(name) != value]
    notes = ["Another moment or machine gives other milliseconds; the search below takes the table of this run."]
    if other:
        notes.append(f"The command has no option for how this table was measured: {_settings(table.plan, other)}.")
    name = f"table-{table.device.replace(':', '-')}.json"
    return Step(f"Profile {table.device}", (_line(*words, "--out", name),), tuple(notes))


def search(report_data: ReportData, out: str) -> Step:
    """Return the step that searches as the run of ``report_data`` did, with its own tables, into ``out``."""
    configuration, notes = report_data.configuration, []
    words = ["search", "--data", str(configuration["data"])]
    for index, _ in enumerate(report_data.targets):
        words += ["--table", f"{report_data.name}/tables/{index}.json"]
    limits = [target.record["limit_ms"] for target in report_data.targets]
    if None not in limits:
        words += [word for limit in limits for word in ("--latency", f"{limit!r}ms")]
    elif any(limit is not None for limit in limits):
        notes.append(f"Some tables had a budget and others none, which no command can say: {limits}.")
    if not report_data.targets:
        words += network_options(report_data.spec)
    for cost in configuration.get("costs", ()):
        words += ["--cost", str(cost)]
    if configuration.get("precision") == "int8" and not report_data.targets:
        words += ["--precision", "int8"]
    options, beyond = preset_options(configuration)
    words += options
    if configuration.get("seed"):
        words += ["--seed", str(configuration["seed"])]
    if configuration.get("proxy"):
        words.append("--proxy")
    if beyond:
        notes.append(f"No option of the command sets {', '.join(beyond)}: run it from Python.")
    if configuration["data"] != "fashion-mini":
        notes.append("Where the images were (--data-root) was not written down.")
    notes.append("Whether a GPU trained (--on), and how many processes, was not written down.")
    return Step("Search", (_line(*words, "--out", out),), tuple(notes))


def training(report_data: ReportData, run: str) -> list[Step]:
    """Return the step that trains what was trained, if anything was."""
    trained = [candidate for candidate in report_data.candidates if candidate.trained is not None]
    if not trained:
        return []
    groups: dict[tuple[str, ...], list[Candidate]] = {}
    notes = []
    if any(candidate.trained and candidate.trained.inherit is None for candidate in trained):
        notes.append("Whether training started from the shared weights (--from-shared) was not written down.")
    usual = _plain(report_data.configuration["recipe"])
    for candidate in trained:
        assert candidate.trained is not None
        options, other = recipe_options(_plain(asdict(candidate.trained.recipe)), usual)
        if candidate.trained.seed:
            options += ["--seed", str(candidate.trained.seed)]
        if candidate.trained.inherit:
            options.append("--from-shared")
        if other:
            notes.append(f"{candidate.name} was trained with {', '.join(other)}, which no option sets.")
        groups.setdefault(tuple(options), []).append(candidate)
    commands = [
        command
        for options, candidates in groups.items()
        for command in _train(report_data, run, options, candidates)
    ]
    return [Step("Train", tuple(commands), tuple(notes))]


def recipe_options(recipe: Mapping[str, Any], usual: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the options that lead from the run's ``usual`` recipe to ``recipe``, and the settings none leads to.

    A record keeps the settings and not the recipe's name: it is the one that needs the least beside it.
    """
    bases = [([], usual), *((["--recipe", name], _plain(asdict(one))) for name, one in RECIPES.items())]
    found = []
    for named, base in bases:
        options, other = list[str](named), list[str]()
        for name, value in recipe.items():
            # Runs from before a setting was known had its default.
            if value == base.get(name, _DEFAULT_RECIPE.get(name)):
                continue
            if name in RECIPE_OPTIONS:
                options += [f"--{name.replace('_', '-')}", str(value)]
            else:
                other.append(f"{name} = {value}")
        found.append((options, other))
    return min(found, key=lambda change: (len(change[1]), len(change[0])))


def exporting(report_data: ReportData, run: str) -> list[Step]:
    """Return the step that exports what was exported, if anything was."""
    models = [model for candidate in report_data.candidates for model in candidate.models]
    if not models:
        return []
    words = ["export", run]
    formats = sorted({model.path.rpartition(".")[2] for model in models})
    if formats != sorted(FORMATS):
        words += ["--format", ",".join(formats)]
    if report_data.configuration.get("precision") != "int8" and any(
        model.card.precision == "int8" for model in models
    ):
        words += ["--precision", "int8"]
    return [Step("Export", (_line(*words),))]


def network_options(spec: NetworkSpec) -> list[str]:
    """Return the options that say ``spec``: a named network, and what differs from it."""
    fits = {name: network for name, network in NETWORKS.items() if network.stem == spec.stem}
    differing = {
        name: [field for field in asdict(spec) if getattr(spec, field) != getattr(network, field)]
        for name, network in fits.items()
    }
    name = min(differing, key=lambda name: len(differing[name]))
    words = ["--network", name]
    for field in differing[name]:
        value = getattr(spec, field)
        words += [f"--{field.replace('_', '-')}", f"{value[0]}x{value[1]}" if field == "resolution" else str(value)]
    return words


def preset_options(configuration: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the options that lead to the settings of ``configuration``, and the settings that no option sets.

    A run keeps its settings and not the name of its preset: it is the one that needs the least beside it.
    """
    found = [(*_changes(preset, configuration), name) for name, preset in PRESETS.items()]
    options, beyond, name = min(found, key=lambda change: (len(change[1]), len(change[0])))
    return ["--preset", name, *options], beyond


def _changes(preset: Preset, configuration: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    words: list[str] = []
    beyond: list[str] = []
    usual = _plain(asdict(preset))
    for group, known in (("evolution", EVOLUTION_OPTIONS), ("training", TRAINING_OPTIONS), ("recipe", {})):
        settings = configuration[group]
        for name, value in settings.items():
            if usual[group].get(name) == value:
                continue
            if name in known:
                words += [known[name], str(value)]
            elif name == "rates" and _is_random_share(value, usual[group][name]):
                words += ["--random-share", repr(value["random"])]
            else:
                beyond.append(f"{group}.{name} = {value}")
    for name in ("supernet_channels", "supernet_layers"):
        if configuration.get(name) != usual[name]:
            beyond.append(f"{name} = {configuration.get(name)}")
    return words, beyond


def _is_random_share(rates: Mapping[str, float], usual: Mapping[str, float]) -> bool:
    """Tell whether an option gave ``rates``: mutation and crossover halve what is not fresh."""
    rest = (1 - rates["random"]) / 2
    return rates == {**usual, "random": rates["random"], "mutation": rest, "crossover": rest}


def _train(report_data: ReportData, run: str, options: Sequence[str], candidates: Sequence[Candidate]) -> list[str]:
    """Return the commands that train ``candidates``: one where they are spread over the front as --top does it."""
    from cars_hw.pipeline.train import choose

    front = [candidate for candidate in report_data.candidates if candidate.shared_accuracy is not None]
    names = [candidate.name for candidate in candidates if candidate.shared_accuracy is not None]
    likeness = [
        FrontNetwork(one.name, one.genotype, one.shared_accuracy or 0.0, one.parameters, one.multiply_adds, ())
        for one in front
    ]
    commands = []
    spread = bool(names) and [network.name for network in choose(likeness, len(names))] == names
    if spread:
        commands.append(_line("train", run, "--top", str(len(names)), *options))
    for candidate in candidates:
        if not (spread and candidate.name in names):
            commands.append(_line("train", run, "--genotype", candidate.genotype.to_darts(), *options))
    return commands


def _settings(values: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} = {values[name]}" for name in names)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` as JSON gives them back: what a run's files are compared with."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _line(*words: str) -> str:
    return shlex.join(("cars-hw", *words))
