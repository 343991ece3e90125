"""Settings of a measurement: how often a model is run, and which of the runs count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cars_hw.config.setting import Settings, setting

Precision = Literal["fp32", "int8"]


@dataclass(frozen=True)
class MeasurePlan(Settings):
    """The settings of a measurement: sessions, runs, and the repetition of outliers.

    A *session* is a freshly loaded model. All models have one session per round, in a new random order. Each
    group of ``block`` sessions runs in a fresh process. A session gives one sample: the ``quantile`` of its runs,
    which varies ten times less than their mean on a shared machine.

    A session is good under two conditions. Its sample lies within ``tolerance`` (a fraction) of the median of the
    others. The latency of the reference network, measured before and after the session's block, lies within
    ``drift_tolerance`` of its usual value. A model with fewer than ``sessions`` good sessions has further ones, at
    most ``max_extra_sessions``.

    A session runs a model ``warmup_runs`` times unmeasured, then at least ``min_runs`` times and for at least
    ``min_seconds``. It ends after ``max_seconds`` if it has five runs by then, and otherwise with the fifth run.

    Raises:
        InputError: a number is out of its bounds.
    """

    sessions: int = setting(
        5,
        help="Number of sessions of a model, each loading it anew; its latency is the median over them.",
        minimum=1,
    )
    warmup_runs: int = setting(3, help="Unmeasured runs at the start of a session.", minimum=0)
    min_runs: int = setting(20, help="Measured runs of a session, at least.", minimum=1)
    min_seconds: float = setting(0.03, help="Measured time of a session, at least.", unit="s", minimum=0)
    max_seconds: float = setting(
        5.0, help="A session ends after this time, once it has five runs.", unit="s", above=0
    )
    quantile: float = setting(
        0.1, help="Quantile of a session's runs that is its latency, a fraction.", minimum=0, maximum=1
    )
    tolerance: float = setting(
        0.05, help="A session that is this far from the others is measured again, a fraction.", above=0
    )
    drift_tolerance: float = setting(
        0.03,
        help="A session is measured again if the reference network was this far off at that time, a fraction.",
        above=0,
    )
    block: int = setting(16, help="Sessions that share a process.", minimum=1)
    max_extra_sessions: int = setting(3, help="Further sessions of a model, at most.", minimum=0)
    seed: int = setting(0, help="Decides the order of sessions and the models' inputs.", minimum=0)
