"""What the package exports is what it says it exports."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cars_hw


def test_every_exported_name_can_be_had() -> None:
    assert sorted(cars_hw.__all__) == sorted(cars_hw._WHERE)
    assert len(set(cars_hw.__all__)) == len(cars_hw.__all__)
    for name in cars_hw.__all__:
        assert getattr(cars_hw, name) is not None
    assert set(dir(cars_hw)) == set(cars_hw.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cars_hw.nonsense


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, cars_hw; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
