"""What a user compares with: at each of several budgets, the most accurate network of each origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from cars_hw.config.units import format_latency
from cars_hw.formatting import UNKNOWN, milliseconds, percent

ORIGINS: Final = {
    "run": "this run",
    "zoo": "published genotypes",
    "torchvision": "torchvision",
    "random": "random architectures",
}
"""Where networks come from, in the order of tables, and what the columns are called."""

BUDGETS: Final = 5
"""If no budgets are given, the range of latencies is divided by so many."""


class Compared(Protocol):
    """A trained network with a measured latency."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def origin(self) -> str:
        """One of :data:`ORIGINS`."""

    @property
    def accuracy(self) -> float:
        """Its accuracy, a fraction of the test images."""

    @property
    def held_out(self) -> float | None:
        """Its accuracy, a fraction of the images that were held out of the training; None if none were."""

    @property
    def latency_ms(self) -> float:
        """Its measured latency."""


@dataclass(frozen=True)
class Best:
    """The network of ``origin`` with the highest accuracy on held-out images among those within a budget.

    ``accuracy`` is a fraction of the test images, which did not choose it, and ``held_out`` one of the held-out
    images. ``latency_ms`` is measured.
    """

    origin: str
    name: str
    accuracy: float
    held_out: float
    latency_ms: float


@dataclass(frozen=True)
class BudgetChoice:
    """The best networks within ``budget_ms``, one of each origin that has a network as fast as that.

    ``lead`` is the test accuracy of the run's network minus the highest test accuracy among the others, a fraction;
    None if the run or all others have no network within the budget.
    """

    budget_ms: float
    best: tuple[Best, ...]

    DERIVED: ClassVar = ("lead",)

    @property
    def lead(self) -> float | None:
        """How much the run's network is more accurate than the best other; negative if it is less accurate."""
        own = [one.accuracy for one in self.best if one.origin == "run"]
        others = [one.accuracy for one in self.best if one.origin != "run"]
        return own[0] - max(others) if own and others else None

    def of(self, origin: str) -> Best | None:
        """Return the best network of ``origin``."""
        return next((one for one in self.best if one.origin == origin), None)


def spread_budgets(low_ms: float, high_ms: float) -> tuple[float, ...]:
    """Return :data:`BUDGETS` budgets above ``low_ms``, evenly spaced on a logarithmic scale.

    The last is ``high_ms``. All but the last have three significant digits.
    """
    if not high_ms > low_ms:
        return (high_ms,)
    steps = [low_ms * (high_ms / low_ms) ** (step / BUDGETS) for step in range(1, BUDGETS)]
    return (*dict.fromkeys(float(f"{ms:.3g}") for ms in steps if float(f"{ms:.3g}") < high_ms), high_ms)


def choices(networks: Sequence[Compared], budgets: Sequence[float]) -> tuple[BudgetChoice, ...]:
    """Return the best of ``networks`` at each of ``budgets``; nothing if one of them has no held-out images."""
    if any(one.held_out is None for one in networks):
        return ()
    return tuple(BudgetChoice(budget, _best_within(networks, budget)) for budget in sorted(budgets))


def _best_within(networks: Sequence[Compared], budget: float) -> tuple[Best, ...]:
    found = []
    for origin in ORIGINS:
        allowed = [one for one in networks if one.origin == origin and one.latency_ms <= budget]
        if allowed:
            # Of equal ones the faster.
            best = max(allowed, key=lambda one: (one.held_out or 0.0, -one.latency_ms))
            found.append(Best(origin, best.name, best.accuracy, best.held_out or 0.0, best.latency_ms))
    return tuple(found)


def rows_of(chosen: Sequence[BudgetChoice]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of the table of ``chosen`` as text."""
    origins = [origin for origin in ORIGINS if any(one.of(origin) for one in chosen)]
    rows = [
        [format_latency(one.budget_ms), *(_cell(one.of(origin)) for origin in origins), _points(one.lead)]
        for one in chosen
    ]
    return ["budget", *(ORIGINS[origin] for origin in origins), "lead of this run"], rows


def _cell(best: Best | None) -> str:
    return UNKNOWN if best is None else f"{percent(best.accuracy)} {best.name}, {milliseconds(best.latency_ms)}"


def _points(lead: float | None) -> str:
    return UNKNOWN if lead is None else f"{100 * lead:+.1f} points".replace("-", "\N{MINUS SIGN}")


def verdict(chosen: Sequence[BudgetChoice]) -> str | None:
    """Return a sentence on how often the run's network is the most accurate one; None if nothing is compared."""
    leads = [one.lead for one in chosen if one.lead is not None]
    if not leads:
        return None
    ahead = sum(lead > 0 for lead in leads)
    return (
        f"The run's network has the highest test accuracy at {ahead} of {len(leads)} budgets. At each budget, the "
        "networks were chosen on held-out images. Each of them was trained once; another seed gives other figures."
    )
