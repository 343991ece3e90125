"""What the benchmarks of shared weights share: the table of truth, and how far two orders agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.latency.validation import kendall_tau
from cars_hw.nn.cost import network_cost
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace

CHANNELS = (4, 6, 8, 12, 16)
CELLS = (5, 8, 11)

FORMAT = ChecksummedFormat("table of truth", 1, "profile")
"""The file: ``settings``, ``architectures``, ``trainings``, ``summary``, and where and when it was made."""

RESAMPLES = 1000
FIGURES = ("held_out_accuracy", "held_out_loss", "score_accuracy", "score_loss")

COSTS = ("parameters", "multiply_adds")


@dataclass(frozen=True)
class Row:
    """One architecture of a table: a size and a wiring. The name begins with the half that it is in."""

    name: str
    channels: int
    cells: int
    genotype: Genotype

    def spec(self, resolution: tuple[int, int], channels: int, classes: int) -> NetworkSpec:
        """Return its network for images of ``resolution`` with ``channels``."""
        return NetworkSpec(self.channels, self.cells, resolution, channels, classes)


@dataclass
class Curve:
    """One training: the mean training loss of every epoch, and accuracies (fractions) and losses of both parts."""

    name: str
    seed: int
    training_loss: list[float] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def rows(count: int, one_size: tuple[int, int], seed: int) -> list[Row]:
    """Return ``count`` architectures: the first half spread over the grid of sizes, the rest of ``one_size``."""
    rng = np.random.default_rng(seed)
    space = SearchSpace()
    grid = [(channels, cells) for channels in CHANNELS for cells in CELLS]
    half = count // 2
    # Spread over the whole grid, whatever the count.
    sizes = [grid[round(place)] for place in np.linspace(0, len(grid) - 1, half)] + [one_size] * (count - half)
    return [
        Row(f"{'size' if number < half else 'wiring'}-{number:02d}", *size, space.sample(rng))
        for number, size in enumerate(sizes)
    ]


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau of two orders, and its standard error: that of a bootstrap over the architectures."""

    tau: float | None
    error: float | None

    def __str__(self) -> str:
        if self.tau is None or self.error is None:
            return "none"
        return f"{self.tau:.2f} ± {self.error:.2f}"


def agreement(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Agreement:
    """Return how far the orders of ``first`` and ``second`` agree."""
    tau = kendall_tau(first, second)
    if tau is None:
        return Agreement(None, None)
    signs = [np.sign(np.subtract.outer(values, values)) for values in (np.array(first), np.array(second))]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(first), size=len(first))
        left, right = (sign[np.ix_(drawn, drawn)] for sign in signs)
        pairs = np.sqrt((left**2).sum() * (right**2).sum())
        if pairs:
            found.append((left * right).sum() / pairs)
    return Agreement(round(tau, 4), round(float(np.std(found)), 4))


def halves(names: Sequence[str]) -> dict[str, list[str]]:
    """Return ``names`` of each half that is there, and before them all, if both are."""
    parts = {half: [name for name in names if name.startswith(half)] for half in ("size", "wiring")}
    parts = {half: chosen for half, chosen in parts.items() if len(chosen) > 1}
    return {"all": list(names), **parts} if len(parts) > 1 else parts


class Table:
    """A table of truth, as it was read."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.settings: dict[str, Any] = content["settings"]
        self.rows = [
            Row(one["name"], one["channels"], one["cells"], Genotype.from_darts(one["genotype"]))
            for one in content["architectures"]
        ]
        self.costs = {one["name"]: {cost: one[cost] for cost in COSTS} for one in content["architectures"]}
        self.curves = {(one["name"], one["seed"]): Curve(**one) for one in content["trainings"]}

    @classmethod
    def read(cls, path: Path) -> Table:
        """Return the table at ``path``.

        Raises:
            TableError: it cannot be read, or is damaged.
        """
        return cls(FORMAT.read(path))

    @property
    def seeds(self) -> list[int]:
        """The seeds of the trainings."""
        return sorted({seed for _, seed in self.curves})

    def epochs(self) -> list[int]:
        """Return the epochs after which the trainings were evaluated."""
        return [int(one["epoch"]) for curve in list(self.curves.values())[:1] for one in curve.evaluations]

    def complete(self) -> list[str]:
        """Return the names of the architectures that were trained with every seed, in the order of the table."""
        return [row.name for row in self.rows if all((row.name, seed) in self.curves for seed in self.seeds)]

    def trained(self) -> list[str]:
        """Return the names of the architectures that were trained at all, in the order of the table."""
        return [row.name for row in self.rows if any((row.name, seed) in self.curves for seed in self.seeds)]

    def values(self, figure: str, seed: int, names: Sequence[str], epoch: int | None = None) -> list[float]:
        """Return ``figure`` of the training of each of ``names`` with ``seed``, after ``epoch`` or the last."""
        found = []
        for name in names:
            evaluations = self.curves[name, seed].evaluations
            at = evaluations[-1] if epoch is None else next(one for one in evaluations if one["epoch"] == epoch)
            found.append(at[figure])
        return found

    def truth(self, figure: str, names: Sequence[str]) -> list[float]:
        """Return the mean of ``figure`` over the trainings that there are of each of ``names``."""
        last = {
            name: [self.curves[name, seed].evaluations[-1] for seed in self.seeds if (name, seed) in self.curves]
            for name in names
        }
        return [float(np.mean([evaluation[figure] for evaluation in last[name]])) for name in names]

    def ceiling(self, figure: str, names: Sequence[str], epoch: int | None = None) -> Agreement:
        """Return how far the first two trainings of ``names`` agree in ``figure``."""
        if len(self.seeds) < 2:
            return Agreement(None, None)
        first, second = (self.values(figure, seed, names, epoch) for seed in self.seeds[:2])
        return agreement(first, second)

    def spreads(self, figure: str, names: Sequence[str], epoch: int | None = None) -> tuple[float, float]:
        """Return the standard deviation of ``figure`` among ``names``, and between two trainings of one of them.

        The first is that of the networks alone: what the trainings add to the spread is taken out. What one seed
        adds to all networks, which see the same batches, changes no order and counts in neither.
        """
        values = np.array([self.values(figure, seed, names, epoch) for seed in self.seeds[:2]])
        within = float(np.subtract(*values).var(ddof=1) / 2)
        among = values.mean(axis=0).var(ddof=1) - within / 2
        return float(np.sqrt(max(0.0, among))), float(np.sqrt(within))


def costs(row: Row, resolution: tuple[int, int], channels: int, classes: int) -> dict[str, int]:
    """Return the parameters and the multiply-adds of the exported network."""
    cost = network_cost(row.spec(resolution, channels, classes), row.genotype)
    return {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
