"""The scripts beside the package: ``benchmarks/`` and ``tools/``, as modules."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script ``name``, such as ``benchmarks/truth``."""
    folder, _, module = name.rpartition("/")
    monkeypatch.syspath_prepend(str(ROOT / folder))
    return importlib.import_module(module)
