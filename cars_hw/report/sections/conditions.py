"""The conditions of the figures: images, settings, the measured machine, versions."""

from __future__ import annotations

from typing import Any

from cars_hw.config.evaluated import CLASSIFIERS
from cars_hw.formatting import milliseconds, percent, state_name
from cars_hw.latency.energy import EnergyState
from cars_hw.latency.sustained import SustainedState
from cars_hw.measurement.states import Machine
from cars_hw.report import images
from cars_hw.report.data import ReportData, RunTarget


def view(report: ReportData) -> dict[str, Any]:
    """Return blocks for the search, the images, each measured device, and the versions."""
    versions = [*report.about.versions.items(), *_export_versions(report)]
    return {
        "blocks": [
            ("Search", _search(report)),
            *images.blocks(report),
            *((f"Latency on {target.device}", _device(target)) for target in report.targets),
            ("Versions", versions),
        ]
    }


def _search(report: ReportData) -> list[tuple[str, str]]:
    configuration = report.configuration
    evolution, training = configuration.evolution, configuration.training
    lines = [
        ("data", configuration.data),
        ("network", configuration.describe_networks()),
        ("precision", configuration.precision),
        ("seed", str(configuration.seed)),
        (
            "search",
            f"{evolution.epochs} epochs, {evolution.warmup_epochs} of them warm-up, "
            f"{evolution.epochs_per_generation} per generation"
            if training.trains
            else f"{evolution.generations} generations without shared training",
        ),
        ("population", f"{evolution.population}, protection: {evolution.protection}"),
        ("evaluated on", f"{_evaluating(report)}, by {CLASSIFIERS[training.classifier]}"),
        (
            "final training",
            f"{configuration.recipe.epochs} epochs by default; each network has its own",
        ),
    ]
    lines.append(("started", report.about.created))
    if configuration.proxy:
        lines.append(("proxy", "the search used other data than the exported network is for"))
    return lines


def _evaluating(report: ReportData) -> str:
    """Return how many images evaluate an architecture in a generation, of those that may.

    The setting is the most that a generation takes: a small data set has fewer.
    """
    wanted = report.configuration.training.evaluation_images
    there = sum(split.images for split in report.data.splits if split.use == "architectures")
    return f"{min(wanted or there, there):,} of {there:,} validation images"


def _device(run_target: RunTarget) -> list[tuple[str, str]]:
    target = run_target.target
    if target is None:
        return [("table", run_target.problem)]
    table, predictor = target.table, target.predictor
    conditions = table.conditions
    lines = [("profiled", table.created)]
    lines += [
        (name, _value(conditions[name]))
        for name in ("processor", "cores", "runtime", "platform")
        if conditions.get(name)
    ]
    lines.append(("batch, threads", f"1 image, {table.threads} thread{'s' if table.threads > 1 else ''}"))
    known = ("pinned", "siblings", "cpuset", "cpu_quota", "governor", "clock_mhz", "load", "cpu_fallback")
    named = {
        "pinned": "pinned to core",
        "siblings": "siblings of these cores",
        "cpuset": "cores allowed",
        "cpu_quota": "CPU quota, cores",
        "clock_mhz": "clock, MHz",
        "load": "load (1, 5, 15 min)",
        "cpu_fallback": "ran on the CPU in its place",
    }
    lines += [
        (named.get(name, name), _value(conditions[name]))
        for name in known
        if conditions.get(name) not in (None, [])
    ]
    lines += [
        ("overhead of one run", milliseconds(table.overhead_ms)),
        ("operations measured", str(len(table.entries))),
        ("networks measured", str(len(table.calibration))),
        (
            "upper bound",
            f"{percent(predictor.margin)} above the prediction, for {percent(predictor.level, 0)} of networks",
        ),
        ("noise between sessions", percent(table.noise)),
        ("state of the figures" if target.limit_ms is None else "state of the budget", state_name(target.state)),
        *_states(table.machine),
        *_sustained(table.sustained),
        *_energy(table.energy),
    ]
    if table.other_load is not None:
        lines.append(("other processes", f"{table.other_load:.2f} cores busy"))
    reasons = [*table.quality_warnings(), *table.sustained_warnings()]
    return lines + [("quality warning", reason) for reason in reasons]


def _states(machine: Machine) -> list[tuple[str, str]]:
    """Return a line for each state of the machine that was seen, and one for the usual state."""
    quiet, *slower = machine.states
    return [
        ("quiet state", f"{percent(quiet.share, 0)} of the time"),
        *(
            ("slower state", f"{percent(one.share, 0)} of the time, {one.factor:.2f} times the quiet latency")
            for one in slower
        ),
        ("usual state", f"{machine.usual_factor:.2f} times the quiet latency"),
    ]


def _sustained(state: SustainedState | None) -> list[tuple[str, str]]:
    """Return what networks take after minutes of load, and what the device reported then."""
    if state is None:
        return []
    load = state.networks[0].sustained
    lines = [
        (
            "sustained state",
            f"after {load.load_s:.0f} s of load, the median run takes {state.p50_factor:.2f} times the quiet "
            f"latency, and 90% of runs take at most {state.p90_factor:.2f} times",
        )
    ]
    if state.facts():
        lines.append(("under load", state.facts()))
    return lines


def _energy(state: EnergyState | None) -> list[tuple[str, str]]:
    """Return how the energy of networks was measured, and how well it is predicted."""
    if state is None:
        return []
    return [
        (
            "energy",
            f"{len(state.networks)} networks by {state.meter}, each to {percent(state.error)}, beyond "
            f"{state.idle_watts:.3g} W at rest; networks that are left out are predicted to "
            f"{percent(state.left_out_error)}",
        )
    ]


def _export_versions(report: ReportData) -> list[tuple[str, str]]:
    """Return the versions that the models' cards hold and the run does not, each once."""
    known = report.about.versions
    found = {
        (name, version): None
        for candidate in report.candidates
        for model in candidate.models
        for name, version in model.card.versions.items()
        if known.get(name) != version
    }
    return list(found)


def _value(value: Any) -> str:  # noqa: ANN401 -- any value that a device reports
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return str(value)
