"""Commands of cars-hw in processes that are forked from one that has loaded everything.

Loading torch for each of them would take longer than the commands of a test.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("cars_hw.cli.main", "cars_hw.pipeline.search", "cars_hw.pipeline.estimate", "cars_hw.report.page"),
        *("cars_hw.pipeline.train", "cars_hw.pipeline.export"),
        # What torch loads at the first optimiser and the first event, each more than a second.
        *("torch._dynamo", "torch.utils.tensorboard"),
    ]
)


def start(arguments: Sequence[str], errors: Path) -> ForkServerProcess:
    """Start ``cars-hw`` with ``arguments``; its standard error goes to the file ``errors``."""
    process = FORKS.Process(target=_run, args=(list(arguments), errors))
    process.start()
    return process


def finish(process: ForkServerProcess, errors: Path) -> None:
    """Wait until ``process`` has ended, and check that it succeeded."""
    process.join(300)
    assert process.exitcode == 0, errors.read_text()


def _run(arguments: list[str], errors: Path) -> None:
    import torch

    from cars_hw.cli.main import main

    torch.set_num_threads(1)
    with errors.open("w") as kept:
        os.dup2(kept.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        main(arguments)
