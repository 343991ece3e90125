"""The figures of trained fronts: hypervolumes over log latency, and paired differences over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.units import format_latency
from cars_hw.errors import InputError
from cars_hw.evolution.hypervolume import hypervolume

FORMAT = ChecksummedFormat("fronts of several ways", 1, "profile")
"""The file: ``settings``, ``found`` (an entry for each way and seed), ``summary``, where and when it was made."""

OWN = "both"
"""The way that the others are compared with."""

BUDGETS = 5

SCORES = ("data", "images", "table", "least_ms", "limit_ms", "front", "front_epochs", "batch", "rate")
"""The settings that decide how a front is trained and scored."""

UNEQUAL = 0.05
"""A cost that differs from that of :data:`OWN` by more than this fraction is marked."""


@dataclass(frozen=True)
class Box:
    """The box of a hypervolume: latencies from ``least`` to ``most`` ms, and errors up to that of guessing.

    Its upper corner, ``most`` and the error of guessing, is the reference point.
    """

    least: float
    most: float
    classes: int

    @property
    def error(self) -> float:
        """The error of a guess among the classes, a fraction."""
        return 1 - 1 / self.classes

    @property
    def budgets(self) -> list[float]:
        """:data:`BUDGETS` latencies in ms, spread evenly over log latency; the last is ``most``."""
        ratio = self.most / self.least
        return [self.least * ratio ** (step / BUDGETS) for step in range(1, BUDGETS + 1)]


@dataclass(frozen=True)
class Trained:
    """A network of a front after its training: predicted latency in ms, accuracies as fractions."""

    ms: float
    held_out: float
    test: float


def at_budget(networks: Sequence[Trained], budget: float) -> Trained | None:
    """Return the network within ``budget`` ms that is the most accurate on the held-out images; None if none is."""
    within = [one for one in networks if one.ms <= budget]
    return max(within, key=lambda one: (one.held_out, -one.ms)) if within else None


def chosen(networks: Sequence[Trained]) -> list[Trained]:
    """Return those of ``networks`` that are chosen at some budget, cheapest first: by held-out images alone."""
    found: list[Trained] = []
    for one in sorted(networks, key=lambda one: (one.ms, -one.held_out)):
        if not found or one.held_out > found[-1].held_out:
            found.append(one)
    return found


def volume(networks: Sequence[Trained], box: Box) -> float:
    """Return the hypervolume over log latency and test error of the chosen ``networks``, a fraction of ``box``."""
    rows = [[math.log(one.ms), 1 - one.test] for one in chosen(networks)]
    reference = np.array([math.log(box.most), box.error])
    size = math.log(box.most / box.least) * box.error
    return hypervolume(np.array(rows).reshape(-1, 2), reference) / size


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """Return the mean of ``differences``, its standard error (None for one), and how many are positive."""
    if not differences:
        return {"mean": None, "error": None, "higher": 0, "seeds": 0}
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    higher = sum(one > 0 for one in differences)
    return {"mean": fmean(differences), "error": error, "higher": higher, "seeds": len(differences)}


def figures(entry: Mapping[str, Any], box: Box) -> dict[str, Any]:
    """Return the figures of one way with one seed; ``entry`` is that of the file."""
    networks = [Trained(one["ms"], one["held_out"], one["test"]) for one in entry["networks"]]
    best = [at_budget(networks, budget) for budget in box.budgets]
    offered = [one["ms"] for one in entry["front"]]
    return {
        "seed": entry["seed"],
        "volume": volume(networks, box),
        "best": [None if one is None else one.test for one in best],
        "range": max(offered) / min(offered),
        "networks": len(networks),
        "passes": entry["passes"],
        "multiply_adds": entry["multiply_adds"],
        "seconds": sum(entry["seconds"].values()),
    }


def summary(found: Sequence[Mapping[str, Any]], box: Box) -> dict[str, Any]:
    """Return for each way its figures by seed, and by how much those of :data:`OWN` are higher with equal seeds."""
    ways: dict[str, dict[int, dict[str, Any]]] = {}
    for entry in found:
        ways.setdefault(entry["way"], {})[entry["seed"]] = figures(entry, box)
    own = ways.get(OWN, {})
    return {
        "reference": {"ms": box.most, "error": box.error},
        "least_ms": box.least,
        "budgets": box.budgets,
        "ways": {
            way: {"seeds": [seeds[seed] for seed in sorted(seeds)], **({} if way == OWN else against(own, seeds))}
            for way, seeds in ways.items()
        },
    }


def against(own: Mapping[int, dict[str, Any]], rival: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """Return the paired differences of ``own`` to ``rival``, both by seed; positive where ``own`` is higher."""
    common = [(own[seed], rival[seed]) for seed in sorted(own) if seed in rival]
    pairs = [list(zip(one["best"], other["best"], strict=True)) for one, other in common]
    return {
        "volume": paired([one["volume"] - other["volume"] for one, other in common]),
        "best": [
            paired([one - other for one, other in at if one is not None and other is not None])
            for at in zip(*pairs, strict=True)
        ],
        "cost": [other["passes"] / one["passes"] - 1 for one, other in common],
    }


def beside(content: Mapping[str, Any], other: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return ``content`` with the ways of ``other``, a comparison with other settings of the search.

    They are called after its ``name``. What scores both must be the same: images, table, limits and the recipe.

    Raises:
        InputError: it is not.
    """
    own, its = content["settings"], other["settings"]
    differ = [one for one in SCORES if own[one] != its[one]]
    if differ:
        raise InputError(f"{name} was scored in another way: {', '.join(differ)}")
    found = [*content["found"], *({**one, "way": f"{one['way']} of {name}"} for one in other["found"])]
    found_in = content["summary"]
    box = Box(found_in["least_ms"], found_in["reference"]["ms"], round(1 / (1 - found_in["reference"]["error"])))
    return {**content, "found": found, "summary": summary(found, box)}


