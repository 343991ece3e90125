"""Make the embedded data set, ``cars_hw/data/fashion_mini.npz``, from Fashion-MNIST's own files.

The files are those of Debian's package ``dataset-fashion-mnist``::

    python tools/make_fashion_mini.py /usr/share/datasets/fashion-mnist

Of every class, 500 images are drawn from the training file and 100 from the test file; the two never mix. The
draw is seeded and the archive carries no clock, so that a second run writes the same bytes (with the same
zlib; another zlib may compress the same arrays into other bytes).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cars_hw.config.files import replacing

OUT = Path(__file__).resolve().parent.parent / "cars_hw" / "data" / "fashion_mini.npz"
SEED = 2017
TRAIN_PER_CLASS = 500
TEST_PER_CLASS = 100

Bytes = NDArray[np.uint8]


def read_idx(path: Path) -> Bytes:
    """Return the array of bytes that the gzipped IDX file at ``path`` holds.

    Raises ``ValueError`` if it holds anything else.
    """
    content = gzip.decompress(path.read_bytes())
    zero, kind, dimensions = struct.unpack_from(">HBB", content)
    if zero != 0 or kind != 8:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def draw(labels: Bytes, per_class: int, seed: int) -> NDArray[np.intp]:
    """Return the indices of ``per_class`` images of every class, shuffled.

    ``labels`` has shape ``(images,)``. Raises ``ValueError`` if a class has fewer images.
    """
    # NumPy promises the raw stream of a bit generator for ever, and promises no such thing for permutation().
    order = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    rank = np.empty(len(labels), np.intp)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        if len(members) < per_class:
            raise ValueError(f"class {label} has {len(members)} images; {per_class} are needed")
        rank[members] = np.arange(len(members))
    return order[rank[order] < per_class]


def write_npz(path: Path, arrays: Mapping[str, Bytes]) -> str:
    """Write ``arrays`` to ``path`` as a compressed npz that depends on nothing else; return its SHA-256."""
    with replacing(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3
                entry.external_attr = 0o644 << 16
                with archive.open(entry, "w") as handle:
                    np.lib.format.write_array(handle, array, version=(1, 0), allow_pickle=False)
        return hashlib.sha256(temporary.read_bytes()).hexdigest()


def make(source: Path, out: Path) -> str:
    """Make the data set at ``out`` from the four files in ``source``; return its SHA-256."""
    arrays: dict[str, Bytes] = {}
    for part, prefix, per_class in (("train", "train", TRAIN_PER_CLASS), ("test", "t10k", TEST_PER_CLASS)):
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = draw(labels, per_class, SEED)
        arrays[f"{part}_images"] = images[chosen]
        arrays[f"{part}_labels"] = labels[chosen]
    return write_npz(out, arrays)


def main() -> None:
    """Read the command line, make the file and print its SHA-256."""
    parser = argparse.ArgumentParser(description="Make the embedded Fashion-MNIST subset.")
    parser.add_argument("source", type=Path, help="the folder with Fashion-MNIST's four .gz files")
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write (default: %(default)s)")
    arguments = parser.parse_args()
    print(f"{make(arguments.source, arguments.out)}  {arguments.out}")


if __name__ == "__main__":
    main()
