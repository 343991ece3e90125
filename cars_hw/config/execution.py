"""Which executor works on the tasks of a step that do not depend on each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cars_hw.config.setting import Settings, setting

LOCAL: Final = "local"
"""The executor that needs no further package: processes of this machine."""


@dataclass(frozen=True)
class Execution(Settings):
    """Where trainings and searches that do not depend on each other run, and how often one is begun again."""

    executor: str = setting(
        LOCAL,
        help="What runs the trainings: local (processes of this machine), dask, ray or submitit (jobs of SLURM). "
        "dask:ADDRESS and ray:ADDRESS use a running cluster, submitit:FILE.toml gives the settings of the jobs. "
        "All machines must share the folder of the run.",
        metavar="ENGINE[:WHERE]",
    )
    retries: int = setting(
        2, help="How often a task is begun again after its worker was killed.", minimum=0, maximum=1000
    )
    threads: int | None = setting(
        None,
        help="Threads of each task, with another executor than local. [a share of the cores of this machine]",
        minimum=1,
        maximum=10_000,
    )

    @property
    def engine(self) -> str:
        """The name of the executor: the part before the colon."""
        return self.executor.partition(":")[0]

    @property
    def where(self) -> str:
        """What follows the colon: the address of a cluster, or a file of settings; empty without one."""
        return self.executor.partition(":")[2]

    @property
    def elsewhere(self) -> bool:
        """Whether tasks may run on other machines than this one."""
        if self.engine == "submitit":
            return self.where != LOCAL
        return self.engine != LOCAL and bool(self.where)


HERE: Final = Execution()
"""Processes of this machine."""
