"""The right answers of the trained networks by class, and what they confuse."""

from __future__ import annotations

from typing import Any

from cars_hw.formatting import accuracy_text
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.report.accuracies import MOST_COLUMNS, confusions, trained_of
from cars_hw.report.data import ReportData
from cars_hw.significance import wilson_interval


def view(report: ReportData) -> dict[str, Any]:
    """Return a table of all trained networks by class, and the confusion matrix of each.

    Networks that were evaluated on other numbers of images of a class have a table of their own.
    """
    groups: dict[tuple[Any, ...], list[TrainedNetwork]] = {}
    for one in trained_of(report):
        groups.setdefault((one.class_names, one.test.images), []).append(one)
    return {
        "groups": [_group(networks) for networks in groups.values()],
        "networks": [_network(one) for one in trained_of(report) if one.test.confusion is not None],
    }


def _group(networks: list[TrainedNetwork]) -> dict[str, Any]:
    first = networks[0]
    rows = [
        (name, f"{images:,}", *(_share(one.test.right[place], images) for one in networks))
        for place, (name, images) in enumerate(zip(first.class_names, first.test.images, strict=True))
    ]
    means = (accuracy_text(one.test.balanced_accuracy, one.test.interval("balanced-accuracy")) for one in networks)
    rows.append(("mean of the classes (balanced accuracy)", f"{first.test.total:,}", *means))
    return {"columns": ("class", "test images", *(one.name for one in networks)), "rows": rows}


def _share(right: int, images: int) -> str:
    return accuracy_text(right / images, wilson_interval(right, images)) if images else accuracy_text(None)


def _network(one: TrainedNetwork) -> dict[str, Any]:
    matrix = one.test.confusion or ()
    few = len(one.class_names) <= MOST_COLUMNS
    return {
        "name": one.name,
        "classes": list(one.class_names),
        "matrix": [(name, *map(str, row)) for name, row in zip(one.class_names, matrix, strict=True)]
        if few
        else None,
        "confusions": [] if few else confusions(matrix, one.class_names),
    }
