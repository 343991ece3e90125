"""Who stands on a front of accuracy and measured latency, in figures, in words and in a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from cars_hw.formatting import accuracy_text, milliseconds, percent
from cars_hw.significance import interval_of
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.studies.measurement_noise import unsteady_remark


@dataclass(frozen=True)
class Contestant:
    """A network that is compared: ``accuracy`` is a fraction of the test images, ``latency_ms`` is measured.

    ``origin`` is ``run``, ``zoo`` or ``torchvision``; ``parameters`` are those of the exported file; ``training``
    says for how long and from what it was trained; ``dominated_by`` names who is as good in both and better in one,
    the most accurate first. ``spec`` is what its genotype fills; None for a network without a genotype.
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
class FrontComparison:
    """All contestants, the fastest first, and the references that ``device`` cannot run.

    Accuracies are on ``test_images`` images; None where their number is not known.
    """

    device: str
    conditions: dict[str, Any]
    contestants: tuple[Contestant, ...]
    left_out: tuple[str, ...] = ()
    test_images: int | None = None

    PLAIN_NAMES: ClassVar = {"contestants": "networks"}
    DERIVED: ClassVar = ("remarks",)

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
                "the run's networks are trained from scratch too."
            )
        if self.left_out:
            told.append(
                f"Left out: {', '.join(self.left_out)}. torchvision's networks are only measured from ONNX files: "
                f"on ort, not on {self.device}."
            )
        unsteady = unsteady_remark([(one.name, one.spread) for one in self.contestants])
        return [*told, unsteady] if unsteady else told


def ranked(contestants: Sequence[Contestant]) -> tuple[Contestant, ...]:
    """Return ``contestants``, the fastest first, each with the names of those that dominate it."""
    found = []
    for one in sorted(contestants, key=lambda one: (one.latency_ms, -one.accuracy)):
        better = sorted((other for other in contestants if other.dominates(one)), key=lambda other: -other.accuracy)
        found.append(replace(one, dominated_by=tuple(other.name for other in better)))
    return tuple(found)


def rows_of(comparison: FrontComparison) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of the comparison as text."""
    sized = len({one.spec for one in comparison.contestants} - {None}) > 1
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
            *(["-" if one.spec is None else one.spec.size] if sized else []),
            _accuracy(one.accuracy, comparison.test_images),
            milliseconds(one.latency_ms),
            f"{one.parameters:,}",
            one.training,
            one.standing,
        ]
        for one in comparison.contestants
    ]
    return columns, rows


def _accuracy(accuracy: float, images: int | None) -> str:
    interval = interval_of(accuracy, images)
    return percent(accuracy) if interval is None else accuracy_text(accuracy, interval)
