"""Triton's depthwise kernels in its interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from long_runs import amount


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton is for Linux")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernels_are_those_of_pytorch_in_the_interpreter() -> None:
    cases = Path(__file__).with_name("triton_cases.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(cases)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{amount(4, 16) + 2} passed" in done.stdout
