"""One thread for torch in every test: threads that share their cores only wait for each other."""

from __future__ import annotations

import os

# Before torch is imported anywhere; test processes that are started inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
