"""Make a small data set from a folder of images: fewer images, of fewer pixels, divided into three parts.

    python tools/make_small_images.py FOLDER OUT [--size 16] [--train 17500] [--val 2500] [--test 5000]

FOLDER holds class folders, or parts such as ``train`` and ``test`` that hold class folders. OUT gets the folders
``train``, ``val`` and ``test``, which ``--data`` of cars-hw reads. Each pixel of a small image is the mean of the
area that it covers. Images are stored as PNG, without loss.

The images are drawn by a seeded generator, and every part has each class in the same share as FOLDER. A part that
FOLDER lacks is drawn from its training images; no image goes into two parts. OUT appears when it is complete.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image

from cars_hw.data import stratified_split
from cars_hw.data.images import upright
from cars_hw.data.scan import Classes, PartName, scan_folder
from cars_hw.errors import CarsHwError, InputError
from cars_hw.progress import Progress, counted, silent
from cars_hw.progress_line import show

Counts = Mapping[PartName, int]

COUNTS: Counts = {"train": 17_500, "validation": 2_500, "test": 5_000}
FOLDERS: Mapping[PartName, str] = {"train": "train", "validation": "val", "test": "test"}

Drawn = dict[PartName, list[tuple[str, Path]]]
"""The images of each part, with their classes, in the order of classes and files."""


def draw(parts: Mapping[PartName, Classes], counts: Counts, seed: int) -> Drawn:
    """Return ``counts`` images for each part, drawn from the same part of the folder, or from its training part.

    Raises:
        InputError: a part has too few images.
    """
    drawn: Drawn = {}
    generator = torch.Generator().manual_seed(seed)
    for source, classes in parts.items():
        wanted = [name for name in counts if (name if name in parts else "train") == source]
        images = [(name, file) for name, files in classes.items() for file in files]
        needed = sum(counts[name] for name in wanted)
        if needed > len(images):
            raise InputError(f"{needed} images are wanted of the {source} part, which has {len(images)}")
        numbers = {name: number for number, name in enumerate(classes)}
        labels = torch.tensor([numbers[name] for name, _ in images])
        chosen = stratified_split(labels, [counts[name] / len(images) for name in wanted], generator)
        drawn |= {
            name: [images[place] for place in sorted(places.tolist())]
            for name, places in zip(wanted, chosen, strict=True)
        }
    return drawn


def make(
    folder: Path, out: Path, size: int, counts: Counts = COUNTS, *, seed: int = 0, progress: Progress = silent
) -> None:
    """Write ``counts`` images of ``folder``, averaged to ``size`` x ``size`` pixels, to the new folder ``out``.

    Raises:
        CarsHwError: ``out`` exists, or ``folder`` cannot be used, has too few images or one that cannot be read.
    """
    if out.exists():
        raise InputError(f"{out} exists; remove it, or give another name")
    drawn = draw(scan_folder(folder).parts, counts, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for part, images in drawn.items():
            for number, (name, file) in enumerate(counted(images, progress, FOLDERS[part])):
                target = temporary / FOLDERS[part] / name
                target.mkdir(parents=True, exist_ok=True)
                upright(file).resize((size, size), Image.Resampling.BOX).save(target / f"{number:06d}.png")
        # mkdtemp makes the folder private to its owner.
        temporary.chmod(0o755)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main() -> None:
    """Make the folder that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="class folders, or train/ and test/ with class folders")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--size", type=int, default=16, help="side of the small images in pixels")
    for part, count in COUNTS.items():
        parser.add_argument(f"--{FOLDERS[part]}", type=int, default=count, dest=part, help=f"{part} images")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    args = parser.parse_args()
    counts: Counts = {"train": args.train, "validation": args.validation, "test": args.test}
    if min(args.size, *counts.values()) < 1:
        parser.error("sizes and numbers of images are 1 at least")
    try:
        make(args.folder, args.out, args.size, counts, seed=args.seed, progress=show)
    except CarsHwError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
