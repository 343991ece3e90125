"""What all tests share: one thread for torch, no pauses, the option ``--long``, and schemas that hold.

Files are not flushed to the disk: it takes milliseconds for each of ten thousand files, and no test cuts the power.
"""

from __future__ import annotations

import gc
import os

import pytest
from kept_models import keep_models
from long_runs import VARIABLE
from published_schemas import checked_text

# Threads that share cores wait for each other. It is set before torch is imported; processes of tests inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No adb server and no key of the machine that runs the tests takes part in them: nothing listens at port 1.
os.environ["ANDROID_ADB_SERVER_PORT"] = "1"
for _name in ("ANDROID_SERIAL", "ANDROID_USER_HOME", "ADB_VENDOR_KEYS"):
    os.environ.pop(_name, None)


def _flush_nothing(_descriptor: int) -> None:
    """Stand for :func:`os.fsync`. A test whose disk is full replaces it."""


os.fsync = _flush_nothing


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--long``."""
    parser.addoption("--long", action="store_true", help="run every case of the tests that take a sample otherwise")


def pytest_configure(config: pytest.Config) -> None:
    """Tell :func:`long_runs.amount`, which test modules call when they are imported."""
    if config.getoption("--long"):
        os.environ[VARIABLE] = "1"


def pytest_collection_finish() -> None:
    """Keep models that tests measure, and keep tests and libraries out of every garbage collection.

    The latter are half a million objects that stay.
    """
    keep_models()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no steady machine: the disturbances of tests are simulated."""
    monkeypatch.setattr("cars_hw.measurement.schedule.PROBE_PAUSE_S", 0.01)


@pytest.fixture(autouse=True)
def outputs_fit_their_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare whatever a command of a test prints with ``--json`` with its published schema."""
    monkeypatch.setattr("cars_hw.cli.options.json_text", checked_text)
