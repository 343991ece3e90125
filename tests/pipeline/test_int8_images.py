"""The test images that an int8 model is evaluated on: of many, so many in which each class has its share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from cars_hw.data import DataBundle, Dataset
from cars_hw.export.card import NO_FIGURES, ModelCard
from cars_hw.export.export import Exported
from cars_hw.pipeline import export


def in_order_of_classes(numbers: tuple[int, ...]) -> Dataset:
    """Images of so many of each class, as a folder has them; a pixel is the number of the image's class."""
    labels = torch.arange(len(numbers)).repeat_interleave(torch.tensor(numbers))
    return Dataset(labels.to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).clone(), labels)


@pytest.mark.parametrize(
    ("numbers", "expected"), [((16, 8, 8), [4, 2, 2]), ((2, 3, 3), [2, 3, 3]), ((0, 1, 2), [0, 1, 2])]
)
def test_each_class_has_its_share(
    monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...], expected: list[int]
) -> None:
    given: dict[str, Any] = {}

    def keep(*_: object, **named: object) -> ModelCard:
        given.update(named)
        return cast("ModelCard", None)

    monkeypatch.setattr(export, "export_int8", keep)
    monkeypatch.setattr(export, "EVALUATED_IMAGES", 8)
    test = in_order_of_classes(numbers)
    bundle = cast("DataBundle", SimpleNamespace(train=in_order_of_classes((4, 4, 4)), test=test))
    export._int8(Exported("net", Path("net.onnx"), cast("ModelCard", None)), bundle, "asymmetric", NO_FIGURES)
    labels = given["labels"]
    assert np.bincount(labels, minlength=3).tolist() == expected
    # Each image has its own label.
    assert given["images"][:, 0, 0, 0].tolist() == labels.tolist()
