"""What must be shown on a GPU, measured by one command.

::

    PYTHONPATH=. python benchmarks/gpu/check.py [--cpu] [--parts correct,time] [--out FOLDER] [--seconds 540]

Run it in the root of a checkout, in an environment with PyTorch for CUDA, Triton, pytest and pymoo. ``--cpu`` is a
dry run with tiny sizes and emulated recordings; its times mean nothing. Every part runs in a process of its own and
writes ``PART.json``, so that a part that fails or takes too long leaves the others. The setting is that of the
paper: 16 channels, 8 cells, 32x32 images, batches of 128, bfloat16.

starting  loading and compiling the kernels, and the first epoch
correct   replays against plain passes and steps, Triton's kernels against PyTorch's
tests     the project's tests of recorded passes and shared weights, on the GPU
blocks    passes that are put together from recordings of blocks: right, their time, and the memory of a recording
time      a recording, a pass replayed and not, an evaluation, depthwise convolutions, a step of the final training
waits     lines that wait for the GPU
paper     two generations of the paper's search, the time of all of it, and the memory
compile   a step of the final training by torch.compile, launched and replayed; nothing is required of it
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from block_passes import blocks
from correctness import correct, tests
from gpu_setting import Gpu
from paper_search import paper
from times import compiled, starting, times
from waits import waits

LIMITS = {
    "starting": 120,
    "correct": 200,
    "tests": 120,
    "blocks": 120,
    "time": 150,
    "waits": 60,
    "paper": 200,
    "compile": 300,
}
"""Seconds after which a part is ended."""

REQUIRED = {
    "a replayed pass, ms": 4.0,
    "1,000 images judged, ms": 6.0,
    "a recording, ms": 40.0,
    "the paper's search, minutes": 20.0,
    "final training of CARS-E, s an epoch of 50,000 images": 25.0,
}

PARTS = {
    "starting": starting,
    "correct": correct,
    "tests": tests,
    "blocks": blocks,
    "time": times,
    "waits": waits,
    "paper": paper,
    "compile": compiled,
}


def table(out: Path, parts: Sequence[str], required: Mapping[str, float]) -> bool:
    """Print what the parts found, and return whether all of it is there, right, and within ``required``."""
    good = True
    for part in parts:
        path = out / f"{part}.json"
        if part == "compile" and not path.is_file():
            print(f"{part:8} no time was left")
            continue
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"nothing came back": False}
        for name, value in found.items():
            missed = value is False or (name in required and value > required[name])
            good = good and not missed
            asked = f"   required {required[name]:g}" if name in required else ""
            if isinstance(value, dict) and value:
                print(f"{part:8} {name}:")
                for key, one in value.items():
                    print(f"{'':12}{key:50} {one}")
                continue
            shown = f"{value:.4g}" if isinstance(value, float) else value
            print(f"{part:8} {name}: {shown}{asked}{'   MISSED' if missed else ''}")
    return good


def run(command: Sequence[str], limit: float) -> int:
    """Return the exit code of ``command``. What it has started ends with it at the ``limit``, in seconds.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    # A test run that went on would disturb the times of the next part.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(limit)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    """Run the parts, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="a dry run with tiny sizes")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="the folder of the results")
    parser.add_argument("--seconds", type=float, default=540, help="the time of all parts")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        found = PARTS[options.part](Gpu(options.cpu))
        (options.out / f"{options.part}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        return
    parts, ends = options.parts.split(","), time.monotonic() + options.seconds
    for part in parts:
        (options.out / f"{part}.json").unlink(missing_ok=True)
        command = [
            sys.executable,
            __file__,
            "--part",
            part,
            "--out",
            str(options.out),
            *(["--cpu"] if options.cpu else []),
        ]
        began = time.monotonic()
        try:
            limit = 600.0 if options.cpu else max(5.0, min(LIMITS[part], ends - time.monotonic()))
            code: object = run(command, limit)
        except subprocess.TimeoutExpired:
            code = "too slow"
        print(f"{part}: {code}, {time.monotonic() - began:.0f} s", flush=True)
    # The times of a dry run mean nothing.
    sys.exit(0 if table(options.out, parts, {} if options.cpu else REQUIRED) else 1)


if __name__ == "__main__":
    main()
