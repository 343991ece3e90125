"""Who stands on a front of accuracy and measured latency, in figures, in words and in a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.training import Recipe
from cars_hw.errors import RunError
from cars_hw.formatting import accuracy_text, milliseconds, percent
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.significance import interval_of
from cars_hw.space.network_spec import NetworkSpec, size_words
from cars_hw.studies.budget_choice import BudgetChoice, choices, verdict
from cars_hw.studies.measurement_noise import unsteady_remark

COMPARISON: Final = ChecksummedFormat("cars-hw front comparison", 1, "remake-study", RunError)

FOLDER: Final = "comparison"
"""The folder in a run for its comparison and what was trained for it."""

FILE: Final = "front.json"


@dataclass(frozen=True)
class Contestant:
    """A network that is compared: ``accuracy`` is a fraction of the test images, ``latency_ms`` is measured.

    ``origin`` is ``run``, ``zoo``, ``torchvision`` or ``random``. ``parameters`` are those of the exported file.
    ``training`` says for how long it was trained, and from which weights. ``dominated_by`` names the networks that
    are as good in accuracy and latency and better in one of them, the most accurate first. ``spec`` is the network
    specification of its genotype; None for a network without a genotype. ``held_out`` is its accuracy on the images
    that were held out of its training, a fraction; None if none were.
    """

    name: str
    origin: str
    accuracy: float
    latency_ms: float
    spread: float
    parameters: int
    training: str
    dominated_by: tuple[str, ...] = ()
    spec: NetworkSpec | None = None
    held_out: float | None = None

    DERIVED: ClassVar = ("on_front",)
    PLAIN_NAMES: ClassVar = {"spec": "network"}

    @property
    def on_front(self) -> bool:
        """Whether no other network dominates it."""
        return not self.dominated_by

    def dominates(self, other: Contestant) -> bool:
        """Tell whether this one is as good as ``other`` in accuracy and latency, and better in one of them."""
        as_good = self.accuracy >= other.accuracy and self.latency_ms <= other.latency_ms
        return as_good and (self.accuracy, self.latency_ms) != (other.accuracy, other.latency_ms)

    @property
    def standing(self) -> str:
        """Where it stands, for people."""
        if self.on_front:
            return "on the front"
        others = len(self.dominated_by) - 1
        return f"dominated by {self.dominated_by[0]}" + (f" and {others} more" if others else "")


@dataclass(frozen=True)
class OutOfRange:
    """A reference that was not trained: its latency, in milliseconds, is outside of the range that is compared."""

    name: str
    latency_ms: float


@dataclass(frozen=True)
class EqualCost:
    """What the run cost, and ``networks`` random architectures that were trained at the same cost.

    Costs are in passes of an image times millions of multiply-adds; see :mod:`cars_hw.evolution.passes`. ``search``
    is the cost of the search before its final stage, ``front`` that of the training of the run's networks, and
    ``random`` that of the random architectures. ``earlier`` is the folder of the run whose shared weights the
    search started from, if any; its cost is not counted.
    """

    search: float
    final_stage: float
    front: float
    random: float
    networks: int
    earlier: str | None = None

    @property
    def run(self) -> float:
        """The cost of the run."""
        return self.search + self.final_stage + self.front

    @property
    def sentence(self) -> str:
        """The comparison of costs in one sentence."""
        shares = [f"{percent(part / self.run, 0)}" for part in (self.search, self.final_stage, self.front)]
        before = f"; the cost of {self.earlier}, whose weights it started from, is not counted"
        more = "" if self.earlier is None else before
        several = "architecture" if self.networks == 1 else "architectures"
        return (
            f"{self.networks} random {several} within the sizes and limits of the run can be trained at the cost "
            f"of the run ({shares[0]} search, {shares[1]} final stage, {shares[2]} training of its networks{more})"
        )


@dataclass(frozen=True)
class FrontComparison:
    """All contestants, the fastest first, and the references that ``device`` cannot run.

    Accuracies are on ``test_images`` images; None where their number is not known. ``out_of_range`` are references
    that were not trained. ``equal_cost`` is None if no random architectures were trained. ``data`` is the source of
    the images. ``recipe`` and ``seed`` are those of the trainings of this comparison.

    ``at_budgets`` has the best network of each origin at each of ``budgets_ms``. It is empty if no images were held
    out of a training.
    """

    device: str
    conditions: dict[str, Any]
    contestants: tuple[Contestant, ...]
    left_out: tuple[str, ...] = ()
    test_images: int | None = None
    out_of_range: tuple[OutOfRange, ...] = ()
    equal_cost: EqualCost | None = None
    budgets_ms: tuple[float, ...] = ()
    run: str = ""
    data: str = ""
    recipe: Recipe | None = None
    seed: int = 0

    PLAIN_NAMES: ClassVar = {"contestants": "networks"}
    DERIVED: ClassVar = ("remarks", "at_budgets")

    @property
    def at_budgets(self) -> tuple[BudgetChoice, ...]:
        """The best network of each origin at each budget."""
        return choices(self.contestants, self.budgets_ms)

    @property
    def notable(self) -> tuple[Contestant, ...]:
        """The contestants for tables: without random architectures that are neither on the front nor chosen."""
        chosen = {best.name for choice in self.at_budgets for best in choice.best}
        return tuple(
            one for one in self.contestants if one.origin != "random" or one.on_front or one.name in chosen
        )

    @property
    def remarks(self) -> list[str]:
        """What was found, and how comparable the figures are, in sentences."""
        front = [one for one in self.contestants if one.on_front]
        own = [one.name for one in front if one.origin == "run"]
        total = sum(one.origin == "run" for one in self.contestants)
        told = [
            f"On the front over accuracy and latency on {self.device}: {', '.join(one.name for one in front)}; "
            f"{len(own)} of the run's {total} networks are on it."
        ]
        if self.test_images is not None:
            told.append(
                f"The accuracies are on {self.test_images:,} test images. The front does not consider their "
                "confidence intervals."
            )
        if len({one.training for one in self.contestants}) > 1:
            told.append(
                "The networks were trained in different ways: see the column. Their accuracies are comparable if "
                "the run's networks are trained from scratch too, for as many epochs."
            )
        told += self._remarks_on_budgets()
        if self.left_out:
            told.append(
                f"Left out: {', '.join(self.left_out)}. torchvision's networks are only measured from ONNX files: "
                f"on ort, not on {self.device}."
            )
        if self.out_of_range:
            names = ", ".join(f"{one.name} ({milliseconds(one.latency_ms)})" for one in self.out_of_range)
            told.append(f"Not trained, since their latency is outside of the range of the run: {names}.")
        unsteady = unsteady_remark([(one.name, one.spread) for one in self.contestants])
        return [*told, unsteady] if unsteady else told

    def _remarks_on_budgets(self) -> list[str]:
        told = []
        if self.equal_cost is not None:
            told.append(f"{self.equal_cost.sentence}; all of them were trained.")
        said = verdict(self.at_budgets)
        if said is not None:
            told.append(said)
        if any(one.held_out is None for one in self.contestants) and self.budgets_ms:
            told.append(
                "There is no table of budgets: no images were held out of a training, and the test images must "
                "not choose networks."
            )
        return told


def read_comparison(run: RunFolder) -> FrontComparison | None:
    """Return the comparison in the folder of ``run``; None if there is none.

    Raises:
        RunError: the file is damaged.
    """
    path = run.path / FOLDER / FILE
    return COMPARISON.read_record(path, FrontComparison) if path.is_file() else None


def ranked(contestants: Sequence[Contestant]) -> tuple[Contestant, ...]:
    """Return ``contestants``, the fastest first, each with the names of those that dominate it."""
    found = []
    for one in sorted(contestants, key=lambda one: (one.latency_ms, -one.accuracy)):
        better = sorted((other for other in contestants if other.dominates(one)), key=lambda other: -other.accuracy)
        found.append(replace(one, dominated_by=tuple(other.name for other in better)))
    return tuple(found)


def rows_of(comparison: FrontComparison) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of the comparison as text, of the notable networks."""
    specs = {one.spec for one in comparison.contestants if one.spec is not None}
    sized, size = len(specs) > 1, size_words(specs)
    columns = [
        "network",
        "from",
        *(["size"] if sized else []),
        "accuracy (test)" if comparison.test_images is None else "accuracy (test, 95% interval)",
        f"latency on {comparison.device}",
        "parameters",
        "trained",
        "standing",
    ]
    rows = [
        [
            one.name,
            one.origin,
            *(["-" if one.spec is None else size(one.spec)] if sized else []),
            _accuracy(one.accuracy, comparison.test_images),
            milliseconds(one.latency_ms),
            f"{one.parameters:,}",
            one.training,
            one.standing,
        ]
        for one in comparison.notable
    ]
    return columns, rows


def _accuracy(accuracy: float, images: int | None) -> str:
    interval = interval_of(accuracy, images)
    return percent(accuracy) if interval is None else accuracy_text(accuracy, interval)
