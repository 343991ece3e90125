"""The dumped models in another runtime: python benchmarks/other_runtime.py FOLDER (numpy<2, tflite-runtime)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:
    from ai_edge_litert.interpreter import Interpreter


def main(folder: Path) -> None:
    """Run every model on its images, and print how far its logits are from torch's."""
    worst = 0.0
    for path in sorted(folder.glob("*.tflite")):
        kept = np.load(path.with_suffix(".npz"))
        loaded = Interpreter(model_path=str(path), num_threads=1)
        loaded.allocate_tensors()
        source, target = loaded.get_input_details()[0]["index"], loaded.get_output_details()[0]["index"]
        logits, times = [], []
        for image in kept["images"]:
            loaded.set_tensor(source, np.ascontiguousarray(image.transpose(1, 2, 0)[None]))
            for _ in range(5):
                began = time.perf_counter()
                loaded.invoke()
                times.append(time.perf_counter() - began)
            logits.append(loaded.get_tensor(target)[0])
        error = np.abs(np.array(logits) - kept["logits"]).max() / np.abs(kept["logits"]).max()
        worst = max(worst, float(error))
        print(f"{path.name}: relative error {error:.1e}, {1e3 * min(times):.2f} ms")
    print(f"{Interpreter.__module__}: worst relative error {worst:.1e}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
