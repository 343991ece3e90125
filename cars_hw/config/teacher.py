"""Settings of a teacher: a network of torchvision whose answers a training learns beside the labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from cars_hw.config.files import expanded
from cars_hw.config.setting import Settings, setting


@dataclass(frozen=True)
class Teacher(Settings):
    """A teacher; see :mod:`cars_hw.training.teacher`. Without a ``network`` there is none.

    ``share`` of each label is the teacher's answer, whose probabilities p are made softer by ``temperature`` T:
    they become proportional to p^(1/T). ``resolution`` is the height and width at which it sees the images.
    """

    network: str | None = setting(
        None,
        help="Learn the answers of this network of torchvision beside the labels, such as resnet50. Needs "
        "--teacher-weights.",
        option="--teacher",
        metavar="NAME",
    )
    weights: Path | None = setting(
        None,
        help="The weights of --teacher: a safetensors file, or a state_dict that torch.save wrote. Nothing is "
        "downloaded.",
        option="--teacher-weights",
    )
    share: float = setting(
        0.5,
        help="Share of the teacher's answer in each label; the rest is the true class.",
        option="--teacher-share",
        above=0,
        maximum=1,
    )
    temperature: float = setting(
        1.0,
        help="Above 1, the probabilities of the teacher's answers are brought closer together; 1: they stay as "
        "they are.",
        option="--teacher-temperature",
        above=0,
        maximum=100,
    )
    resolution: tuple[int, int] = setting(
        (224, 224),
        help="Height and width at which the teacher sees the images.",
        option="--teacher-resolution",
        metavar="HxW",
    )

    OPTIONAL: ClassVar = frozenset({"network", "weights"})

    def absolute(self) -> Teacher:
        """Return the settings with the absolute path of the weights, as records of a run have it."""
        return self if self.weights is None else replace(self, weights=expanded(self.weights).absolute())
