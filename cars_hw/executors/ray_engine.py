"""Ray as an engine."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack, redirect_stdout
from typing import Any, Final

from cars_hw.errors import InputError
from cars_hw.executors.agent import perform
from cars_hw.executors.engine import Call, Outcome, Room
from cars_hw.plugins import said

STORE_BYTES: Final = 100_000_000
"""The memory of Ray's object store: calls and outcomes are small."""


class RayPending:
    """A call that Ray was given."""

    def __init__(self, reference: Any) -> None:  # noqa: ANN401 -- Ray's own
        self._reference = reference

    def done(self) -> bool:
        """Whether it has ended."""
        import ray

        ready, _ = ray.wait([self._reference], timeout=0)
        return bool(ready)

    def result(self) -> Outcome:
        """Return how it ended."""
        import ray

        outcome: Outcome = ray.get(self._reference)
        return outcome

    def cancel(self) -> None:
        """Give it up."""
        import ray

        ray.cancel(self._reference, force=True)


class RayEngine:
    """Hands calls to the workers of Ray, to which this process is connected."""

    def __init__(self, room: Room, *, connected: bool) -> None:
        import ray

        self._connected = connected
        self._printed = ExitStack()
        # Ray prints that a worker was killed on standard output, which is for results.
        self._printed.enter_context(redirect_stdout(sys.stderr))
        self._remote = ray.remote(perform)
        # cars-hw begins a task again, and counts how often.
        self._options = {"num_cpus": room.threads, "num_gpus": 1 if room.gpu else 0, "max_retries": 0}

    def submit(self, call: Call) -> RayPending:
        """Let a worker do ``call``."""
        resources = {call.needs: 1} if call.needs else {}
        return RayPending(self._remote.options(**self._options, resources=resources).remote(tuple(call)))

    def close(self) -> None:
        """Disconnect; what was started for it ends."""
        import ray

        if self._connected:
            ray.shutdown()
        self._printed.close()


def open_ray(room: Room) -> RayEngine:
    """Return an engine for the cluster at ``room.where``, or for processes of this machine.

    A caller that is connected to Ray already stays connected.

    Raises:
        InputError: no cluster answers there.
    """
    # Ray reports its use to its makers unless it is told not to, and asks for this when it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return RayEngine(room, connected=False)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if room.where:
        options["address"] = room.where
    else:
        options |= {
            "address": "local",
            "num_cpus": room.workers * room.threads,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    try:
        ray.init(**options)
    # Ray raises errors of many kinds, some of them of the transport below it.
    except Exception as error:
        raise InputError(f"Ray cannot be reached at {room.where or 'this machine'}: {said(error)}") from error
    return RayEngine(room, connected=True)
