"""Searches that begin sooner: the smallest network is found by one descent instead of twelve."""

from __future__ import annotations

from importlib import import_module

import pytest

from cars_hw.latency import fastest_genotype


def descend_once(patch: pytest.MonkeyPatch) -> None:
    """Let a search descend once to its smallest network; tests/latency/test_fastest.py has all the descents."""
    # By name, since the package's function may be called as its module is.
    patch.setattr(import_module("cars_hw.latency.fastest"), "AVOIDABLE", (None,))
    patch.setattr(fastest_genotype, "__defaults__", (1,))
