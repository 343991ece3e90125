"""Under which conditions the figures hold: data, settings, the measured machine, versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cars_hw.report.data import Budget, Facts
from cars_hw.report.formatting import milliseconds, percent
from cars_hw.report.markup import Html, join, tag


def section(facts: Facts) -> Html:
    """Return what was searched, a part for each measured device, and the versions."""
    blocks = [_block("Search", _search(facts)), *(_device(budget) for budget in facts.budgets)]
    versions = [*facts.about.get("versions", {}).items(), *_export_versions(facts)]
    blocks.append(_block("Versions", versions))
    return tag("div", *blocks, class_="blocks")


def _search(facts: Facts) -> list[tuple[str, str]]:
    configuration = facts.configuration
    evolution, training = configuration["evolution"], configuration["training"]
    lines = [
        ("data", str(configuration["data"])),
        ("network", facts.spec.describe()),
        ("precision", str(configuration.get("precision", "fp32"))),
        ("seed", str(configuration["seed"])),
        (
            "search",
            f"{evolution['epochs']} epochs, {evolution['warmup_epochs']} of them warm-up, "
            f"{evolution['epochs_per_generation']} a generation",
        ),
        ("population", f"{evolution['population']}, protection: {evolution['protection']}"),
        (
            "judged on",
            f"{training['evaluation_images']} images of {percent(training['validation_fraction'], 0)} held out",
        ),
        ("final training", f"{configuration['recipe']['epochs']} epochs"),
    ]
    created = facts.about.get("created")
    if created:
        lines.append(("begun", str(created)))
    if configuration.get("proxy"):
        lines.append(("proxy", "searched on other data than the network is for"))
    return lines


def _device(budget: Budget) -> Html:
    table, predictor = budget.table, budget.predictor
    if table is None or predictor is None:
        return _block(f"Latency on {budget.device}", [("table", budget.problem)])
    conditions = table.conditions
    lines = [("profiled", table.created)]
    lines += [
        (name, _value(conditions[name]))
        for name in ("processor", "cores", "runtime", "platform")
        if conditions.get(name)
    ]
    lines.append(("batch, threads", f"1 image, {table.threads} thread{'s' if table.threads > 1 else ''}"))
    known = ("pinned", "governor", "clock_mhz", "load")
    named = {"pinned": "pinned to core", "clock_mhz": "clock, MHz", "load": "load (1, 5, 15 min)"}
    lines += [
        (named.get(name, name), _value(conditions[name])) for name in known if conditions.get(name) is not None
    ]
    lines += [
        ("overhead of a run", milliseconds(table.overhead_ms)),
        ("operations measured", str(len(table.entries))),
        ("networks measured", str(len(table.calibration))),
        (
            "upper bound",
            f"{percent(predictor.margin)} above the prediction, for {percent(predictor.level, 0)} of networks",
        ),
        ("noise between sessions", percent(table.noise)),
        ("machine's speed wandered", percent(table.unrest)),
    ]
    if table.others is not None:
        lines.append(("other processes", f"{table.others:.2f} cores busy"))
    lines += [("not to be trusted", reason) for reason in table.distrust()]
    return _block(f"Latency on {budget.device}", lines)


def _export_versions(facts: Facts) -> list[tuple[str, str]]:
    """Return the versions that the models' cards hold and the run does not, each once."""
    known = facts.about.get("versions", {})
    found = {
        (name, version): None
        for candidate in facts.candidates
        for model in candidate.models
        for name, version in model.card.versions.items()
        if known.get(name) != version
    }
    return list(found)


def _block(title: str, lines: Iterable[tuple[str, str]]) -> Html:
    items = [join([tag("dt", name), tag("dd", value)]) for name, value in lines]
    return tag("div", tag("h3", title), tag("dl", *items, class_="facts"))


def _value(value: Any) -> str:  # noqa: ANN401 -- whatever a device tells of itself
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return str(value)
