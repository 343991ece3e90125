"""Exported models in other runtimes, one table: python benchmarks/other_runtime.py --env DIR [--json PATH].

For each runtime an environment is made in DIR with ``pip install`` (3 GB in all), unless it is there. Networks with
every operation, of even and odd sizes, with one and three channels, are exported in both formats, in float and in
both schemes of int8. Every runtime runs the files of the formats that it reads. Printed is how far the logits are
from those of torch in float64. A runtime that refuses a file, crashes or takes too long is a row as well, and so is
one that cannot be installed.

``--runtime NAME`` runs only some of them; ``--models FOLDER`` keeps the models there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import machine

from cars_hw.config.files import write_json
from cars_hw.config.measurement import Int8Scheme
from cars_hw.devices.host.litert_runtime import interpreter
from cars_hw.export.card import Preprocessing
from cars_hw.export.classify import prepare
from cars_hw.export.format import ExportFormat, Usage
from cars_hw.export.formats import FORMATS
from cars_hw.export.int8_refinement import refine
from cars_hw.export.lower import lower_network
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.operations import OPERATIONS
from cars_hw.space.zoo import zoo

WORKER = Path(__file__).with_name("runtime_worker.py")
IMAGES = 4
CALIBRATION_IMAGES = 16
MEAN, STD = 0.45, 0.25
"""The same for every channel: MediaPipe knows no other."""

FLOAT_BOUND = 1e-5
"""A float model whose relative error is larger does not agree."""

INT8_BOUND = 0.1
"""An int8 model whose logits are further off, as a norm relative to that of torch's logits, does not agree."""


@dataclass(frozen=True)
class Runtime:
    """Another runtime: what pip installs for it, and the formats that it reads.

    Without ``packages`` it is in this environment. ``bare`` are packages that are installed without what they
    require. ``home`` is the environment, where it has another name.
    """

    formats: tuple[str, ...]
    packages: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    home: str = ""


RUNTIMES = {
    "onnxruntime": Runtime(("onnx",)),
    "openvino": Runtime(("onnx", "tflite"), ("openvino",)),
    "openvino-float": Runtime(("onnx", "tflite"), ("openvino",), home="openvino"),
    # pnnx requires torch for what is not needed here.
    "ncnn": Runtime(("onnx",), ("ncnn",), ("pnnx",)),
    "mnn": Runtime(("onnx", "tflite"), ("MNN",)),
    "tract": Runtime(("onnx",), ("tract",)),
    "litert": Runtime(("tflite",)),
    "litert-builtin": Runtime(("tflite",)),
    "litert-batch": Runtime(("tflite",)),
    "tensorflow": Runtime(("tflite",), ("tensorflow-cpu",)),
    "tflite-runtime": Runtime(("tflite",), ("tflite-runtime", "numpy<2")),
    "tflite-micro": Runtime(("tflite",), ("tflite-micro",)),
    "mediapipe": Runtime(("tflite",), ("mediapipe",)),
}
SCHEMES: tuple[tuple[str, Int8Scheme | None], ...] = (
    ("fp32", None),
    ("int8", "asymmetric"),
    ("int8-symmetric", "symmetric"),
)


def cases() -> Iterator[tuple[str, NetworkSpec, Genotype]]:
    """Yield the networks: all operations at every size and number of channels, empty nodes, the other stem."""
    names = [name for name in OPERATIONS if name != "none"]
    cell = tuple((Edge(names[number], 0), Edge(names[(number + 1) % len(names)], 1)) for number in range(0, 8, 2))
    every, empty = Genotype(cell, cell), zoo()["SNAS_aggressive"].genotype
    for channels in (1, 3):
        # The second halves evenly, then oddly; the third is odd.
        for size in ((32, 32), (28, 28), (15, 17)):
            yield f"every-{size[0]}x{size[1]}x{channels}", NetworkSpec(8, 5, size, channels), every
    yield "empty-28x28x1", NetworkSpec(8, 5, (28, 28), 1), empty
    yield "empty-15x17x3", NetworkSpec(8, 5, (15, 17), 3), empty
    yield "stem-65x97x3", NetworkSpec(8, 4, (65, 97), 3, stem="imagenet"), every


def make_models(folder: Path) -> dict[str, Any]:
    """Write every model to ``folder``, with its images, and return the logits of torch by network."""
    truths = {}
    for name, spec, genotype in cases():
        network = seeded(lambda spec=spec, genotype=genotype: Network(spec, genotype), name)
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (CALIBRATION_IMAGES, *spec.resolution, spec.in_channels), dtype=np.uint8)
        usual = Preprocessing.of((MEAN,) * spec.in_channels, (STD,) * spec.in_channels, spec.resolution)
        ways = {one.layout: replace(usual, layout=one.layout) for one in FORMATS.values()}
        images = np.concatenate([prepare(one, ways["NHWC"]) for one in pixels[:IMAGES]])
        class_names = np.array([f"class {number}" for number in range(spec.classes)])
        np.savez(folder / f"{name}.npz", images=images, pixels=pixels[:IMAGES], class_names=class_names)
        with torch.no_grad():
            inputs = torch.from_numpy(images).permute(0, 3, 1, 2).double()
            truths[name] = network.double().eval()(inputs).numpy()
        graph = lower_network(network.float())
        usage = Usage((MEAN,) * spec.in_channels, (STD,) * spec.in_channels, 1 / 255, tuple(class_names.tolist()))
        for one in FORMATS.values():
            feeds = [{"image": prepare(image, ways[one.layout])} for image in pixels]
            model = one.write(graph, usage=usage)
            for kind, scheme in SCHEMES:
                content = model if scheme is None else refine(model, one, feeds, scheme)
                path = folder / file_name(name, kind, one)
                path.write_bytes(content)
                if one.name == "tflite":
                    write_scales(path)
    return truths


