"""submitit as an engine: jobs of SLURM, or processes of this machine that stand for them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from cars_hw.config.execution import LOCAL
from cars_hw.errors import InputError
from cars_hw.executors.agent import perform
from cars_hw.executors.engine import Call, Pending, Room
from cars_hw.plugins import said

MINUTES: Final = 24 * 60
"""The time limit of a job. Submitit's own is five minutes."""


class SubmititEngine:
    """Submits each call as a job."""

    def __init__(self, executor: Any) -> None:  # noqa: ANN401 -- submitit's own
        self._executor = executor
        self._jobs: list[Any] = []

    def submit(self, call: Call) -> Pending:
        """Submit a job that does ``call``.

        Raises:
            InputError: the cluster refuses the job, or it needs what only some machines have.
        """
        if call.needs:
            raise InputError(f"submitit cannot choose the machine that has {call.needs}; use dask or ray")
        try:
            job: Any = self._executor.submit(perform, tuple(call))
        # Submitit passes on whatever the command of the cluster ended with.
        except Exception as error:
            raise InputError(f"submitit cannot submit a job: {said(error)}") from error
        self._jobs.append(job)
        pending: Pending = job
        return pending

    def close(self) -> None:
        """Cancel the jobs that have not ended."""
        for job in self._jobs:
            if not job.done():
                job.cancel()


def open_submitit(room: Room) -> SubmititEngine:
    """Return an engine for SLURM with the settings in the file ``room.where``; ``local`` for this machine.

    The file is TOML with the parameters of submitit's ``AutoExecutor``, such as ``slurm_partition``, and optionally
    ``cluster``.

    Raises:
        InputError: the file cannot be read, a setting is unknown, or there is no SLURM.
    """
    import submitit

    settings: dict[str, Any] = {"cluster": LOCAL} if room.where == LOCAL else _read(room.where)
    parameters: dict[str, Any] = {
        "name": "cars-hw",
        "timeout_min": MINUTES,
        "cpus_per_task": room.threads,
        **({"gpus_per_node": 1} if room.gpu else {}),
        **settings,
    }
    cluster = parameters.pop("cluster", "slurm")
    try:
        executor = submitit.AutoExecutor(room.folder / "submitit", cluster=cluster)
        executor.update_parameters(**parameters)
    # Submitit has errors of several kinds for settings that it does not know.
    except Exception as error:
        raise InputError(f"submitit cannot use the cluster '{cluster}': {said(error)}") from error
    return SubmititEngine(executor)


def _read(where: str) -> dict[str, Any]:
    if not where:
        return {}
    try:
        return tomllib.loads(Path(where).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the settings of submitit in {where} cannot be read: {error}") from error
