"""How the threads of a training wait for each other: steps per second, alone and beside busy processes.

    python benchmarks/threads.py [--busy 0 4] [--rounds 3] [--json FILE]

A training step on a CPU is hundreds of short parallel parts. Between them, the threads of GNU's OpenMP spin.
If another process has the core of one of them, the others spin while they wait for it. The environment variable
``GOMP_SPINCOUNT`` says how long they spin before they sleep. Each setting trains a small network in a process of
its own; in every round all settings run once, beside as many busy processes as ``--busy`` says. Ratios are to the
setting ``default``, within one round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from timing import machine

SETTINGS = {
    "default": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
SECONDS = 6.0

NETWORKS = {
    "8 channels, 5 cells, 14x14, batches of 32": (8, 5, 14, 32),
    "16 channels, 8 cells, 32x32, 96": (16, 8, 32, 96),
}


def work(channels: int, layers: int, side: int, batch: int) -> None:
    """Train for :data:`SECONDS` and print the steps per second."""
    import torch

    from cars_hw.nn.network import Network
    from cars_hw.space.network_spec import NetworkSpec
    from cars_hw.space.zoo import resolve_genotype

    network = Network(NetworkSpec(channels, layers, (side, side), 3, 10), resolve_genotype("DARTS_V2"))
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    images, labels = torch.rand(batch, 3, side, side), torch.randint(10, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(network(images), labels))
        optimizer.step()

    step()
    begun, steps = time.perf_counter(), 0
    while time.perf_counter() - begun < SECONDS:
        step()
        steps += 1
    print(steps / (time.perf_counter() - begun))


def rate(name: str, setting: dict[str, str]) -> float:
    """Return the steps per second of a process with ``setting``."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, "--work", *map(str, NETWORKS[name])]
    done = subprocess.run(command, env={**environment, **setting}, capture_output=True, text=True, check=True)
    return float(done.stdout)


def beside(busy: int, rounds: int) -> list[dict[str, Any]]:
    """Return what each network and setting has beside ``busy`` processes."""
    rows = []
    with ExitStack() as stack:
        for _ in range(busy):
            spinning = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(spinning.kill)
        for network in NETWORKS:
            found: dict[str, list[float]] = {name: [] for name in SETTINGS}
            for _ in range(rounds):
                for name, setting in SETTINGS.items():
                    found[name].append(rate(network, setting))
            for name, rates in found.items():
                ratios = [one / other for one, other in zip(rates, found["default"], strict=True)]
                rows.append(
                    {
                        "busy": busy,
                        "network": network,
                        "setting": name,
                        "steps_per_second": statistics.median(rates),
                        "ratio": statistics.median(ratios),
                        "ratios": ratios,
                    }
                )
                print(
                    f"{busy} busy processes, {network}, {name}: {rows[-1]['steps_per_second']:.3g} steps/s, "
                    f"{rows[-1]['ratio']:.2f} times the default ({min(ratios):.2f} to {max(ratios):.2f})",
                    flush=True,
                )
    return rows


def main() -> None:
    """Measure, and print a line for each network and setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 4], help="processes that spin beside")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--work", type=int, nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(*given.work)
        return
    rows = [row for busy in given.busy for row in beside(busy, given.rounds)]
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
