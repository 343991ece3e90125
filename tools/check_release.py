"""Build a release, and show that it can be published: `make release-check`.

    python tools/check_release.py [--out dist] [--libraries PYTHON]

Builds the sdist, and the wheel from the sdist; runs `twine check --strict`; compares the versions of
pyproject.toml, CITATION.cff and CHANGELOG.md; lists what the archives hold; installs the wheel into an empty
environment; and runs both examples there, in an empty folder: the cells of first_search.ipynb, and fine_tune.py
with a network of that search.

--libraries takes the libraries beside cars-hw from the environment of PYTHON, in place of an installation of some
gigabytes. Nothing is published and no tag is set.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

from check_install import IMAGES, ROOT, report_size, run

SHIPPED = {"cars_hw"}
"""What a wheel has at its top, beside its metadata."""

SOURCES = {
    *("cars_hw", "tests", "benchmarks", "tools", "docs", "examples"),
    *(
        "mkdocs.yml",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "CODE_OF_CONDUCT.md",
        "CITATION.cff",
        "LICENSE",
    ),
    *("constraints.txt", "Makefile", "pyproject.toml", "PKG-INFO", ".gitignore"),
}
"""What an sdist may have at its top."""


def main() -> None:
    """Run all checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--libraries", type=Path, metavar="PYTHON")
    given = parser.parse_args()
    version = one_version(ROOT)
    with tempfile.TemporaryDirectory(prefix="cars-hw-release-") as name:
        folder = Path(name)
        python = environment(folder / "builders")
        run(python, "-m", "pip", "install", "--quiet", "build", "twine")
        run(python, "-m", "build", "--outdir", given.out, ROOT, quiet=True)
        wheel = given.out / f"cars_hw-{version}-py3-none-any.whl"
        sdist = given.out / f"cars_hw-{version}.tar.gz"
        run(python, "-m", "twine", "check", "--strict", wheel, sdist)
        look_into(wheel, sdist)
        examples(wheel, folder, given.libraries)
    print(f"cars-hw {version} can be released: {wheel}, {sdist}")


def one_version(root: Path) -> str:
    """Return the version of the release; end if two files disagree."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    changes = re.findall(r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$", changelog(root), re.MULTILINE)
    found = {
        "pyproject.toml": project["version"],
        "CITATION.cff": citation[1] if citation else None,
        "CHANGELOG.md": changes[0] if changes else None,
    }
    if len(set(found.values())) > 1:
        sys.exit(f"Error: the versions differ: {found}")
    return str(project["version"])


def changelog(root: Path) -> str:
    """Return the text of the changelog."""
    return (root / "CHANGELOG.md").read_text(encoding="utf-8")


def environment(path: Path) -> Path:
    """Make an empty environment, and return its Python."""
    run(sys.executable, "-m", "venv", path)
    return path / "bin" / "python"


def look_into(wheel: Path, sdist: Path) -> None:
    """Print the sizes of the archives; end if one holds what it should not."""
    with zipfile.ZipFile(wheel) as content:
        tops = {name.split("/")[0] for name in content.namelist()}
        tops = {name for name in tops if not name.endswith(".dist-info")}
        files = len(content.namelist())
    if tops != SHIPPED:
        sys.exit(f"Error: {wheel.name} has {sorted(tops)} at its top")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {files} files")
    with tarfile.open(sdist) as content:
        names = content.getnames()
    tops = {name.split("/")[1] for name in names if "/" in name}
    if not tops <= SOURCES:
        sys.exit(f"Error: {sdist.name} has {sorted(tops - SOURCES)} at its top")
    print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.2f} MB, {len(names)} files")


def examples(wheel: Path, folder: Path, libraries: Path | None) -> None:
    """Install ``wheel`` into an empty environment, and run both examples in an empty folder."""
    python = environment(folder / "installed")
    constraints = ("--constraint", ROOT / "constraints.txt")
    if libraries is None:
        run(ROOT / "tools" / "install-torch", python, ROOT / "constraints.txt")
        run(python, "-m", "pip", "install", "--quiet", *constraints, f"{wheel}[search]")
    else:
        # The wheel's own dependencies are installed; what the extra adds is found behind them.
        run(python, "-m", "pip", "install", "--quiet", *constraints, wheel)
        say = "import sysconfig; print(sysconfig.get_path('purelib'))"
        path = subprocess.run([libraries, "-c", say], check=True, capture_output=True, text=True).stdout
        (packages,) = python.parent.parent.glob("lib/python3*/site-packages")
        (packages / "libraries.pth").write_text(path, encoding="utf-8")
    report_size(python.parent)
    here = folder / "here"
    here.mkdir()
    notebook = json.loads((ROOT / "examples" / "first_search.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (here / "first_search.py").write_text("\n\n".join([*cells, KEEP]) + "\n", encoding="utf-8")
    (here / "fine_tune.py").write_bytes((ROOT / "examples" / "fine_tune.py").read_bytes())
    alone(here, python, "-c", "import cars_hw; print(cars_hw.__file__)")
    alone(here, python, "first_search.py")
    # The search was for grey images of 14x14 pixels; those of other sizes are resized.
    alone(here, python, "-c", IMAGES, "images")
    alone(here, python, "fine_tune.py", "carried.safetensors", "images/train", "tuned", "--epochs", "2")
    alone(here, python, "-m", "cars_hw", "classify", "tuned/tuned.onnx", "images/test/light/0.png")


KEEP = """
import shutil

shutil.copyfile(next((folder / "run" / "trained").glob("net-??.safetensors")), "carried.safetensors")
"""


def alone(folder: Path, *command: object) -> None:
    """Run a command in ``folder`` without the paths of this environment; end with its output if it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    print(f"$ {' '.join(Path(str(part)).name if len(str(part)) < 200 else '...' for part in command)}", flush=True)
    done = subprocess.run([*map(str, command)], cwd=folder, env=clean, check=False, capture_output=True, text=True)
    print("".join(f"  {line}\n" for line in done.stdout.splitlines()), end="")
    if done.returncode:
        sys.exit(f"Error: it failed\n{done.stderr}")


if __name__ == "__main__":
    main()
