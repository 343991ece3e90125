"""The formats of the files of a run: their names, their version, and what helps when one cannot be read."""

from __future__ import annotations

from typing import Final

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.errors import RunError

SCHEMA: Final = 3
"""The version of all files of a run. A run with another one is refused."""

RUN: Final = ChecksummedFormat("cars-hw run", SCHEMA, "restore-run", RunError)
START: Final = ChecksummedFormat("cars-hw start of a search", SCHEMA, "restore-run", RunError)
FRONT: Final = ChecksummedFormat("cars-hw front", SCHEMA, "remake-front", RunError)
FINAL: Final = ChecksummedFormat("cars-hw final stage", SCHEMA, "remake-front", RunError)
RESULT: Final = ChecksummedFormat("cars-hw final result", SCHEMA, "remake-front", RunError)
HISTORY: Final = ChecksummedFormat("cars-hw history", SCHEMA, "remake-front", RunError)
STEPS: Final = ChecksummedFormat("cars-hw steps", SCHEMA, "delete-steps", RunError)
TRAINED: Final = ChecksummedFormat("cars-hw trained network", SCHEMA, "train-again", RunError)
VERIFIED: Final = ChecksummedFormat("cars-hw verified models", SCHEMA, "verify-again", RunError)
DATA: Final = ChecksummedFormat("cars-hw data manifest", SCHEMA, "restore-run", RunError)
DATA_CHANGES: Final = ChecksummedFormat("cars-hw accepted changes", SCHEMA, "restore-run", RunError)
STUDY: Final = ChecksummedFormat("cars-hw study", SCHEMA, "remake-study", RunError)
"""The result of a study of a run: its ranking, or its comparison with other strategies."""
