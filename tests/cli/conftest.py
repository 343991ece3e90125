"""What the tests of commands share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from few_descents import descend_once


@pytest.fixture(autouse=True, scope="module")
def one_descent() -> Iterator[None]:
    """Let each search of a module descend once to its smallest network, also in the fixtures of the module."""
    with pytest.MonkeyPatch.context() as patch:
        descend_once(patch)
        yield
