"""What an evaluation counted: right answers by class, and for a trained network the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Final, Literal

from cars_hw.config.setting import Settings, count, setting
from cars_hw.errors import InputError
from cars_hw.significance import Interval, holm, mcnemar, mean_interval, wilson_interval

Objective = Literal["accuracy", "balanced-accuracy"]
"""What a search maximises, and what decides the best epoch of a training.

- ``accuracy``: the share of all images that are right.
- ``balanced-accuracy``: the mean over the classes of each class's share that is right (Brodersen et al., 2010).
"""

SearchObjective = Literal["accuracy", "balanced-accuracy", "loss"]
"""What a search maximises under the shared weights: an :data:`Objective`, or a low cross-entropy.

- ``loss``: the mean cross-entropy of all images is minimised. Its random error is smaller than that of an accuracy.
"""

MOST_CLASSES: Final = 200
"""Up to so many classes a confusion matrix is kept: it has their square of numbers."""


@dataclass(frozen=True)
class ClassCounts(Settings):
    """How many images of each class were evaluated, and how many of these are right.

    Accuracy is the share of all images that are right, and ``low`` to ``high`` is its 95% confidence interval.
    Balanced accuracy is the mean of the classes' own shares, over the classes that have images. ``loss`` is the
    mean cross-entropy of the images in nats; None where it was not computed.

    Raises:
        InputError: there are no images, or more right answers than images.
    """

    images: tuple[int, ...] = count()
    right: tuple[int, ...] = count()
    _: KW_ONLY
    loss: float | None = setting(None, unit="nats", minimum=0)

    ADDED: ClassVar[frozenset[str]] = frozenset({"loss"})
    DERIVED: ClassVar[tuple[str, ...]] = ("total", "accuracy", "low", "high", "balanced_accuracy")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.images) != len(self.right):
            raise InputError(f"images has {len(self.images)} classes, right {len(self.right)}")
        if any(right > images for right, images in zip(self.right, self.images, strict=True)):
            raise InputError("right must not be more than images")
        if not sum(self.images):
            raise InputError("images must not be 0 in every class")

    @property
    def total(self) -> int:
        """The number of images."""
        return sum(self.images)

    @property
    def accuracy(self) -> float:
        """The share of all images that are right."""
        return sum(self.right) / self.total

    @property
    def low(self) -> float:
        """The lower end of the accuracy's 95% confidence interval."""
        return self.interval("accuracy")[0]

    @property
    def high(self) -> float:
        """The upper end of the accuracy's 95% confidence interval."""
        return self.interval("accuracy")[1]

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the classes' shares of right answers, over the classes with images."""
        shares = [share for share in self.recalls if share is not None]
        return sum(shares) / len(shares)

    @property
    def recalls(self) -> tuple[float | None, ...]:
        """Each class's share of right answers; None for a class without images."""
        return tuple(
            right / images if images else None for right, images in zip(self.right, self.images, strict=True)
        )

    def score(self, objective: Objective) -> float:
        """Return the figure that ``objective`` names."""
        return self.accuracy if objective == "accuracy" else self.balanced_accuracy

    def interval(self, objective: Objective) -> Interval:
        """Return the 95% confidence interval of the figure that ``objective`` names."""
        if objective == "accuracy":
            return wilson_interval(sum(self.right), self.total)
        pairs = [pair for pair in zip(self.right, self.images, strict=True) if pair[1]]
        return mean_interval([right for right, _ in pairs], [images for _, images in pairs])

    @property
    def majority(self) -> int:
        """The number of the class with the most images; the first of several."""
        return self.images.index(max(self.images))

    @property
    def majority_share(self) -> float:
        """The accuracy of the answer that is always the class with the most images."""
        return max(self.images) / self.total

    @property
    def beats_majority(self) -> bool:
        """Whether the whole confidence interval of the accuracy lies above :attr:`majority_share`."""
        return self.low > self.majority_share


@dataclass(frozen=True)
class Evaluation(ClassCounts):
    """The evaluation of a trained network, image by image.

    ``confusion[true][answer]`` counts images; it is None above :data:`MOST_CLASSES` classes. ``correct`` has a bit
    for every image in the order of the evaluation, the first in the highest bit of the first byte, as hexadecimal
    digits: 1 where the answer is right. ``evaluated`` is the digest of the images and their classes, so that two
    networks are compared image by image only where they answered for the same images.

    Raises:
        InputError: the counts do not fit each other.
    """

    confusion: tuple[tuple[int, ...], ...] | None = setting()
    correct: str = setting()
    evaluated: str = setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        classes = range(len(self.images))
        if self.confusion is not None:
            if [len(row) for row in self.confusion] != [len(classes)] * len(classes):
                raise InputError(f"confusion must have {len(classes)} rows of {len(classes)} numbers")
            if any(number < 0 for row in self.confusion for number in row):
                raise InputError("confusion must not have negative numbers")
            if tuple(map(sum, self.confusion)) != self.images:
                raise InputError("confusion must have the images of each class in its row")
            if tuple(self.confusion[place][place] for place in classes) != self.right:
                raise InputError("confusion must have the right answers on its diagonal")
        try:
            bits = bytes.fromhex(self.correct)
        except ValueError as error:
            raise InputError("correct must be hexadecimal digits") from error
        if len(bits) != -(-self.total // 8) or int.from_bytes(bits).bit_count() != sum(self.right):
            raise InputError("correct must have a bit for every image, 1 for each that is right")

    def p_value(self, other: Evaluation) -> float:
        """Return the p-value of equal accuracy, by the exact test of McNemar over the images of both.

        Raises:
            ValueError: they are of different images.
        """
        if self.evaluated != other.evaluated:
            raise ValueError("the two evaluations are of different images")
        mine, others = (int(one.correct, 16) for one in (self, other))
        return mcnemar((mine & ~others).bit_count(), (others & ~mine).bit_count())


def told_apart(best: Evaluation, others: Sequence[Evaluation]) -> list[bool]:
    """Return for each of ``others`` whether its accuracy differs from that of ``best``, all together at 95%.

    Where both answered for the same images, the exact test of McNemar decides, with the correction of Holm for
    several comparisons. Otherwise it is whether the two confidence intervals overlap.
    """
    paired = [one for one in others if one.evaluated == best.evaluated]
    shown = iter(holm([best.p_value(one) for one in paired]))
    return [next(shown) if one.evaluated == best.evaluated else apart(best, one) for one in others]


def apart(first: ClassCounts, second: ClassCounts) -> bool:
    """Return whether the confidence intervals of the two accuracies do not overlap."""
    return first.low > second.high or second.low > first.high
