"""Whether exported models compute the same on an arm64 processor: LiteRT's arm64 build under qemu-user. No timings.

::

    .venv/bin/python benchmarks/arm64.py [--networks 20] [--root FOLDER]

Needs Debian's qemu-user-static and root's apt. Gathers an arm64 Python (Debian's) and the arm64 wheels of LiteRT
and numpy in FOLDER, once, and runs exported models there and here on the same images.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cars_hw.devices.host.litert_runtime import interpreter
from cars_hw.export.lower import lower_network
from cars_hw.export.tflite_writer import tflite_bytes
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo

PACKAGES = (
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "zlib1g",
    "libexpat1",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libssl3",
    "libuuid1",
    "libcrypt1",
)
# LiteRT 2.3 ends with a segmentation fault under qemu 7.2, whatever processor that plays; 2.1, 1.4 and
# tflite-runtime 2.14 do not.
WHEELS = (
    "ai-edge-litert==2.1.0",
    "numpy",
    "backports.strenum",
    "flatbuffers",
    "protobuf",
    "tqdm",
    "typing-extensions",
)
SPEC = NetworkSpec(channels=16, layers=8, resolution=(32, 32), classes=10)
IMAGES = 3

# What runs over there: every model on its images.
THERE = """\
import glob, platform, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
print(platform.machine(), flush=True)
for path in sorted(glob.glob(sys.argv[1] + "/*.tflite")):
    images = np.load(path.replace(".tflite", ".npy"))
    loaded = Interpreter(model_path=path, num_threads=1)
    loaded.allocate_tensors()
    logits = []
    for image in images:
        loaded.set_tensor(loaded.get_input_details()[0]["index"], image[None])
        loaded.invoke()
        logits.append(loaded.get_tensor(loaded.get_output_details()[0]["index"])[0])
    np.save(path.replace(".tflite", ".out.npy"), np.array(logits))
"""


def gather(root: Path) -> None:
    """Put an arm64 Python with LiteRT into ``root``."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg", "--add-architecture", "arm64"], check=True)
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        names = [f"{name}:arm64" for name in PACKAGES]
        subprocess.run(["apt-get", "download", "-qq", *names], cwd=folder, check=True)
        for package in sorted(Path(folder).glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, root], check=True)
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in (17, 24, 26, 27, 28, 31, 34, 35)]
    options = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3"]
    options += ["--abi=none", "--platform=manylinux2014_aarch64", *(f"--platform={name}" for name in platforms)]
    site = root / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), *options, *WHEELS]
    subprocess.run(command, check=True)


def main() -> None:
    """Run the models in both places and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--root", type=Path, default=Path("/tmp/cars-hw-arm64"))
    arguments = parser.parse_args()
    if not (arguments.root / "site" / "ai_edge_litert").is_dir():
        gather(arguments.root)
    rng = np.random.default_rng(0)
    published = [one.genotype for one in zoo().values()][: arguments.networks // 2]
    genotypes = published + [SearchSpace().sample(rng) for _ in range(arguments.networks - len(published))]
    with tempfile.TemporaryDirectory() as folder:
        here: list[np.ndarray] = []
        for number, genotype in enumerate(genotypes):
            network = seeded(lambda genotype=genotype: Network(SPEC, genotype), repr(genotype))
            model = tflite_bytes(lower_network(network))
            images = rng.standard_normal((IMAGES, *SPEC.resolution, SPEC.in_channels), np.float32)
            (Path(folder) / f"{number:02}.tflite").write_bytes(model)
            np.save(Path(folder) / f"{number:02}.npy", images)
            here.append(run_here(model, images))
        (Path(folder) / "there.py").write_text(THERE)
        python = arguments.root / "usr" / "bin" / "python3.11"
        environment = {"PYTHONPATH": str(arguments.root / "site"), "PYTHONHOME": str(arguments.root / "usr")}
        done = subprocess.run(
            ["qemu-aarch64-static", "-L", arguments.root, python, f"{folder}/there.py", folder],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(done.stderr[-2000:])
        worst = 0.0
        for number, logits in enumerate(here):
            there = np.load(Path(folder) / f"{number:02}.out.npy")
            worst = max(worst, float(np.abs(there - logits).max() / np.abs(logits).max()))
    print(f"{len(here)} networks on {done.stdout.strip()}: at most {worst:.1e} of the largest logit apart")


def run_here(model: bytes, images: np.ndarray) -> np.ndarray:
    """Return the logits of ``images`` on this processor."""
    loaded = interpreter(model, 1)
    (taken,), (given,) = loaded.get_input_details(), loaded.get_output_details()
    logits = []
    for image in images:
        loaded.set_tensor(taken["index"], image[None])
        loaded.invoke()
        logits.append(loaded.get_tensor(given["index"])[0])
    return np.array(logits)


if __name__ == "__main__":
    main()
