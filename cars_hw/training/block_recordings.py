"""Recordings of the blocks of a pass, see :mod:`cars_hw.nn.composed`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cars_hw.progress import Log, no_log
from cars_hw.training.recorder import Recorder, RecordingRefusedError, Replay

BLOCK_BYTES: Final = 131_072
"""Memory that the driver may take for the recording of a block, in bytes: assumed, and not measured.

A recorded pass of a thousand kernels took 4.5 MB on an H200. A block has six kernels.
"""


@dataclass
class BlockRecordings:
    """Does the work of blocks: the first time it is run, the second time also recorded, and then replayed.

    If a recording is refused, ``log`` gets one line, and blocks without a recording are run.
    """

    record: Recorder | None
    log: Log = no_log
    _replays: dict[object, Replay] = field(default_factory=dict)
    _seen: set[object] = field(default_factory=set)

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self._replays)

    def __call__(self, key: object, work: Callable[[], None], *, read: bool = False) -> None:
        """Do the ``work`` of the block with this ``key``; see :class:`cars_hw.nn.composed.Do`."""
        replay = self._replays.get(key)
        if replay is not None:
            replay()
        elif self.record is None or key not in self._seen:
            self._seen.add(key)
            work()
        else:
            self._recording(key, work, self.record, read=read)

    def clear(self) -> None:
        """Drop all recordings."""
        self._replays.clear()
        self._seen.clear()

    def _recording(self, key: object, work: Callable[[], None], record: Recorder, *, read: bool) -> None:
        try:
            self._replays[key] = record(work)
        except RecordingRefusedError as error:
            self.record = None
            self.log(
                f"a block of a pass cannot be recorded ({error}): the operations of blocks are launched one by "
                "one, which is slower"
            )
            if read:
                work()
            return
        if read:
            # A recording may have run the work, and then captured it without running it: what that has made is
            # filled by a replay.
            self._replays[key]()