def write_scales(model: Path) -> None:
    """Write beside the TFLite file ``model`` the scales and zero points of its input and output."""
    loaded = interpreter(str(model), 1)
    details = (*loaded.get_input_details(), *loaded.get_output_details())
    model.with_name(f"{model.name}.json").write_text(
        json.dumps({detail["name"]: [float(part) for part in detail["quantization"]] for detail in details})
    )


def file_name(network: str, kind: str, export_format: ExportFormat) -> str:
    """Return how the model file is called."""
    return f"{network}.{kind}{export_format.suffix}"


def environment(name: str, folder: Path) -> tuple[Path | None, str]:
    """Return the Python of the runtime's environment and its versions; or None and why there is no environment."""
    runtime = RUNTIMES[name]
    if not runtime.packages:
        return Path(sys.executable), versions(Path(sys.executable), (name.partition("-")[0],))
    home = folder / (runtime.home or name)
    python = home / "bin" / "python"
    ready = home / "ready"
    if not ready.is_file():
        venv.create(home, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        for arguments in (runtime.packages, ("--no-deps", *runtime.bare) if runtime.bare else ()):
            if not arguments:
                continue
            done = subprocess.run([*install, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                return None, f"not available: {last_line(done.stderr)}"
        ready.touch()
    return python, versions(python, (*runtime.packages, *runtime.bare))


def versions(python: Path, packages: Iterable[str]) -> str:
    """Return the versions of ``packages`` in the environment of ``python``."""
    wanted = {"litert": "ai-edge-litert"}
    names = [wanted.get(name, name) for name in packages if "<" not in name]
    code = "import sys; from importlib.metadata import version; print(*(f'{n} {version(n)}' for n in sys.argv[1:]))"
    done = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run_models(
    python: Path, name: str, models: Sequence[str], folder: Path, timeout: float
) -> list[dict[str, Any]]:
    """Return the lines of the worker, one for each model; after a crash it goes on with the next model."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        while len(found) < len(models):
            results = Path(place) / f"{len(found)}"
            left = models[len(found) :]
            command = [str(python), str(WORKER), name, str(folder), str(results), *left]
            error = ""
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=timeout * len(left)
                )
                if done.returncode:
                    error = f"ends with {done.returncode}: {last_line(done.stderr)}"
            except subprocess.TimeoutExpired:
                error = f"runs for more than {timeout:g} s"
            lines = results.read_text().splitlines() if results.is_file() else []
            found += [json.loads(line) for line in lines]
            if len(lines) < len(left):
                found.append({"model": models[len(found)], "error": error or "ends without a result"})
    return found


def judged(line: dict[str, Any], truth: Any, kind: str) -> dict[str, Any]:  # noqa: ANN401 -- an array
    """Return the row of a model: its error relative to torch, and whether it agrees."""
    if "error" in line:
        return {"model": line["model"], "refused": short(line["error"])}
    logits = np.array(line["logits"])
    if logits.shape != truth.shape:
        return {"model": line["model"], "refused": f"gives logits of shape {logits.shape}, not {truth.shape}"}
    difference = logits - truth
    if kind == "fp32":
        error = float(np.abs(difference).max() / np.abs(truth).max())
        return {"model": line["model"], "error": error, "agrees": error <= FLOAT_BOUND}
    error = float(np.linalg.norm(difference) / np.linalg.norm(truth))
    return {"model": line["model"], "error": error, "agrees": error <= INT8_BOUND}


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Return the cell of a table for ``rows``."""
    ran = [row for row in rows if "error" in row]
    agree = sum(row["agrees"] for row in ran)
    text = f"{agree} of {len(rows)}"
    if ran:
        text += f", off by at most {max(row['error'] for row in ran):.1e}"
    reasons = dict.fromkeys(row["refused"] for row in rows if "refused" in row)
    return "; ".join((text, *reasons))


def short(text: str) -> str:
    """Return the beginning of ``text`` in one line."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}..."


def last_line(text: str) -> str:
    """Return the last line of ``text`` that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"


def main() -> None:
    """Make the models, run them everywhere, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, required=True, help="Where the environments are, or are made.")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--timeout", type=float, default=60, help="Seconds for each model.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = (arguments.models or Path(place)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        truths = make_models(folder)
        print(f"{len(truths)} networks", flush=True)
        record = {name: results(name, folder, truths, arguments) for name in arguments.runtime or RUNTIMES}
    if arguments.json is not None:
        write_json(
            arguments.json, {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "runtimes": record}
        )


def results(name: str, folder: Path, truths: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the rows of the runtime ``name`` for each format and precision, and print them."""
    python, about = environment(name, arguments.env.resolve())
    print(f"\n{name}: {about}", flush=True)
    record: dict[str, Any] = {"version": about}
    if python is None:
        return record
    for one in (FORMATS[known] for known in RUNTIMES[name].formats):
        for kind, _ in SCHEMES:
            models = [file_name(network, kind, one) for network in truths]
            lines = run_models(python, name, models, folder, arguments.timeout)
            rows = [judged(line, truths[line["model"].partition(".")[0]], kind) for line in lines]
            record[f"{one.name} {kind}"] = rows
            print(f"  {one.name} {kind}: {summary(rows)}", flush=True)
    return record


if __name__ == "__main__":
    main()
