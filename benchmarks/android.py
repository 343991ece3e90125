"""A simulated phone on this machine, over the whole way that a real one takes.

::

    .venv/bin/python benchmarks/android.py overhead [--network quick] [--calibration 60] [--json PATH]
    .venv/bin/python benchmarks/android.py agree    --table litert.json [--json PATH]
    .venv/bin/python benchmarks/android.py validate [--network quick] [--table phone.json] [--json PATH]
    .venv/bin/python benchmarks/android.py budgets  --table phone.json [--epochs 7] [--json PATH]
    .venv/bin/python benchmarks/android.py cuts     [--runs 200] [--seed 0] [--json PATH]

``overhead`` takes the time of ``cars-hw profile`` and compares with what the runner itself took, both without the
warm-ups of its sessions. ``agree`` profiles it for the network
of a table of ``--device litert`` and compares the two. ``validate`` profiles it, and holds the table against random
networks and the zoo's; ``budgets`` searches on that table under three budgets and measures the fronts on the phone
again. ``cuts`` profiles a small network again and again with the connection cut at random packets,
resuming where a profile stops, and checks every table.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
from simulated_phone import Adbd, Phone

from cars_hw.config.codec import unstructure
from cars_hw.config.files import write_json
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android.adb import AdbShell, Address
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.remote_machine import Waits
from cars_hw.errors import DeviceError
from cars_hw.latency import LatencyTable, Predictor, compare_tables, profile_device
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from latency import profiled, searched, validated  # noqa: TID251 -- the benchmark beside this one

# Prints what the tool prints, of a model so many microseconds as its file has bytes: the right answer is known.
CANNED = """\
for flag in "$@"; do case $flag in --graph=*) graph=${flag#--graph=} ;; esac; done
us=$(wc -c < "$graph")
echo "count=2 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
echo "count=5 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
echo "Inference timings in us: Init: 1, First inference: $us, Warmup (avg): $us.5, Inference (avg): $us.5"
"""
TINY = NetworkSpec(4, 3, (8, 8), 1, classes=3)
MAX_OVERHEAD = 1.4
"""The command takes at most so many times what the runner takes, both without warm-ups."""

ONCE = MeasurePlan(sessions=1, warmup_seconds=0.0, patience_seconds=0)


@contextmanager
def plugged_in(script: str | None = None) -> Iterator[tuple[Phone, Adbd, AndroidDevice]]:
    """Yield a phone, its side of the connection and ours."""
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        phone = Phone(Path(folder) / "phone")
        phone.install(script)
        with Adbd(phone, taps=True) as adbd:
            shell = AdbShell(Address("127.0.0.1", adbd.port), keys=Path(folder) / "keys", log=lambda _: None)
            yield (
                phone,
                adbd,
                AndroidDevice(
                    shell, "android:simulated", log=lambda _: None, waits=Waits(pause=0.02, reconnect=2.0)
                ),
            )
            shell.close()


def overhead(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the time of the command ``cars-hw profile`` with what the runner took, which it writes down itself.

    The warm-ups of the sessions are in neither figure. With no patience the command waits for nothing.
    """
    with plugged_in() as (phone, adbd, device), tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        device._shell.close()
        named = ("--device", f"android:127.0.0.1:{adbd.port}", "--network", arguments.network)
        out = ("--out", str(Path(folder) / "table.json"), "--calibration", str(arguments.calibration))
        command = [sys.executable, "-m", "cars_hw", "profile", *named, *out, "--patience", "0", "--quiet"]
        began = time.monotonic()
        subprocess.run(command, check=True, env={**os.environ, "HOME": folder})
        took = time.monotonic() - began
        table = LatencyTable.read(Path(folder) / "table.json")
        runs = [tuple(map(float, line.split())) for line in (phone.folder / "runs").read_text().splitlines()]
    warmed, ran = sum(warmup for _, warmup in runs), sum(taken for taken, _ in runs)
    ratio = (took - warmed) / (ran - warmed)
    print(
        f"  {len(runs)} runs of {ran:.1f} s in all, of which {warmed:.1f} s of warm-up "
        f"({table.conditions['warmup_s']:g} s each); the command {took:.1f} s, no waits: {ratio:.2f} times without "
        f"the warm-ups, {took / ran:.2f} times with them; {len(table.entries)} operations, "
        f"{len(table.calibration)} networks, {adbd.packets} packets"
    )
    return {
        "command_s": took,
        "runner_s": ran,
        "warmups_s": warmed,
        "ratio": ratio,
        "runs": len(runs),
        "packets": adbd.packets,
        "limit": MAX_OVERHEAD,
        "kept": ratio <= MAX_OVERHEAD,
    }


def agree(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the phone's table with that of LiteRT on this machine."""
    here = LatencyTable.read(arguments.table)
    with plugged_in() as (_, _, device):
        there = profile_device(device, here.spec, precision=here.precision)
    found = compare_tables(here, there)
    slow = [one for one in found.operations if one.before_ms >= 0.02]
    ratios = [one.ratio for one in found.networks]
    print(
        f"  operations: median ratio {found.median_ratio:.3f}, of those of 20 us and more "
        f"{np.median([one.ratio for one in slow]):.3f} ({len(slow)} of {len(found.operations)}); "
        f"{len(ratios)} networks in both: median ratio {np.median(ratios) if ratios else float('nan'):.3f}"
    )
    return {"difference": unstructure(found), "network_ratios": ratios}


def validate_phone(arguments: argparse.Namespace) -> dict[str, Any]:
    """Profile the phone and hold the table against networks that took no part in it."""
    with plugged_in() as (_, _, device):
        return unstructure(validated(profiled(device, arguments.network, out=arguments.table), device))


def budgets(arguments: argparse.Namespace) -> dict[str, Any]:
    """Search on the table of a phone, which is profiled unless the table is there."""
    with plugged_in() as (_, _, device):
        if not arguments.table.exists():
            profiled(device, arguments.network, out=arguments.table)
        return searched(LatencyTable.read(arguments.table), device, arguments.epochs)


def cuts(arguments: argparse.Namespace) -> dict[str, Any]:
    """Cut the connection at random packets of profiles, and compare every table with an undisturbed one."""
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder, plugged_in(CANNED) as (phone, adbd, device):
        whole = profile_device(device, TINY, calibration=6, plan=ONCE)
        expected = {key: entry.ms for key, entry in whole.entries.items()}
        packets = adbd.packets
        resumed, broken, longest = 0, 0, 0.0
        for number in range(arguments.runs):
            out = Path(folder) / f"{number}.json"
            # One cut in four keeps the phone away for longer than it is waited for.
            adbd.faults.refuse_s = rng.choice([0.0, 0.0, 0.05, 2.5])
            count = rng.choice([1, 1, 2, 3])
            adbd.faults.cut_after = sorted(adbd.packets + rng.randrange(1, packets) for _ in range(count))
            table = None
            while table is None:
                began = time.monotonic()
                try:
                    table = profile_device(device, TINY, calibration=6, plan=ONCE, out=out, resume=True)
                except DeviceError:
                    resumed += 1
                    time.sleep(0.1)
                longest = max(longest, time.monotonic() - began)
            broken += count - len(adbd.faults.cut_after)
            adbd.faults.cut_after = []
            assert {key: entry.ms for key, entry in table.entries.items()} == expected
            assert all(entry.sessions == 1 for entry in table.entries.values())
            assert [one.measured.ms for one in table.calibration] == [one.measured.ms for one in whole.calibration]
            assert not (phone.tmp / "cars-hw").exists() or adbd.faults.refuse_s > 2
            Predictor(table)
            if (number + 1) % 10 == 0:
                print(f"  {number + 1} profiles, {broken} cuts, {resumed} times resumed", flush=True)
    print(
        f"  {arguments.runs} profiles of about {packets} packets, {broken} cuts, {resumed} times resumed by hand, "
        f"all tables complete and equal; the longest took {longest:.1f} s"
    )
    return {"runs": arguments.runs, "cuts": broken, "resumed": resumed, "longest_s": longest}


def main() -> None:
    """Run one of the five."""
    ways = {
        "overhead": overhead,
        "agree": agree,
        "validate": validate_phone,
        "budgets": budgets,
        "cuts": cuts,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=ways)
    parser.add_argument("--network", choices=NETWORKS, default="quick")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--calibration", type=int, default=60, help="networks of the profile whose time is taken")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="decides where connections are cut")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    record = ways[arguments.way](arguments)
    if arguments.json is not None:
        write_json(arguments.json, record)


if __name__ == "__main__":
    main()
