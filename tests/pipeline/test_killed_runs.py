"""A run whose commands are killed many times ends with the files of an undisturbed run, to the last bit."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import forked
import numpy as np
import pytest
from long_runs import amount

from cars_hw.latency import LatencyTable, Predictor
from cars_hw.space.search_space import SearchSpace

KILLS = amount(1, 2)
"""How often each of the four commands is killed. 7 runs have 56 kills."""

SEARCH = (
    "search --population 4 --epochs 3 --warmup-epochs 1 --epochs-per-generation 1 --batch-size 32 --seed 3 "
    "--on cpu --final 0.3 --jobs 1 --resume"
)
FORMATS = ["--format", "onnx", "--format", "tflite"][: amount(2, 4)]
TRAIN = "--epochs 2 --batch-size 32 --top 2 --jobs 1 --on cpu"

OTHERWISE = re.compile(r"steps\.jsonl|run\.json|data\.json|report\.html")
"""Files that hold times and folders: their other content is compared."""


def content(run: Path) -> dict[str, str]:
    """Return the digests of the files of ``run`` by name."""
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.rglob("*")
        if path.is_file() and not OTHERWISE.fullmatch(path.name)
    }


def facts(run: Path) -> dict[str, Any]:
    """Return the facts of the images of ``run``, without their time and the checksum."""
    content: dict[str, Any] = json.loads((run / "data.json").read_text())
    return {name: value for name, value in content.items() if name not in ("created", "checksum")}


def steps(run: Path) -> list[str]:
    """Return the names of the steps of ``run``, each once."""
    lines = (run / "steps.jsonl").read_text().splitlines()[1:]
    return list(dict.fromkeys(json.loads(line)["name"] for line in lines))


def page(run: Path) -> str:
    """Return the report of ``run`` without times, folders and steps: a step that was killed is listed twice."""
    text = (run / "report.html").read_text().replace(str(run), "RUN").replace(run.name, "RUN")
    text, removed = re.subn(r'<section id="repeat">.*?</section>', "", text, flags=re.DOTALL)
    assert removed == 1
    return re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00| UTC)?", "TIME", text)


class Maker(NamedTuple):
    """What makes a run: a table, images, and a budget that half of the random networks keep to."""

    table: Path
    images: Path
    limit: float

    def commands(self, run: Path) -> list[list[str]]:
        """Return the commands that make ``run``. A killed one may be run again."""
        search = [*SEARCH.split(), "--data", str(self.images), "--table", str(self.table)]
        return [
            [*search, "--latency", f"{self.limit}ms", "--out", str(run)],
            ["train", str(run), *TRAIN.split()],
            ["export", str(run), *FORMATS],
            ["report", str(run)],
        ]


@pytest.fixture(scope="module")
def maker(tiny_table: Path, images: Path) -> Maker:
    predictor, rng = Predictor(LatencyTable.read(tiny_table)), np.random.default_rng(0)
    bounds = [predictor.bound(SearchSpace().sample(rng)) for _ in range(50)]
    return Maker(tiny_table, images, float(np.median(bounds)))


@pytest.fixture(scope="module")
def whole(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A run that nobody disturbs, and the seconds that each of its commands takes."""
    folder = tmp_path_factory.mktemp("whole")
    seconds = []
    for arguments in maker.commands(folder / "run"):
        began = time.monotonic()
        forked.finish(forked.start(arguments, folder / "errors"), folder / "errors")
        seconds.append(time.monotonic() - began)
    return folder / "run", seconds


@pytest.mark.parametrize("seed", range(amount(1, 7)))
def test_killed_at_random_moments_of_every_command_a_run_ends_with_the_same_files(
    maker: Maker, whole: tuple[Path, list[float]], tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    broken, errors = tmp_path / "run", tmp_path / "errors"
    killed = 0
    for arguments, seconds in zip(maker.commands(broken), whole[1], strict=True):
        for _ in range(KILLS):
            process = forked.start(arguments, errors)
            time.sleep(float(rng.uniform(0, seconds)))
            process.kill()
            process.join()
            killed += process.exitcode != 0
        forked.finish(forked.start(arguments, errors), errors)
    assert killed >= KILLS
    assert content(broken) == content(whole[0])
    assert any(name.startswith("models/") for name in content(broken))
    assert facts(broken) == facts(whole[0])
    assert steps(broken) == steps(whole[0])
    assert page(broken) == page(whole[0])
    assert not list(broken.rglob(".*.*"))
