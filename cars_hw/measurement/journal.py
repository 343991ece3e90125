"""The samples of an unfinished profile on disk, ``OUT.partial``, from which it resumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.devices.protocol import Sample
from cars_hw.errors import TableError
from cars_hw.measurement.schedule import Event, Series
from cars_hw.measurement.sustained import Sustained

PARTIAL: Final = ChecksummedFormat("cars-hw partial profile", 3, "profile-again")


def partial_path(out: Path) -> Path:
    """Return the path of the samples while the table ``out`` is unfinished."""
    return out.with_name(f"{out.name}.partial")


def stored_identity(out: Path | None, *, resume: bool) -> Mapping[str, Any] | None:
    """Return the settings of the interrupted profile of the table ``out``; None without one.

    Raises:
        TableError: there is one and ``resume`` is false, or its file is damaged.
    """
    if out is None or not partial_path(out).exists():
        return None
    if not resume:
        raise TableError(f"{partial_path(out)} holds an interrupted profile", remedy="resume-or-delete")
    return PARTIAL.read_record(partial_path(out), Partial).identity


def stored_beginning(out: Path) -> Mapping[str, Any]:
    """Return the conditions at the beginning of the interrupted profile of the table ``out``.

    Raises:
        TableError: its file is damaged.
    """
    return PARTIAL.read_record(partial_path(out), Partial).conditions


_Row = tuple[str, float, str | None, float | None, float | None, float | None, float | None]
"""The name of a model, and the fields of its sample."""


@dataclass(frozen=True)
class Partial:
    """The content of the file of an unfinished profile; see :class:`Journal`."""

    identity: dict[str, Any]
    conditions: dict[str, Any]
    networks: tuple[str, ...] | None
    events: tuple[_Row, ...]
    rounds: tuple[tuple[str, ...], ...]
    blocks: int
    waited_s: float
    further: tuple[tuple[str, ...], ...] = ()
    fastest_ms: float | None = None
    loaded: tuple[str, ...] | None = None
    loads: tuple[Sustained, ...] = ()
    told: dict[str, Any] | None = None

    ADDED: ClassVar = frozenset({"further", "fastest_ms", "loaded", "loads", "told"})


class Journal:
    """The sessions so far and the networks that were chosen, written to disk after every block.

    ``series`` has the sessions, and ``conditions`` those of the beginning. ``networks`` has the calibration
    networks as text, None before they are chosen. ``further`` has the operations, as text, that were added in each
    step. ``loaded`` has the networks of the sustained state as text, None before they are chosen, and ``loads``
    what the first of them take there. ``told`` has what devices have learnt while they measured, see :meth:`learn`.

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
        self.series = Series()
        self.networks: list[str] | None = None
        self.further: list[list[str]] = []
        self.loaded: list[str] | None = None
        self.loads: list[Sustained] = []
        self.told: dict[str, Any] = {}
        if self._path is not None and stored_identity(out, resume=resume) is not None:
            self._load(self._path)

    def learn(self, known: Mapping[str, Any]) -> None:
        """Add to ``told`` what the device knows by now; a profile that resumes has one that knows less than before.

        Lists are joined, and of temperatures and other numbers the largest stays.
        """
        for name, value in known.items():
            self.told[name] = _joined(self.told.get(name), value)

    def keep(self) -> None:
        """Write the file."""
        if self._path is None:
            return
        series = self.series
        content = Partial(
            identity=self._identity,
            conditions=self.conditions,
            networks=None if self.networks is None else tuple(self.networks),
            events=tuple((event.model, *event.sample) for event in series.events),
            rounds=tuple(map(tuple, series.rounds)),
            blocks=series.blocks,
            waited_s=series.waited_s,
            further=tuple(map(tuple, self.further)),
            fastest_ms=series.fastest_ms,
            loaded=None if self.loaded is None else tuple(self.loaded),
            loads=tuple(self.loads),
            told=self.told,
        )
        PARTIAL.write_record(self._path, content)

    def remove(self) -> None:
        """Delete the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _load(self, path: Path) -> None:
        content = PARTIAL.read_record(path, Partial)
        differing = [name for name, value in self._identity.items() if content.identity.get(name) != value]
        if differing:
            raise TableError(
                f"{path} is of a profile with other settings ({', '.join(differing)}); "
                "resume with the settings of that profile, or delete the file to start over"
            )
        self.conditions = content.conditions
        self.networks = None if content.networks is None else list(content.networks)
        self.further = list(map(list, content.further))
        self.loaded = None if content.loaded is None else list(content.loaded)
        self.loads = list(content.loads)
        self.told = dict(content.told or {})
        events = [Event(row[0], Sample(*row[1:])) for row in content.events]
        rounds = list(map(list, content.rounds))
        self.series = Series(events, rounds, content.blocks, content.waited_s, content.fastest_ms)


def _joined(before: Any, value: Any) -> Any:  # noqa: ANN401 -- any JSON values
    if before is None or value is None:
        return before if value is None else value
    if isinstance(before, list) and isinstance(value, list):
        joined = list(dict.fromkeys([*before, *value]))
        # Numbers of cores are told in their order; sentences in that in which they came.
        return sorted(joined) if all(type(one) is int for one in joined) else joined
    if isinstance(before, dict) and isinstance(value, dict):
        return {name: _joined(before.get(name), value.get(name)) for name in {**before, **value}}
    if isinstance(before, int | float) and isinstance(value, int | float) and not isinstance(value, bool):
        return max(before, value)
    return value
