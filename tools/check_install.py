"""Install cars-hw into an empty environment, and show that it works there.

    python tools/check_install.py light               the wheel without extras: size, packages, commands, --help
    python tools/check_install.py lowest [PYTEST...]  the lowest versions that pyproject.toml allows, and the tests
    python tools/check_install.py newest [PYTEST...]  the newest versions that it allows, and the tests

--python names the interpreter (default: this one). PYTEST are arguments of pytest; without any, all tests run.
`light` needs the .venv of `make test`, which makes the run that the light installation then reads.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FULL = ROOT / ".venv" / "bin"
HELP_RUNS = 5


def main() -> None:
    """Run the check that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=["light", "lowest", "newest"])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--keep", type=Path, help="make the environment here and keep it")
    args, pytest = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="cars-hw-install-") as folder:
        environment = args.keep or Path(folder) / "environment"
        run(args.python, "-m", "venv", environment)
        if args.check == "light":
            light(environment / "bin", Path(folder))
        else:
            with_tests(environment / "bin", Path(folder), args.check, pytest)


def light(bin_: Path, folder: Path) -> None:
    """Install the wheel without extras, and run what it is for."""
    run(bin_ / "python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("cars_hw-*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB")
    run(bin_ / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    report_size(bin_)
    tiny_run(folder)
    table, finished = folder / "table.json", folder / "run"
    for command in (
        ("--version",),
        ("cost", "CARS_A", "--network", "imagenet"),
        ("zoo",),
        ("predict", "--table", table, "CARS_A"),
        ("table", "diff", table, table),
        ("report", finished),
    ):
        show(bin_, *command)
    model = next(iter(sorted((finished / "models").glob("*.onnx"))))
    image = next(iter(sorted((folder / "images").rglob("*.png"))))
    # What needs an extra says which.
    show(bin_, "classify", model, image, expected=1)
    show(bin_, "train", finished, expected=1)
    run(bin_ / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", "onnxruntime")
    show(bin_, "classify", model, image)
    taken = sorted(timed(bin_ / "cars-hw", "--help") for _ in range(HELP_RUNS))
    print(f"cars-hw --help: {taken[0]:.2f} to {taken[-1]:.2f} s, median {taken[HELP_RUNS // 2]:.2f} s")


def tiny_run(folder: Path) -> None:
    """Make a table, images and a finished run in ``folder`` with the full installation."""
    if not (FULL / "cars-hw").exists():
        sys.exit(f"Error: {FULL / 'cars-hw'} is missing; run: make test")
    run(FULL / "python", "-c", IMAGES, folder / "images")
    size = ("--channels", "4", "--layers", "3", "--resolution", "8", "--in-channels", "1", "--classes", "2")
    table, finished = folder / "table.json", folder / "run"
    cars_hw = FULL / "cars-hw"
    run(cars_hw, "profile", "--device", "fake", *size, "--calibration", "8", "--out", table, quiet=True)
    run(
        *(cars_hw, "search", "--data", folder / "images", "--table", table, "--preset", "quick", "--out", finished),
        *("--population", "4", "--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8", "--no-measure"),
        quiet=True,
    )
    run(cars_hw, "train", finished, "--top", "1", "--epochs", "1", "--batch-size", "8", quiet=True)
    run(cars_hw, "export", finished, quiet=True)


IMAGES = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
rng = np.random.default_rng(0)
for part, count in (("train", 40), ("test", 10)):
    for name, shade in (("dark", 40), ("light", 200)):
        folder = Path(sys.argv[1]) / part / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(shade - 30, shade + 30, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
"""


def with_tests(bin_: Path, folder: Path, which: str, pytest: Sequence[str]) -> None:
    """Install the lowest or the newest versions, and run the tests with them."""
    install = [bin_ / "python", "-m", "pip", "install", "--quiet"]
    if which == "lowest":
        constraints = folder / "lowest.txt"
        constraints.write_text("\n".join(lowest()) + "\n", encoding="utf-8")
        print(constraints.read_text(encoding="utf-8"), end="")
        install += ["--constraint", constraints]
    run(*install, "--editable", f"{ROOT}[dev]")
    report_size(bin_)
    run(bin_ / "python", "-m", "pytest", *(pytest or ("-n", "2")), cwd=ROOT)


def lowest() -> Iterator[str]:
    """Yield a constraint for the lower bound of each dependency, extras included, development tools excluded."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    shipped = [*project["dependencies"]]
    for name in extras.keys() - {"dev", "docs"}:
        shipped += extras[name]
    for requirement in sorted(shipped):
        found = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9.]+)", requirement)
        if found:
            yield f"{found[1]}=={found[2]}"


def report_size(bin_: Path) -> None:
    """Print how many packages are installed, and how large they are."""
    names = subprocess.run(
        [bin_ / "python", "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    ).stdout.split()
    own = [name for name in names if not name.startswith(("pip==", "setuptools==", "wheel=="))]
    (packages,) = bin_.parent.glob("lib/python3*/site-packages")
    size = sum(file.stat().st_size for file in packages.rglob("*") if file.is_file() and "/pip" not in str(file))
    print(f"{len(own)} packages, {size / 1e6:.0f} MB: {', '.join(own)}")


def show(bin_: Path, *arguments: object, expected: int = 0) -> None:
    """Run a command of the light installation, and print its beginning."""
    done = subprocess.run(
        [bin_ / "cars-hw", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=bin_.parent
    )
    said = (done.stdout + done.stderr).strip().splitlines()
    print(f"$ cars-hw {' '.join(Path(str(one)).name for one in arguments)}")
    print("\n".join(f"  {line}" for line in said[:6]))
    if done.returncode != expected:
        sys.exit(f"Error: exit code {done.returncode} instead of {expected}:\n{done.stderr}")


def timed(*command: object) -> float:
    """Return the seconds of wall time that ``command`` takes."""
    began = time.perf_counter()
    run(*command, quiet=True)
    return time.perf_counter() - began


def run(*command: object, quiet: bool = False, cwd: Path | None = None) -> None:
    """Run ``command``; end with its output if it fails."""
    done = subprocess.run([*map(str, command)], check=False, capture_output=quiet, text=True, cwd=cwd)
    if done.returncode:
        sys.exit(f"Error: {' '.join(map(str, command))} failed\n{(done.stdout or '') + (done.stderr or '')}")


if __name__ == "__main__":
    main()
