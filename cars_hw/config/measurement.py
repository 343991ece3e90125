"""Settings of a measurement: how often a model is run, and which of the runs count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from cars_hw.config.setting import Settings, setting
from cars_hw.errors import InputError

Precision = Literal["fp32", "int8"]

Meter = Literal["auto", "energy", "charge", "current"]
"""What tells the energy of a phone: a counter of it, one of the charge, the current over the time, or the first."""

Int8Scheme = Literal["asymmetric", "symmetric"]
"""How int8 represents activations: over any range, or over one around zero, with zero points of 0.

Latency tables of int8 are for asymmetric models. The weights of TFLite models are symmetric in both schemes.
"""

QUIET: Final = "quiet"
USUAL: Final = "usual"
"""States of a machine: the fastest that recurs, and that of the median moment; see
:mod:`cars_hw.measurement.states`."""

SUSTAINED: Final = "sustained"
"""The state after minutes of load; see :mod:`cars_hw.latency.sustained`."""


def quantile_of(state: str) -> float:
    """Return the quantile over the time that ``state`` names, 0 to 1.

    Raises:
        InputError: it is none.
    """
    try:
        share = float(state)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InputError(
            f"'{state}' is no state; use {QUIET}, {USUAL}, {SUSTAINED}, or a quantile over the time from 0 to 1"
        )
    return share


def require_state(state: str) -> None:
    """Check that ``state`` is ``quiet``, ``usual``, ``sustained``, or a quantile over the time, such as ``0.9``.

    Raises:
        InputError: it is another text.
    """
    if state not in (QUIET, USUAL, SUSTAINED):
        quantile_of(state)


@dataclass(frozen=True)
class MeasurePlan(Settings):
    """The settings of a measurement: sessions, warm-up, runs, and when it ends.

    A *session* is a freshly loaded model. All models have one session per round, in a new random order. Each
    group of ``block`` sessions runs in a fresh process. A session gives one sample: the ``quantile`` of its runs,
    which varies ten times less than their mean on a shared machine.

    After ``sessions`` rounds, models with too few sessions in the quiet state have further ones, for at most
    ``patience_seconds``.

    A process first runs its first model for at least ``warmup_seconds``, until the latency no longer falls. A
    session runs its model ``warmup_runs`` times unmeasured, then at least ``min_runs`` times and for at least
    ``min_seconds``. It ends after ``max_seconds`` if it has five runs by then, and otherwise with the fifth run.

    Raises:
        InputError: a number is out of its bounds.
    """

    sessions: int = setting(
        5,
        help="Smallest number of sessions of a model. A session loads the model anew and runs it several times.",
        minimum=1,
    )
    patience_seconds: float = setting(
        120.0,
        help="Longest time for further sessions. They end once every model was measured often enough in the quiet "
        "state, which is the fastest state of the machine that recurs.",
        unit="s",
        minimum=0,
        option="--patience",
        metavar="SECONDS",
    )
    max_standard_error: float = setting(
        0.01,
        help="Measurement goes on until predicted networks have at most this standard error, a fraction.",
        above=0,
    )
    warmup_seconds: float = setting(
        0.1, help="Unmeasured time at the start of a process, until its clock is steady.", unit="s", minimum=0
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
    block: int = setting(16, help="Sessions that share a process.", minimum=1)
    seed: int = setting(0, help="Decides the order of sessions and the models' inputs.", minimum=0)


@dataclass(frozen=True)
class SustainedPlan(Settings):
    """The settings of a measurement in the sustained state, which a device reaches after minutes of load.

    Raises:
        InputError: a number is out of its bounds.
    """

    load_seconds: float = setting(240.0, help="Time under load before the window that counts.", unit="s", minimum=0)
    window_seconds: float = setting(
        60.0, help="Time under load whose runs count; MLPerf Mobile has 60 s at least.", unit="s", above=0
    )
    session_seconds: float = setting(
        2.0, help="The tool runs a model for so long, and is started again at once.", unit="s", above=0
    )
    cool_seconds: float = setting(
        300.0,
        help="Longest time between two models in which the device rests until it is as fast as at the beginning.",
        unit="s",
        minimum=0,
    )


@dataclass(frozen=True)
class EnergyPlan(Settings):
    """The settings of a measurement of energy.

    It has windows in which a model runs without a pause, and windows in which the device rests.

    Raises:
        InputError: a number is out of its bounds.
    """

    networks: int = setting(
        8, help="Number of calibration networks of the table whose energy is measured, at least 4.", minimum=4
    )
    seconds: float = setting(
        30.0,
        help="Shortest time of a window, in which a network runs without a pause or the device rests.",
        unit="s",
        above=0,
        option="--window",
        metavar="SECONDS",
    )
    max_seconds: float = setting(
        600.0,
        help="Longest time of a window. A window becomes longer until the steps of the counter are small enough.",
        unit="s",
        above=0,
        option="--longest-window",
        metavar="SECONDS",
    )
    max_error: float = setting(
        0.05,
        help="Largest allowed error of a network's energy, a fraction. If it is exceeded, nothing is written.",
        above=0,
        below=1,
    )
