"""Freed memory is kept: a large tensor that comes back costs no page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
from cars_hw.training.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(5_000_000)
before = faults()
for _ in range(20):
    np.ones(5_000_000)
print(kept, faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_freed_memory_is_not_paged_in_again() -> None:
    faults = {}
    for mode in ("keep", "return"):
        done = subprocess.run(
            [sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True
        ).stdout.split()
        faults[mode] = int(done[1])
    assert faults["keep"] < 100
    # 20 times 40 MB are 200,000 pages, or 400 where the system gives huge ones.
    assert faults["return"] > 350
