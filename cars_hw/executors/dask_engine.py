"""Dask as an engine: a scheduler that runs, or one of this machine that is started for a command."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cars_hw.child_processes import python_command, python_environment
from cars_hw.errors import InputError, RunError
from cars_hw.executors.agent import perform
from cars_hw.executors.engine import Call, Outcome, Room
from cars_hw.plugins import said

if TYPE_CHECKING:
    from distributed import Client

SECONDS_TO_CONNECT: Final = 20
SECONDS_TO_START: Final = 300
"""How long the scheduler may take to start on a busy machine."""

_CONFIGURATION: Final = {
    "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": f"{SECONDS_TO_START}s",
    # A task whose worker was killed is begun again by cars-hw, which counts how often.
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error",
}


class DaskPending:
    """A call that a Dask cluster was given."""

    def __init__(self, future: Any, cluster: LocalDask | None) -> None:  # noqa: ANN401 -- Dask's own
        self._future, self._cluster = future, cluster

    def done(self) -> bool:
        """Whether it has ended, or nobody is left to do it."""
        return bool(self._future.done()) or (self._cluster is not None and not self._cluster.runs())

    def result(self) -> Outcome:
        """Return how it ended."""
        if not self._future.done():
            raise RunError("the processes of Dask ended")
        outcome: Outcome = self._future.result()
        return outcome

    def cancel(self) -> None:
        """Give it up."""
        self._future.cancel()


class DaskEngine:
    """Hands calls to the workers of a Dask cluster; ``cluster`` ends with it."""

    def __init__(self, client: Client, cluster: LocalDask | None = None) -> None:
        self._client, self._cluster = client, cluster

    def submit(self, call: Call) -> DaskPending:
        """Let a worker do ``call``."""
        resources = {call.needs: 1} if call.needs else None
        # Not pure: an equal call is done again.
        future = self._client.submit(perform, tuple(call), pure=False, resources=resources)
        return DaskPending(future, self._cluster)

    def close(self) -> None:
        """Disconnect, and end the cluster that was started for it."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.end()


def open_dask(room: Room) -> DaskEngine:
    """Return an engine for the scheduler at ``room.where``, or for processes of this machine.

    Raises:
        InputError: no scheduler answers there.
    """
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    cluster = None if room.where else LocalDask(room)
    try:
        if cluster is None:
            return DaskEngine(Client(room.where, timeout=SECONDS_TO_CONNECT, set_as_default=False))
        client = Client(cluster.address, security=cluster.security, timeout=SECONDS_TO_START, set_as_default=False)
        return DaskEngine(client, cluster)
    except (OSError, ValueError, RuntimeError) as error:
        if cluster is not None:
            cluster.end()
        raise InputError(f"Dask cannot be reached at {room.where or 'this machine'}: {said(error)}") from error


class LocalDask:
    """A scheduler and workers, each a process of this machine that does not import the caller's script.

    Whoever reaches a scheduler can run code on its workers. A key that only this process and its children can read
    keeps other users of the machine out.

    Raises:
        InputError: the scheduler does not start.
    """

    def __init__(self, room: Room) -> None:
        from distributed import Security

        self.security = Security.temporary()
        files = room.folder / "dask"
        files.mkdir(mode=0o700)
        self._log = files / "log"
        self._environment = {**python_environment(), **_CONFIGURATION, **_keys(self.security, files)}
        self._processes: list[subprocess.Popen[bytes]] = []
        identity = files / "scheduler.json"
        options = {"host": "tls://127.0.0.1", "port": 0, "dashboard": False, "scheduler_file": str(identity)}
        options["dashboard_address"] = "127.0.0.1:0"
        try:
            self._start("distributed.Scheduler", options)
            self.address = self._address(identity)
            # A worker has one task at a time, which computes in a process of its own and needs no limit of memory.
            own = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "local_directory": str(files)}
            for _ in range(room.workers):
                self._start("distributed.Nanny", own, self.address)
        except BaseException:
            self.end()
            raise

    def runs(self) -> bool:
        """Whether the scheduler and a worker run. Dask itself replaces a worker that was killed."""
        scheduler, *workers = (process.poll() is None for process in self._processes)
        return scheduler and any(workers)

    def end(self) -> None:
        """End all processes: the supervisors of workers end their workers."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, cls: str, options: Mapping[str, object], *address: str) -> None:
        command = [*python_command("dask"), "spec", *address, "--spec", json.dumps({"cls": cls, "opts": options})]
        with self._log.open("ab") as log:
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment)
            )

    def _address(self, identity: Path) -> str:
        deadline = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline and self._processes[0].poll() is None:
            try:
                return str(json.loads(identity.read_text())["address"])
            except (OSError, ValueError):
                # It is not there, or not written to its end.
                time.sleep(0.1)
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
        raise InputError(f"the scheduler of Dask does not start: {lines[-1]}")


def _keys(security: Any, files: Path) -> dict[str, str]:  # noqa: ANN401 -- Dask's own
    """Write the keys of ``security`` to ``files``; return the configuration that names them to new processes."""
    named = {}
    for role in ("scheduler", "worker", "client"):
        for part, value in security.get_tls_config_for_role(role).items():
            if part in ("ca_file", "cert", "key") and value is not None:
                path = files / f"{role}-{part}.pem"
                path.touch(mode=0o600)
                path.write_text(value)
                where = "CA_FILE" if part == "ca_file" else f"{role.upper()}__{part.upper()}"
                named[f"DASK_DISTRIBUTED__COMM__TLS__{where}"] = str(path)
    return named
