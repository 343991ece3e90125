"""The samples of an unfinished profile on disk, ``OUT.partial``, from which it resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.devices.protocol import Sample
from cars_hw.errors import TableError
from cars_hw.measurement.schedule import Series

PARTIAL: Final = ChecksummedFormat("cars-hw partial profile", 2, "profile-again")


def partial_path(out: Path) -> Path:
    """Return the path of the samples while the table ``out`` is unfinished."""
    return out.with_name(f"{out.name}.partial")


class Journal:
    """The samples so far by stage and model, written to disk after every block.

    ``identity`` has the settings that must agree when a profile resumes. Without ``out`` nothing is written.

    Raises:
        TableError: there are samples of an earlier profile and ``resume`` is false, or they have another identity,
            or the file is damaged.
    """

    def __init__(
        self, out: Path | None, identity: Mapping[str, Any], conditions: Mapping[str, Any], *, resume: bool
    ) -> None:
        self._path = None if out is None else partial_path(out)
        self._identity = dict(identity)
        self.conditions = dict(conditions)
        self._stages: dict[str, dict[str, Any]] = {}
        if self._path is not None and self._path.exists():
            if not resume:
                raise TableError(f"{self._path} holds an interrupted profile", remedy="resume-or-delete")
            self._load(self._path)

    def series(self, stage: str, names: Sequence[str]) -> Series:
        """Return the samples of the models ``names`` of ``stage``, in that order."""
        kept = self._stages.get(stage, {"models": {}, "reference": [], "rounds": []})
        models = [[Sample(*sample) for sample in kept["models"].get(name, [])] for name in names]
        return Series(models, [Sample(*sample) for sample in kept["reference"]], list(kept["rounds"]))

    def keep(self, stage: str, names: Sequence[str], series: Series) -> None:
        """Replace the samples of ``stage`` by ``series``, of the models ``names``, and write the file."""
        self._stages[stage] = {
            "models": dict(zip(names, series.models, strict=True)),
            "reference": series.reference,
            "rounds": series.rounds,
        }
        if self._path is not None:
            content = {"identity": self._identity, "conditions": self.conditions, "stages": self._stages}
            PARTIAL.write(self._path, content)

    def remove(self) -> None:
        """Delete the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _load(self, path: Path) -> None:
        content = PARTIAL.read(path)
        kept = content["identity"]
        differing = [name for name, value in self._identity.items() if kept.get(name) != value]
        if differing:
            raise TableError(
                f"{path} is of a profile with other settings ({', '.join(differing)}); "
                "resume with the settings of that profile, or delete the file to start over"
            )
        self.conditions, self._stages = content["conditions"], content["stages"]
