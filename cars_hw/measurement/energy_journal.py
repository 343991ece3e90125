"""What an unfinished measurement of energy has found, on disk, so that it goes on after an interruption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.setting import Settings, setting
from cars_hw.errors import TableError

PARTIAL: Final = ChecksummedFormat("cars-hw partial energy", 1, "energy-again")


@dataclass(frozen=True)
class Taken(Settings):
    """What one run of a model took in one round, in joules beyond rest, and the largest error of it, a fraction.

    ``watts`` is the power of the whole device while the model ran, ``idle_watts`` that at rest, ``run_seconds`` the
    mean time of a run, and ``seconds`` the time that was counted.
    """

    joules: float = setting(above=0, maximum=1e9, unit="J")
    error: float = setting(minimum=0, maximum=1e9)
    watts: float = setting(minimum=0, maximum=1e9)
    idle_watts: float = setting(minimum=0, maximum=1e9)
    run_seconds: float = setting(minimum=0, maximum=1e9, unit="s")
    seconds: float = setting(minimum=0, maximum=1e9, unit="s")


@dataclass(frozen=True)
class PartialEnergy:
    """The content of the file of an unfinished measurement; see :class:`EnergyJournal`."""

    identity: dict[str, Any]
    taken: tuple[tuple[Taken, ...], ...]


class EnergyJournal:
    """The rounds so far of each of ``models`` models, written to ``path`` after every one of them.

    ``identity`` has what must agree when a measurement goes on, in plain values. Without ``path`` nothing is
    written.

    Raises:
        TableError: there is a measurement with another identity in ``path``, or it is damaged.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any], models: int) -> None:
        self.path = path
        self._identity = dict(identity)
        self.taken: list[list[Taken]] = [[] for _ in range(models)]
        if path is not None and path.exists():
            content = PARTIAL.read_record(path, PartialEnergy)
            differing = [name for name, value in self._identity.items() if content.identity.get(name) != value]
            if differing or len(content.taken) != models:
                raise TableError(
                    f"{path} is of an interrupted measurement with other settings "
                    f"({', '.join(differing) or 'networks'}); go on with the settings of that measurement, or "
                    "delete the file to start over"
                )
            self.taken = list(map(list, content.taken))

    @property
    def done(self) -> int:
        """How many rounds of models there are, of all models together."""
        return sum(map(len, self.taken))

    def add(self, model: int, taken: Taken) -> None:
        """Add a round of the model number ``model``, and write the file."""
        self.taken[model].append(taken)
        if self.path is not None:
            PARTIAL.write_record(self.path, PartialEnergy(self._identity, tuple(map(tuple, self.taken))))

    def remove(self) -> None:
        """Delete the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
