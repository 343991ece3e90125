"""Under which conditions the figures hold: data, settings, the measured machine, versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cars_hw.formatting import milliseconds, percent
from cars_hw.report.data import ReportData, RunTarget
from cars_hw.report.markup import Html, join, tag


def section(report_data: ReportData) -> Html:
    """Return what was searched, a part for each measured device, and the versions."""
    blocks = [_block("Search", _search(report_data)), *(_device(target) for target in report_data.targets)]
    versions = [*report_data.about.get("versions", {}).items(), *_export_versions(report_data)]
    blocks.append(_block("Versions", versions))
    return tag("div", *blocks, class_="blocks")


def _search(report_data: ReportData) -> list[tuple[str, str]]:
    configuration = report_data.configuration
    evolution, training = configuration["evolution"], configuration["training"]
    lines = [
        ("data", str(configuration["data"])),
        ("network", report_data.spec.describe()),
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
    created = report_data.about.get("created")
    if created:
        lines.append(("begun", str(created)))
    if configuration.get("proxy"):
        lines.append(("proxy", "searched on other data than the network is for"))
    return lines


def _device(run_target: RunTarget) -> Html:
    target = run_target.target
    if target is None:
        return _block(f"Latency on {run_target.device}", [("table", run_target.problem)])
    table, predictor = target.table, target.predictor
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
        ("machine's speed wandered", percent(table.speed_variation)),
    ]
    if table.other_load is not None:
        lines.append(("other processes", f"{table.other_load:.2f} cores busy"))
    lines += [("not to be trusted", reason) for reason in table.quality_warnings()]
    return _block(f"Latency on {run_target.device}", lines)


def _export_versions(report_data: ReportData) -> list[tuple[str, str]]:
    """Return the versions that the models' cards hold and the run does not, each once."""
    known = report_data.about.get("versions", {})
    found = {
        (name, version): None
        for candidate in report_data.candidates
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
