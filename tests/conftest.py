"""One thread for torch in every test, since threads that share cores only wait for each other; and no pauses."""

from __future__ import annotations

import os

import pytest

# Before torch is imported anywhere; test processes that are started inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for a disturbed machine: in tests it is only played."""
    monkeypatch.setattr("cars_hw.measurement.schedule.PAUSE_S", 0.0)
