"""The words of settings that several commands have, so that their help says the same."""

from __future__ import annotations

from typing import Any

from cars_hw.config.setting import setting

ON = "Where to train: auto is the GPU if there is one."
JOBS = "Networks trained side by side, each in a process. [one per core; one on a GPU]"
THREADS = (
    "Number of threads that a model runs on, each on a physical core of its own. A table is valid for this number "
    "of threads only."
)
RECIPE = "How networks are trained."
EXECUTION = "Where trainings and searches that do not depend on each other run."
DATA = "Where the images come from."
NETWORK = "The network that is exported."
SUSTAINED = (
    "Then measure what each network takes after minutes of load: it runs for four minutes, then for one that "
    "counts, with pauses in which the device cools down. For phones and boards."
)
METER = (
    "For phones: what tells the energy. The charge counter of a battery is coarse, and its current may be rough. "
    "auto: the first of energy, charge and current that the phone tells."
)
STATES = (
    "quiet (the fastest that recurs), usual (the median moment), sustained (after minutes of load; profile "
    "--sustained measures it), or a quantile over the time such as 0.9."
)
LOAD = "The load before and while the sustained state is measured."
TABLE = "A latency table, as cars-hw profile writes it."


def level() -> Any:  # noqa: ANN401 -- as dataclasses.field
    """Return the field of the level of an upper bound."""
    return setting(0.95, help="Share of networks whose latency stays below their upper bound.", above=0, below=1)
