"""Image data: where it comes from, how it is divided, and how it reaches the device that trains.

- :func:`load_data` returns a :class:`DataBundle`: the embedded set, a set that torchvision knows, or a folder.
- :func:`check_folder` tells everything that is wrong with a folder of images, and :func:`scan_folder` lists its
  parts, classes and files without opening an image; neither needs torch.
- :func:`stratified_split` and :func:`mixed_order` divide and order a set by class.
- :class:`TrainingBatches` and :class:`EvaluationBatches` keep the images on the training device as bytes and
  hand out normalised batches; :class:`Augmentation` varies the training images there.

A name loads its module when it is first used: :mod:`cars_hw.data.images` reads an image file without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cars_hw.data.batches import Augmentation, EvaluationBatches, TrainingBatches
    from cars_hw.data.check import Finding, FolderCheck, check_folder
    from cars_hw.data.dataset import Dataset
    from cars_hw.data.scan import FolderScan, scan_folder, survey_folder
    from cars_hw.data.sources import DataBundle, load_data, load_source
    from cars_hw.data.splits import mixed_order, stratified_split

_MODULES: Final = {
    "batches": ("Augmentation", "EvaluationBatches", "TrainingBatches"),
    "check": ("Finding", "FolderCheck", "check_folder"),
    "dataset": ("Dataset",),
    "scan": ("FolderScan", "scan_folder", "survey_folder"),
    "sources": ("DataBundle", "load_data", "load_source"),
    "splits": ("mixed_order", "stratified_split"),
}

__all__ = [
    "Augmentation",
    "DataBundle",
    "Dataset",
    "EvaluationBatches",
    "Finding",
    "FolderCheck",
    "FolderScan",
    "TrainingBatches",
    "check_folder",
    "load_data",
    "load_source",
    "mixed_order",
    "scan_folder",
    "stratified_split",
    "survey_folder",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever the name stands for
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