def report(content: Mapping[str, Any]) -> str:
    """Return the tables of the file ``content`` in Markdown."""
    found = content["summary"]
    budgets = [format_latency(budget) for budget in found["budgets"]]
    reference = found["reference"]
    return "\n".join(
        [
            f"Hypervolume over log latency, a fraction of the box from {format_latency(found['least_ms'])} to the "
            f"reference point ({format_latency(reference['ms'])}, an error of {reference['error']:.2f}). Latencies "
            "are predicted.",
            "",
            *_table(
                ["way", "hypervolume by seed", "mean", f"`{OWN}` is higher by", "in seeds", "latency range"],
                [_volumes(way, one) for way, one in found["ways"].items()],
            ),
            "",
            "Test accuracy in % of the most accurate network within a budget, means over the seeds. In brackets: "
            f"by how much `{OWN}` is higher, in points, over the seeds in which both ways have a network.",
            "",
            *_table(["way", *budgets], [_best(way, one) for way, one in found["ways"].items()]),
            "",
            "Cost of a search: passes of images in thousands (an evaluation is a third of a pass), relative to "
            f"`{OWN}` with the same seed; multiply-adds in 10^12. Processor seconds include the training "
            "of the front.",
            "",
            *_table(
                ["way", "passes", f"relative to `{OWN}`", "multiply-adds", "networks trained", "seconds"],
                [_costs(way, one) for way, one in found["ways"].items()],
            ),
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _volumes(way: str, one: Mapping[str, Any]) -> list[str]:
    values = [seed["volume"] for seed in one["seeds"]]
    ranges = [seed["range"] for seed in one["seeds"]]
    row = [f"`{way}`", ", ".join(f"{value:.4f}" for value in values), f"{fmean(values):.4f}"]
    if "volume" not in one:
        row += ["", ""]
    else:
        difference = one["volume"]
        row += [_difference(difference, 1, 4), f"{difference['higher']} of {difference['seeds']}"]
    return [*row, ", ".join(f"{value:.1f}" for value in ranges)]


def _best(way: str, one: Mapping[str, Any]) -> list[str]:
    row = [f"`{way}`"]
    for place in range(BUDGETS):
        values = [seed["best"][place] for seed in one["seeds"] if seed["best"][place] is not None]
        text = f"{100 * fmean(values):.1f}" if values else "none"
        if values and len(values) < len(one["seeds"]):
            text += f" ({len(values)} of {len(one['seeds'])} seeds)"
        if one.get("best") and one["best"][place]["mean"] is not None:
            text += f" ({_difference(one['best'][place], 100, 1)})"
        row.append(text)
    return row


def _costs(way: str, one: Mapping[str, Any]) -> list[str]:
    def of(name: str, scale: float, decimals: int) -> str:
        return ", ".join(f"{seed[name] / scale:.{decimals}f}" for seed in one["seeds"])

    relative = ", ".join(f"{cost:+.1%}{' (!)' if abs(cost) > UNEQUAL else ''}" for cost in one.get("cost", []))
    return [
        f"`{way}`",
        of("passes", 1e3, 1),
        relative,
        of("multiply_adds", 1e12, 2),
        of("networks", 1, 0),
        of("seconds", 1, 0),
    ]


def _difference(one: Mapping[str, Any], scale: float, decimals: int) -> str:
    if one["mean"] is None:
        return ""
    text = f"{scale * one['mean']:+.{decimals}f}"
    return text if one["error"] is None else f"{text} ± {scale * one['error']:.{decimals}f}"
