"""Latency: what a network's operations cost on a device, and what the whole network will.

:func:`profile_device` measures a device into a :class:`LatencyTable`. :class:`Predictor` predicts the latency of
any genotype from the table, with an upper bound. :func:`validate_table` compares predictions with the device.
Prediction needs neither torch nor a runtime.
"""

from __future__ import annotations

from cars_hw.latency.comparison import Moved, TableDifference, compare_tables
from cars_hw.latency.fastest import fastest_genotype
from cars_hw.latency.keys import OpKey, PlacedKey, genotype_keys, spec_keys
from cars_hw.latency.measure import measure_architectures, measure_genotypes
from cars_hw.latency.models import build_model
from cars_hw.latency.predictor import Breakdown, Composition, Part, Prediction, Predictor
from cars_hw.latency.profile import profile_device
from cars_hw.latency.size_range import SizedLatency, SizeRange, find_size_range
from cars_hw.latency.table import CalibrationNetwork, Coefficients, LatencyTable, Reference
from cars_hw.latency.validation import (
    Accuracy,
    Validation,
    ValidationRow,
    fresh_architectures,
    fresh_genotypes,
    validate_table,
)

__all__ = [
    "Accuracy",
    "Breakdown",
    "CalibrationNetwork",
    "Coefficients",
    "Composition",
    "LatencyTable",
    "Moved",
    "OpKey",
    "Part",
    "PlacedKey",
    "Prediction",
    "Predictor",
    "Reference",
    "SizeRange",
    "SizedLatency",
    "TableDifference",
    "Validation",
    "ValidationRow",
    "build_model",
    "compare_tables",
    "fastest_genotype",
    "find_size_range",
    "fresh_architectures",
    "fresh_genotypes",
    "genotype_keys",
    "measure_architectures",
    "measure_genotypes",
    "profile_device",
    "spec_keys",
    "validate_table",
]
