"""The dumped networks through litert-torch: python benchmarks/other_converter.py FOLDER.

In an environment of its own: pip install torch litert-torch, and this repository on PYTHONPATH. Prints for each
network how far the two files' logits are from torch's, and what they take, in turns, on one thread.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter

from cars_hw.nn.network import Network
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NETWORKS

ROUNDS = 5
RUNS = 20


def opened(path: Path) -> Interpreter:
    """Return an interpreter of ``path``."""
    loaded = Interpreter(model_path=str(path), num_threads=1)
    loaded.allocate_tensors()
    return loaded


def logits(loaded: Interpreter, image: np.ndarray) -> np.ndarray:
    """Return the logits of an image, of either layout."""
    loaded.set_tensor(loaded.get_input_details()[0]["index"], np.ascontiguousarray(image[None]))
    loaded.invoke()
    return loaded.get_tensor(loaded.get_output_details()[0]["index"])[0]


def milliseconds(loaded: Interpreter) -> float:
    """Return a low quantile of the runs."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        loaded.invoke()
        times.append(time.perf_counter() - began)
    return 1e3 * sorted(times)[RUNS // 10]


def main(folder: Path) -> None:
    """Convert and compare every network."""
    for ours in sorted(folder.glob("*.tflite")):
        kept, stored = np.load(ours.with_suffix(".npz")), torch.load(ours.with_suffix(""), weights_only=True)
        network = Network(NETWORKS["cifar"], Genotype.parse(stored["darts"])).eval()
        network.load_state_dict(stored["state"])
        began = time.perf_counter()
        theirs = folder / f"{ours.stem}.other"
        litert_torch.convert(network, (torch.from_numpy(kept["images"][:1]),)).export(str(theirs))
        seconds = time.perf_counter() - began
        a, b = opened(ours), opened(theirs)
        truths = kept["logits"]
        scale = np.abs(truths).max()
        errors = [
            max(np.abs(logits(loaded, image) - truth).max() for image, truth in zip(images, truths, strict=True))
            / scale
            for loaded, images in ((a, kept["images"].transpose(0, 2, 3, 1)), (b, kept["images"]))
        ]
        turns = np.array([(milliseconds(a), milliseconds(b)) for _ in range(ROUNDS)])
        first, second = np.median(turns, axis=0)
        print(
            f"{ours.stem}: ours {first:.2f} ms, off by {errors[0]:.1e}; litert-torch {second:.2f} ms, off by "
            f"{errors[1]:.1e}, converted in {seconds:.1f} s; ratio {second / first:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
