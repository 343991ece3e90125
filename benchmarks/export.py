"""Whether exported models compute what their networks do, how long writing one takes, what other tools make of it.

::

    .venv/bin/python benchmarks/export.py parity [--network cifar] [--random 200] [--json PATH]
    .venv/bin/python benchmarks/export.py dump FOLDER       then, in another environment:
    python benchmarks/other_converter.py FOLDER             (torch, litert-torch)

``parity`` exports every genotype of the zoo and random ones, and compares logits and every cell's output with
torch in float64. ``dump`` leaves ten networks with images and logits for the other converter.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema

from cars_hw.config.files import write_json
from cars_hw.export.lower import lower_network
from cars_hw.export.onnx import ONNX
from cars_hw.export.parity import check_parity
from cars_hw.export.tflite import TFLITE
from cars_hw.export.tflite_writer import tflite_bytes
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo

SPECS = {
    **NETWORKS,
    "odd": NetworkSpec(channels=16, layers=8, resolution=(65, 97)),
    "odd-imagenet": NetworkSpec(channels=16, layers=8, resolution=(65, 97), classes=1000, stem="imagenet"),
}


def genotypes(random: int) -> dict[str, Genotype]:
    """Return the zoo's and ``random`` others, a third of their edges absent."""
    rng = np.random.default_rng(0)
    found = {name: published.genotype for name, published in zoo().items()}
    return found | {f"random {number}": SearchSpace().sample(rng) for number in range(1, random + 1)}


def operators(model: bytes) -> Counter[str]:
    """Return how often a TFLite model has each operator, by name."""
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    opened = schema.ModelT.InitFromPackedBuf(model)
    codes = [names[code.builtinCode] for code in opened.operatorCodes]
    return Counter(codes[operator.opcodeIndex] for operator in opened.subgraphs[0].operators)


def parity(arguments: argparse.Namespace) -> dict[str, Any]:
    """Export and compare, and print the worst."""
    torch.set_num_threads(1)
    record: dict[str, Any] = {}
    for name in arguments.network or SPECS:
        spec, errors, seconds = SPECS[name], {ONNX.name: [], TFLITE.name: []}, []
        kinds: Counter[str] = Counter()
        for genotype in genotypes(arguments.random).values():
            network = seeded(lambda genotype=genotype, spec=spec: Network(spec, genotype), repr(genotype))
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "network"
                began = time.perf_counter()
                graph = lower_network(network)
                path.write_bytes(TFLITE.write(graph))
                seconds.append(time.perf_counter() - began)
                kinds += operators(path.read_bytes())
                errors[TFLITE.name].append(check_parity(network, path, TFLITE))
                path.write_bytes(ONNX.write(graph))
                errors[ONNX.name].append(check_parity(network, path, ONNX))
        record[name] = {
            "networks": len(seconds),
            "worst_onnx": max(errors["onnx"]),
            "worst_tflite": max(errors["tflite"]),
            "median_seconds": float(np.median(seconds)),
            "slowest_seconds": max(seconds),
            "operators": dict(kinds),
        }
        print(
            f"{name}: {len(seconds)} networks, worst relative error ONNX {max(errors['onnx']):.1e}, TFLite "
            f"{max(errors['tflite']):.1e}; written in {np.median(seconds):.2f} s, at most {max(seconds):.2f}; "
            f"operators {', '.join(sorted(kinds))}",
            flush=True,
        )
    return record


def dump(arguments: argparse.Namespace) -> dict[str, Any]:
    """Leave models, images and logits."""
    spec, folder = NETWORKS["cifar"], arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    names = []
    for number, (name, genotype) in enumerate(genotypes(5).items()):
        if number % 3:
            continue
        network = seeded(lambda genotype=genotype: Network(spec, genotype), repr(genotype))
        images = rng.standard_normal((3, *spec.input_shape), np.float32)
        with torch.no_grad():
            logits = network(torch.from_numpy(images)).numpy()
        names.append(name)
        path = folder / f"{number:02d}"
        path.with_suffix(".tflite").write_bytes(tflite_bytes(lower_network(network)))
        np.savez(path.with_suffix(".npz"), images=images, logits=logits)
        torch.save({"genotype": repr(genotype), "darts": genotype.to_darts(), "state": network.state_dict()}, path)
    print(f"{folder}: {', '.join(names)}")
    return {"networks": names}


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=("parity", "dump"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--network", action="append", choices=SPECS)
    parser.add_argument("--random", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.way == "dump" and arguments.folder is None:
        parser.error("dump needs a folder")
    record = (parity if arguments.way == "parity" else dump)(arguments)
    if arguments.json is not None:
        write_json(arguments.json, record)


if __name__ == "__main__":
    main()
