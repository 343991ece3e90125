"""A data set ten times the memory it may use: search, training, evaluation; images a second beside in memory.

::

    .venv/bin/python benchmarks/large_data.py memory FOLDER [--limit 640] [--times 10] [--side 224]
    .venv/bin/python benchmarks/large_data.py growth FOLDER [--limit 64]
    .venv/bin/python benchmarks/large_data.py speed FOLDER [--images 1000] [--side 224] [--rounds 5]

``memory`` writes a folder of images to FOLDER (hard links of a few files) and runs ``cars-hw search`` and
``cars-hw train`` on it with ``--data-memory``. While they run, it reads RssAnon of their processes twenty times a
second: the memory that belongs to no file. It prints the peaks. ``growth`` runs the same on 64 images as well, and
prints how much more the large data set takes: PyTorch alone has about 300 MB, so a small ``--limit`` is below any
program that uses it.

``speed`` reads a smaller folder in memory and from a store, both warm, and prints images a second of the batches
alone, and of the training of a small network, in turns; and the ratios.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FILES = 64
"""Different images; the others are links to these."""

CONFIG = "[training]\nevaluation_batch = 32\nevaluation_images = 256\nthreads = 1\n"


def write(folder: Path, train: int, test: int, side: int) -> None:
    """Write a folder of two classes with ``train`` and ``test`` images of ``side`` pixels."""
    random = np.random.default_rng(0)
    (folder / "files").mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8) // 2 + np.uint8(100 * (number % 2))
        # A format that takes next to no time to decode: the memory and the reading are measured.
        Image.fromarray(pixels).save(folder / "files" / f"{number}.ppm")
    for part, images in (("train", train), ("test", test)):
        for number in range(images):
            path = folder / "images" / part / f"class-{number % 2}" / f"{number}.ppm"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.hardlink_to(folder / "files" / f"{number % FILES}.ppm")


def anonymous(pid: int) -> int:
    """Return the bytes of anonymous memory of a process and of those that it started."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    return (1024 * int(found[1]) if found else 0) + sum(anonymous(int(one)) for one in below)


def watched(name: str, *arguments: str) -> int:
    """Run a command of cars-hw and return the peak of its anonymous memory, in bytes."""
    begun = time.monotonic()
    # One thread: a second one needs buffers of its own.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "cars_hw", *arguments], env=environment)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{name} failed")
    print(f"{name}: peak of RssAnon {peak / 1e6:.0f} MB, {time.monotonic() - begun:.0f} s", flush=True)
    return peak


def growth(folder: Path, limit: int, times: float, side: int) -> None:
    """Print the peaks on ``times`` the ``limit``, in MB, beside those on a few images."""
    few = memory(folder / "few", limit, 0.0, side)
    many = memory(folder / "many", limit, times, side)
    for name, one, other in zip(("search", "train and evaluate"), few, many, strict=True):
        print(f"{name}: {(other - one) / 1e6:+.0f} MB beside {FILES} images; limit {limit} MB")


def memory(folder: Path, limit: int, times: float, side: int) -> list[int]:
    """Run search and training on images of ``times`` the ``limit``, in MB; return the peaks in bytes."""
    images = max(FILES, round(1e6 * limit * times / (3 * side * side)))
    write(folder, images // 2, images - images // 2, side)
    (folder / "config.toml").write_text(CONFIG)
    print(
        f"{images} images of {side}x{side} take {3 * side * side * images / 1e9:.2f} GB; limit {limit} MB",
        flush=True,
    )
    run = str(folder / "run")
    of_data = ("--data-memory", f"{limit}MB", "--image-cache", str(folder / "cache"), "--on", "cpu")
    network = ("--network", "imagenet", "--channels", "4", "--layers", "3", "--classes", "2")
    length = ("--population", "2", "--epochs", "2", "--warmup-epochs", "1", "--epochs-per-generation", "1")
    peaks = [
        watched(
            "search",
            *("search", "--data", str(folder / "images"), "--resolution", f"{side}x{side}", *network, *length),
            *("--batch-size", "16", "--no-crop", "--no-mirror", "--cost", "multiply-adds", *of_data),
            *("--config", str(folder / "config.toml"), "--out", run),
        ),
        watched(
            "train and evaluate",
            *("train", run, "--top", "1", "--epochs", "1", "--batch-size", "16", "--jobs", "1", "--no-crop"),
            *of_data,
        ),
    ]
    kept = max(peaks) <= 1e6 * limit
    print(
        f"largest peak {max(peaks) / 1e6:.0f} MB of {limit} MB: {'under' if kept else 'over'} the limit", flush=True
    )
    return peaks


def speed(folder: Path, images: int, side: int, rounds: int) -> None:
    """Print images a second in memory and from a store."""
    import torch

    from cars_hw.data import Augmentation, TrainingBatches, load_data
    from cars_hw.nn.network import Network
    from cars_hw.space.network_spec import NetworkSpec
    from cars_hw.space.zoo import resolve_genotype

    torch.set_num_threads(1)
    write(folder, images, 16, side)
    batches = []
    for limit in (10**12, 1):
        data = load_data(str(folder / "images"), memory=limit, image_cache=str(folder / "cache"))
        batches.append(TrainingBatches(data.train, 32, data.mean, data.std, Augmentation(), device="cpu"))
    spec = NetworkSpec(4, 5, (side, side), 3, 2, stem="imagenet")
    network = Network(spec, resolve_genotype("DARTS_V2"))

    def one(of: Any, train: bool) -> float:  # noqa: ANN401 -- batches
        begun = time.perf_counter()
        for pixels, labels in of.epoch(torch.Generator().manual_seed(0)):
            if train:
                network.zero_grad()
                torch.autograd.backward(torch.nn.functional.cross_entropy(network(pixels), labels))
        return images / (time.perf_counter() - begun)

    for what, train in (("batches alone", False), ("training", True)):
        found: list[list[float]] = [[], []]
        for number in range(rounds + 1):
            for place in (0, 1) if number % 2 else (1, 0):
                rate = one(batches[place], train)
                if number:
                    found[place].append(rate)
        inside, outside = map(np.median, found)
        ratios = np.sort(np.divide(found[1], found[0]))
        print(
            f"{what}: {inside:.0f} images/s in memory, {outside:.0f} from a store; ratio {np.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f} in {rounds} rounds)",
            flush=True,
        )


def main() -> None:
    """Run the part that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("memory", "growth", "speed"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=640, help="MB that the data set may use")
    parser.add_argument("--times", type=float, default=10, help="size of the data set by the limit")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.part == "memory":
        memory(given.folder, given.limit, given.times, given.side)
    elif given.part == "growth":
        growth(given.folder, given.limit, given.times, given.side)
    else:
        speed(given.folder, given.images, given.side, given.rounds)


if __name__ == "__main__":
    main()
