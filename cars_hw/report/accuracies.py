"""What the report says of accuracies: which models are equal to the best one, and what each class is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from cars_hw.config.evaluation import Evaluation, told_apart
from cars_hw.formatting import accuracy_text
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.records import Verified
from cars_hw.pipeline.standing import decided, majority_sentence
from cars_hw.report.data import ReportData
from cars_hw.significance import interval_of

MOST_COLUMNS: Final = 20
"""Up to so many classes the confusion matrix is shown as a table; beyond, its largest numbers are listed."""

MOST_CONFUSIONS: Final = 20
"""So many of the largest numbers are listed."""


class Equals(NamedTuple):
    """The models that cannot be told from the best one at 95%, and the fastest of them.

    ``known`` is False where the number of test images is not known; then nothing can be said.
    """

    names: tuple[str, ...]
    fastest: Verified | None
    known: bool
    alone: bool


def trained_of(report: ReportData) -> list[TrainedNetwork]:
    """Return the trained networks, with every further training of one."""
    return [one.trained for one in report.candidates if one.trained is not None]


def shown(report: ReportData) -> list[Verified]:
    """Return the measured models of one training of each network: see :func:`cars_hw.pipeline.standing.decided`."""
    trained = trained_of(report)
    left_out = {one.name for one in trained} - {one.name for one in decided(trained)}
    return [row for row in report.verified if row.network not in left_out]


def equals(report: ReportData, best: Verified, rivals: Sequence[Verified]) -> Equals:
    """Return which ``rivals`` cannot be told from ``best``.

    Float models are compared image by image where both networks answered for the same test images; an int8 model,
    which has no answers on record, by its confidence interval.
    """
    if best.interval is None or any(row.interval is None for row in rivals):
        return Equals((), None, known=False, alone=not rivals)
    evaluations = {one.name: one.test for one in trained_of(report)}

    def evaluation(row: Verified) -> Evaluation | None:
        return evaluations.get(row.name) if row.precision == "fp32" else None

    mine = evaluation(best)
    paired = [row for row in rivals if mine is not None and evaluation(row) is not None]
    apart: dict[int, bool] = {}
    if mine is not None:
        others = [one for row in paired if (one := evaluation(row)) is not None]
        apart = {id(row): found for row, found in zip(paired, told_apart(mine, others), strict=True)}
    alike = [row for row in rivals if not apart.get(id(row), _distant(best, row))]
    fastest = min(alike, key=lambda row: row.measured_ms, default=None)
    if fastest is not None and fastest.measured_ms >= best.measured_ms:
        fastest = None
    return Equals(tuple(row.name for row in alike), fastest, known=True, alone=not rivals)


def _distant(first: Verified, second: Verified) -> bool:
    """Return whether the two confidence intervals do not overlap."""
    one, other = first.interval, second.interval
    return one is not None and other is not None and (one[0] > other[1] or other[0] > one[1])


def majority_notes(report: ReportData) -> list[str]:
    """Return a sentence for each trained network that is not shown to be better than the most frequent class."""
    notes = [majority_sentence(one.name, one.test, one.class_names) for one in trained_of(report)]
    return [note for note in notes if note is not None]


def confusions(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return the largest numbers beside the diagonal: the class, the answer, and how many images."""
    found = [
        (number, row, column)
        for row, numbers in enumerate(matrix)
        for column, number in enumerate(numbers)
        if row != column and number
    ]
    largest = sorted(found, key=lambda one: (-one[0], one[1], one[2]))[:MOST_CONFUSIONS]
    return [(names[row], names[column], f"{number:,}") for number, row, column in largest]


def share(fraction: float | None, images: int | None) -> str:
    """Return ``fraction`` of ``images`` as a percentage, with its confidence interval where it is known."""
    return accuracy_text(fraction, interval_of(fraction, images))
