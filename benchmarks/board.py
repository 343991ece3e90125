"""A board by ssh against the device of the same machine: both run the same models on the same cores.

::

    .venv/bin/python benchmarks/board.py [--network quick] [--networks 12] [--passes 2] [--json PATH]

An sshd of this machine is the board; its runner is the Python of this environment with LiteRT. Networks are
measured in turns by ``litert`` and by ``ssh:``, in several passes. Two passes of one device differ by the noise.
Needs sshd and ssh (Debian: openssh-server), and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
from ssh_server import Server

from cars_hw.config.files import write_json
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device, open_device
from cars_hw.devices.board.device import BoardDevice
from cars_hw.latency import measure_architectures
from cars_hw.progress import silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.typical import typical_genotype
from cars_hw.space.zoo import zoo


def passes(devices: dict[str, Device], spec: NetworkSpec, count: int, times: int) -> dict[str, np.ndarray]:
    """Return (times, networks) latencies in milliseconds by device."""
    networks = [Architecture(one.genotype, spec) for one in list(zoo().values())[:count]]
    reference = Architecture(typical_genotype(spec)[1], spec)
    found: dict[str, list[list[float]]] = {name: [] for name in devices}
    for number in range(times):
        for name, device in devices.items():
            taken = measure_architectures(device, networks, MeasurePlan(seed=number), silent, reference=reference)
            found[name].append([one.ms for one in taken.models])
            print(f"  pass {number + 1}, {name}: quiet {taken.machine.quiet_share:.0%} of the time", flush=True)
    return {name: np.array(rows) for name, rows in found.items()}


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean relative difference of two rows of latencies."""
    return float(np.mean(np.abs(first / second - 1)))


def main() -> None:
    """Measure, and print how far both devices are apart, beside the noise of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="quick")
    parser.add_argument("--networks", type=int, default=12, help="how many of the published networks")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        server = Server(Path(folder) / "sshd")
        try:
            server.python(sys.executable)
            board = BoardDevice(server.shell(), "ssh", log=print)
            devices: dict[str, Device] = {"litert": open_device("litert", 1), "ssh": board}
            found = passes(devices, NETWORKS[arguments.network], arguments.networks, arguments.passes)
        finally:
            server.stop()
    here, there = found["litert"], found["ssh"]
    record: dict[str, Any] = {
        "litert_ms": here.tolist(),
        "ssh_ms": there.tolist(),
        "noise_litert": apart(here[0], here[-1]),
        "noise_ssh": apart(there[0], there[-1]),
        "apart": apart(there.mean(axis=0), here.mean(axis=0)),
        "median_ratio": float(np.median(there.mean(axis=0) / here.mean(axis=0))),
    }
    print(
        f"  {here.shape[1]} networks: ssh takes {record['median_ratio']:.3f} times what litert takes (median), "
        f"mean difference {record['apart']:.1%}; two passes differ by {record['noise_litert']:.1%} on litert and "
        f"{record['noise_ssh']:.1%} on ssh"
    )
    if arguments.json is not None:
        write_json(arguments.json, record)


if __name__ == "__main__":
    main()
