"""Figures by generation and by epoch as TensorBoard reads them, written with the optional package tensorboardX."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Final

from cars_hw.errors import InputError
from cars_hw.evolution.objectives import CostObjective

FOLDER: Final = "tensorboard"
"""Where they are in a run; a trained network has a folder of its own in it."""

FILES: Final = "events.out.tfevents.*"


def require_tensorboard() -> None:
    """Check that events can be written.

    Raises:
        InputError: the package is not installed.
    """
    if find_spec("tensorboardX") is None:
        raise InputError(
            "--tensorboard needs the package tensorboardX, which is not installed; install it: "
            "pip install tensorboardX (or cars-hw with its extra: cars-hw[tensorboard])"
        )


class Events:
    """The scalars of one folder, each (name, step) once: what an earlier process wrote is left as it is.

    A file is begun when there is something to write, so that asking for events twice leaves nothing empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[tuple[str, int]] | None = None
        self._writer: Any = None

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write those of ``figures`` that are not there at ``step``, and see that they are on disk."""
        if self._known is None:
            self._known = {(name, at) for name, at, _ in read_events(self._folder)}
        new = {name: value for name, value in figures.items() if (name, step) not in self._known}
        if not new:
            return
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # The names count seconds; a process that goes on within one must not write over its predecessor's file.
            self._writer = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}")
        values = [Summary.Value(tag=name, simple_value=value) for name, value in new.items()]
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._writer.flush()
        self._known.update((name, step) for name in new)

    def close(self) -> None:
        """Close the file, if one was begun."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def generation_figures(record: Mapping[str, Any], objectives: Sequence[CostObjective]) -> dict[str, float]:
    """Return the figures of a generation of a run's history: costs are its population's, in their units."""
    figures = {
        "loss": record["loss"],
        "accuracy/best": record["best_accuracy"],
        "hypervolume": record["hypervolume"],
    }
    for index, one in enumerate(objectives):
        costs = [member["costs"][index] for member in record["population"]]
        for name, value in (("least", min(costs)), ("median", median(costs)), ("most", max(costs))):
            figures[f"{one.name} ({one.unit})/{name}"] = value
    return figures


def remove_events(folder: Path) -> None:
    """Remove the events of ``folder``, which are of something else than what begins there now."""
    for path in folder.glob(FILES):
        path.unlink()


def read_events(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Yield name, step and value of each scalar in ``folder``; a record that a kill cut short ends its file."""
    paths = sorted(folder.glob(FILES))
    if not paths:
        return
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboardX.proto.event_pb2 import Event

    for path in paths:
        data, start = path.read_bytes(), 0
        # A record: its length in eight bytes, four of a sum over it, the event, four of a sum over the event.
        while start + 12 <= len(data):
            (length,) = struct.unpack_from("<Q", data, start)
            end = start + 12 + length
            if end + 4 > len(data):
                break
            try:
                event = Event.FromString(data[start + 12 : end])
            except DecodeError:
                break
            for value in event.summary.value:
                yield value.tag, event.step, value.simple_value
            start = end + 4
