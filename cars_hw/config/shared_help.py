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
    "Then measure the latency of each network after minutes of load: the network runs for four minutes that do not "
    "count and one that counts. The device cools down between two networks. For phones and boards."
)
METER = (
    "For phones: the reading of the battery that gives the energy. The charge counter is coarse, and the current "
    "may be rough. auto: the first of energy, charge and current that the phone reports."
)
STATES = (
    "quiet (the fastest that recurs), usual (the median moment), sustained (after minutes of load; profile "
    "--sustained measures it), or a quantile over the time such as 0.9."
)
LOAD = "The load before and while the sustained state is measured."
TABLE = "A latency table, as cars-hw profile writes it."


def level() -> Any:  # noqa: ANN401 -- as dataclasses.field
    """Return the field of the level of an upper bound."""
    return setting(0.95, help="Share of networks that are faster than their own upper bound.", above=0, below=1)
