"""Searches that begin sooner: the smallest network is found by one descent instead of twelve."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from cars_hw.latency import fastest_genotype
from cars_hw.space.genotype_space import Choices
from cars_hw.space.search_space import SearchSpace

all_regions = SearchSpace.regions


def descend_once(patch: pytest.MonkeyPatch) -> None:
    """Let a search descend once to its smallest network; tests/latency/test_fastest.py has all the descents."""

    def whole_space(self: SearchSpace) -> Iterator[Choices]:
        return islice(all_regions(self), 1)

    patch.setattr(SearchSpace, "regions", whole_space)
    patch.setattr(fastest_genotype, "__defaults__", (1,))
