"""Trained fronts of several ways: the arithmetic of the summary, equal costs, and that a comparison resumes."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from long_runs import amount
from PIL import Image
from scripts import script

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.errors import InputError
from cars_hw.latency import profile_device
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.zoo import resolve_genotype

NETWORK = NetworkSpec(4, 3, (8, 8), 3, classes=3)
IMAGES = {"train": 16, "val": 8, "test": 10}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("benchmarks/front_figures", monkeypatch)


@pytest.fixture
def fronts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("benchmarks/fronts", monkeypatch)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("benchmarks/front_ways", monkeypatch)


def test_the_hypervolume_is_over_log_latency_and_of_what_held_out_images_choose(figures: ModuleType) -> None:
    box = figures.Box(1.0, 100.0, classes=10)
    # The reference point is 100 ms and an error of 0.9. From 1 to 10 ms the error is 0.5, from 10 to 100 ms 0.3.
    known = [figures.Trained(10.0, held_out=0.71, test=0.7), figures.Trained(1.0, held_out=0.52, test=0.5)]
    by_hand = (0.4 + 0.6) / (2 * 0.9)
    assert figures.volume(known, box) == pytest.approx(by_hand)
    # Slower and worse on held-out images: the test images must not choose it.
    assert figures.volume([*known, figures.Trained(20.0, held_out=0.7, test=0.9)], box) == pytest.approx(by_hand)
    assert figures.volume([*known, figures.Trained(20.0, held_out=0.72, test=0.8)], box) == pytest.approx(
        by_hand + 0.1 * math.log(5) / (0.9 * math.log(100))
    )
    # Beyond the reference point, and worse than guessing.
    assert figures.volume([figures.Trained(200.0, 0.9, 0.9), figures.Trained(2.0, 0.1, 0.05)], box) == 0


def test_the_budgets_are_spread_over_log_latency(figures: ModuleType) -> None:
    box = figures.Box(1.0, 32.0, classes=10)
    assert box.budgets == pytest.approx([2, 4, 8, 16, 32])
    known = [figures.Trained(3.0, 0.5, 0.4), figures.Trained(7.0, 0.4, 0.6), figures.Trained(7.9, 0.6, 0.55)]
    found = [figures.at_budget(known, budget) for budget in box.budgets]
    assert [one and one.test for one in found] == [None, 0.4, 0.55, 0.55, 0.55]


def entry(way: str, seed: int, networks: list[tuple[float, float]], passes: float = 100.0) -> dict[str, Any]:
    """Return an entry of the file; the accuracies on the held-out images are those on the test images."""
    # A budget that is rounded down has the network, too.
    rows = [{"ms": ms * (1 - 1e-9), "held_out": accuracy, "test": accuracy} for ms, accuracy in networks]
    costs = {"passes": passes, "multiply_adds": 1e12, "seconds": {"search": 1.0, "front": 2.0}}
    return {"way": way, "seed": seed, "networks": rows, "front": rows, **costs}


def test_differences_are_paired_by_seed(figures: ModuleType) -> None:
    assert figures.paired([0.1, 0.2, 0.6]) == {
        "mean": pytest.approx(0.3),
        # The deviations are -0.2, -0.1 and 0.3, so that the variance is 0.14 / 2.
        "error": pytest.approx(math.sqrt(0.07 / 3)),
        "higher": 3,
        "seeds": 3,
    }
    assert figures.paired([-0.1])["error"] is None
    box = figures.Box(1.0, 32.0, classes=2)
    found = figures.summary(
        [
            entry("both", 0, [(1.0, 0.6), (8.0, 0.8)]),
            entry("cells", 1, [(4.0, 0.7)], passes=90.0),
            entry("both", 1, [(1.0, 0.7), (16.0, 0.9)]),
            entry("cells", 0, [(4.0, 0.6)]),
            entry("cells", 2, [(4.0, 0.9)]),
        ],
        box,
    )
    assert [one["volume"] for one in found["ways"]["both"]["seeds"]] == pytest.approx(
        # Fifths of the range of latencies times what an accuracy is above 0.5, of 0.5.
        [(3 * 0.2 + 2 * 0.6) / 5, (4 * 0.4 + 1 * 0.8) / 5]
    )
    cells = found["ways"]["cells"]
    assert [one["volume"] for one in cells["seeds"]] == pytest.approx([0.12, 0.24, 0.48])
    differences = [0.36 - 0.12, 0.48 - 0.24]
    assert cells["volume"] == {
        "mean": pytest.approx(0.24),
        "error": pytest.approx(abs(differences[0] - differences[1]) / 2, abs=1e-9),
        "higher": 2,
        "seeds": 2,
    }
    # Of cells, no network is within the first budget, 2 ms.
    assert [one["seeds"] for one in cells["best"]] == [0, 2, 2, 2, 2]
    assert [one["mean"] for one in cells["best"][1:]] == pytest.approx([0.0, 0.1, 0.2, 0.2])
    assert [one["error"] for one in cells["best"][1:]] == pytest.approx([0.0, 0.1, 0.0, 0.0], abs=1e-9)
    assert cells["cost"] == pytest.approx([0.0, -0.1])
    text = figures.report({"summary": found})
    assert "| `cells` | 0.1200, 0.2400, 0.4800 | 0.2800 | +0.2400 ± 0.0000 | 2 of 2 | 1.0, 1.0, 1.0 |" in text
    assert "| `cells` | none | 73.3 (+0.0 ± 0.0) | 73.3 (+10.0 ± 10.0) |" in text
    assert "| +0.0%, -10.0% (!) |" in text


def test_ways_with_other_settings_stand_beside_if_they_were_scored_alike(figures: ModuleType) -> None:
    settings = dict.fromkeys(figures.SCORES, 1)
    own = [entry("both", 0, [(1.0, 0.8)])]
    other = [entry("both", 0, [(1.0, 0.6)]), entry("random", 0, [(4.0, 0.7)])]
    box = figures.Box(1.0, 32.0, classes=3)
    known = {"settings": {**settings, "epochs": 2}, "found": own, "summary": figures.summary(own, box)}
    found = figures.beside(known, {"settings": {**settings, "epochs": 9}, "found": other}, "old")
    assert list(found["summary"]["ways"]) == ["both", "both of old", "random of old"]
    # The error of guessing among three classes is 2/3.
    volumes = [found["summary"]["ways"][way]["volume"]["mean"] for way in ("both of old", "random of old")]
    assert volumes == pytest.approx([0.2 * 3 / 2, ((0.8 - 1 / 3) - (0.7 - 1 / 3) * 3 / 5) * 3 / 2])
    with pytest.raises(InputError, match=r"old was scored in another way: front_epochs"):
        figures.beside(known, {"settings": {**settings, "front_epochs": 9}, "found": other}, "old")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images of three grey levels with noise, and a table over four sizes."""
    tmp_path = tmp_path_factory.mktemp("task")
    rng = np.random.default_rng(0)
    for part, count in IMAGES.items():
        for level, name in enumerate(("black", "grey", "white")):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(40 * level, 40 * level + 120, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    table = profile_device(
        FakeDevice(), NETWORK, sizes=SizeGrid((4, 6), (3, 4)), calibration=12, plan=MeasurePlan(sessions=1)
    )
    table.write(tmp_path / "table.json")
    options = {
        "data": tmp_path / "images",
        "table": tmp_path / "table.json",
        "population": 3,
        "epochs": 2,
        "warmup-epochs": 1,
        "search-batch": 16,
        "evaluation-images": 12,
        "final": 0.6,
        "stretches": 2,
        "front": 2,
        "front-epochs": 2,
        "batch": 16,
    }
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def run(
    fronts: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, arguments: list[str], *more: str
) -> list[dict[str, Any]]:
    where = ["--out", str(out), "--work", str(out.with_suffix(""))]
    monkeypatch.setattr("sys.argv", ["fronts.py", *arguments, *where, *more])
    fronts.make(fronts.arguments())
    found: list[dict[str, Any]] = fronts.FORMAT.read(out)["found"]
    for one in found:
        one.pop("seconds")
    return found


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_ways_have_equal_costs_and_resume(
    fronts: ModuleType,
    ways: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    tmp_path: Path,
) -> None:
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    seed = ("--seeds", "3")
    (both,) = run(fronts, monkeypatch, whole, arguments, *seed, "--ways", "both")
    # Training: 48 images, 24 for evaluation. Two epochs; one generation of 6 networks on 12 images; 9 finalists.
    searched = 2 * 48 + (6 * 12 + 9 * 24) / 3
    stage = ways.RunFolder(tmp_path / "whole" / "both-3" / "run").final_stage()
    epochs = sum(stage.epochs_of(one) for one in stage.networks)
    evaluations = sum(len(one.results) for one in stage.networks)
    assert both["passes"] == pytest.approx(searched + 48 * epochs + 24 * evaluations / 3)
    shutil.copy(whole, parts)

    more = (*seed, "--ways", "size:DARTS_V2", "standalone-random")
    found = run(fronts, monkeypatch, whole, arguments, *more)
    assert [(one["way"], one["seed"]) for one in found] == [
        (way, 3) for way in ("both", "size:DARTS_V2", "standalone-random")
    ]
    _, size, random = found
    # A network costs an epoch and its evaluation. There are four sizes, fewer than the cost pays for.
    assert size["passes"] == pytest.approx(4 * (48 + 24 / 3))
    assert both["passes"] - (48 + 24 / 3) < random["passes"] <= both["passes"]
    assert len({row["genotype"] for row in size["networks"]}) == 1
    assert all(1 <= len(one["networks"]) <= 2 for one in found)
    rows = [row for one in found for row in one["networks"]]
    assert all(row["test"] * 30 == pytest.approx(round(row["test"] * 30)) for row in rows)

    done: list[object] = []
    train = ways.NetworkTraining.run_epoch

    def interrupted(self: object, *arguments: object) -> None:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(arguments)
        train(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ways.NetworkTraining, "run_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(fronts, monkeypatch, parts, arguments, *more)
    assert run(fronts, monkeypatch, parts, arguments, *more) == found
    assert not list(tmp_path.rglob("*.checkpoint"))
    with pytest.raises(InputError, match="other settings"):
        run(fronts, monkeypatch, whole, arguments, *more, "--rate", "0.1")


def test_the_size_of_a_search_of_cells_alone(
    fronts: ModuleType,
    ways: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    tmp_path: Path,
) -> None:
    where = ["--out", str(tmp_path / "out.json"), "--work", str(tmp_path), "--limit", "100"]
    monkeypatch.setattr("sys.argv", ["fronts.py", *arguments, *where])
    task = fronts.task_of(fronts.arguments())
    latencies = {(4, 3): 1.0, (4, 4): 4.0, (6, 3): 4.2, (6, 4): 16.0}
    monkeypatch.setattr(
        fronts.Task,
        "candidate",
        lambda _, one: fronts.Candidate(one, latencies[one.network.channels, one.network.layers]),
    )
    sizes = [ways.size_at(task, place) for place in (0.0, 0.5, 1.0)]
    # At 4 ms two sizes are alike, and six channels of three cells have more multiply-adds.
    assert [(one.channels, one.layers) for one in sizes] == [(4, 3), (6, 3), (6, 4)]
    limited = replace(task, settings=replace(task.settings, limit_ms=10.0))
    assert (ways.size_at(limited, 1.0).channels, ways.size_at(limited, 1.0).layers) == (6, 3)
    with pytest.raises(InputError, match="no size"):
        ways.size_at(replace(task, settings=replace(task.settings, limit_ms=0.5)), 0.5)


def test_networks_of_torchvision_have_latencies_of_the_state_of_the_table(
    fronts: ModuleType,
    figures: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    tmp_path: Path,
) -> None:
    beside = script("benchmarks/fronts_torchvision", monkeypatch)
    models = ("resnet18:0.125@small", "mobilenet_v2:0.1@small", "mnasnet:0.2@small")
    monkeypatch.setattr(beside, "MODELS", models)
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    where = ["--out", str(tmp_path / "out.json"), "--work", str(tmp_path), "--limit", "10"]
    monkeypatch.setattr("sys.argv", ["fronts.py", *arguments, *where])
    settings = asdict(fronts.task_of(fronts.arguments()).settings)
    edges = resolve_genotype("DARTS_V2").to_darts()
    networks = [{"ms": ms, "channels": 4, "depths": [1, 1, 1], "genotype": edges} for ms in (1.0, 2.0, 8.0)]
    content = {"settings": settings, "found": [{"way": "both", "seed": 3, "networks": networks}]}
    task = beside.task_of(content, options["--data"], Path(options["--table"]))

    # The three of the search are measured at 2, 4 and 4 ms: ratios of 0.5, 0.5 and 2.
    found = [SimpleNamespace(ms=ms) for ms in (4.0, 1.0, 40.0, 2.0, 4.0, 4.0)]
    monkeypatch.setattr(beside, "measure", lambda _device, paths, **_: SimpleNamespace(models=found[: len(paths)]))
    ms, factor = beside.latencies(FakeDevice(), task, beside.own_networks(task, content, 3))
    assert factor == 0.5
    with pytest.raises(InputError, match="take 2 times what the table predicts"):
        beside.require_same_state(factor)
    beside.require_same_state(0.92)
    assert ms == dict(zip(models, (2.0, 0.5, 20.0), strict=True))

    part = fronts.Part(tmp_path / "part", task, 3, lambda _: None)
    for model in models:
        part.results[model] = {"held_out": 0.5, "test": 0.4}
    entry = beside.entry(task, part, ms)
    # The third exceeds the limit. Two networks, two epochs of 48 images.
    assert [one["model"] for one in entry["networks"]] == ["mobilenet_v2:0.1@small", "resnet18:0.125@small"]
    assert entry["passes"] == 2 * 2 * 48
    assert figures.figures(entry, task.box)["best"] == [0.4 if one >= 0.5 else None for one in task.box.budgets]
    with pytest.raises(InputError, match="no search over cells and size with seed 4"):
        beside.own_networks(task, content, 4)
    with pytest.raises(InputError, match="the table of yesterday"):
        beside.task_of(
            {"settings": {**settings, "table": "yesterday"}}, options["--data"], Path(options["--table"])
        )


def test_a_network_of_torchvision_is_trained_by_the_recipe_of_the_fronts(
    fronts: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: list[str], tmp_path: Path
) -> None:
    beside = script("benchmarks/fronts_torchvision", monkeypatch)
    monkeypatch.setattr(
        "sys.argv", ["fronts.py", *arguments, "--out", str(tmp_path / "out"), "--work", str(tmp_path)]
    )
    task = fronts.task_of(fronts.arguments())
    part = fronts.Part(tmp_path / "part", task, 3, lambda _: None)
    first, again = (beside.train(part, "resnet18:0.125@small") for _ in range(2))
    assert first == again
    assert first["test"] * 30 == pytest.approx(round(first["test"] * 30))
    assert not list(tmp_path.rglob("*.checkpoint"))


def test_the_best_of_each_stretch_is_in_the_front_of_short_trainings(ways: ModuleType) -> None:
    members = [
        ways.Finalist(None, NETWORK, (ms,), accuracy, stretch=stretch)
        for ms, accuracy, stretch in ((9.0, 0.4, 2), (1.0, 0.3, 1), (2.0, 0.5, 1), (8.0, 0.45, 2), (3.0, 0.4, 1))
    ]
    assert [(one.ms, one.held_out) for one in ways.front_of(members)] == [(1.0, 0.3), (2.0, 0.5), (8.0, 0.45)]


def test_networks_are_spread_over_log_latency(fronts: ModuleType, ways: ModuleType) -> None:
    known = [fronts.Candidate(None, float(ms), 0.5) for ms in (1, 2, 3, 4, 30, 60, 90, 100)]
    assert [one.ms for one in fronts.offered(known, 3)] == [1, 4, 100]
    assert [one.ms for one in fronts.offered(known, 1)] == [100]
    assert fronts.offered(known, 9) == known
    # The best within 5 ms is that of 3 ms, and that within 100 ms is that of 60 ms. The ends fill up.
    rated = [one._replace(held_out={3: 0.6, 60: 0.7}.get(one.ms, 0.5)) for one in known]
    assert [one.ms for one in fronts.offered(rated, 3, [5, 100])] == [1, 3, 60]
    assert [one.ms for one in fronts.offered(rated, 1, [5, 100])] == [60]
    # The intervals are 1 to 10 and 10 to 100.
    drawn = {tuple(one.ms for one in ways.spread(known, 2, np.random.default_rng(seed))) for seed in range(40)}
    assert drawn == {(low, high) for low in (1, 2, 3, 4) for high in (30, 60, 90, 100)}
    assert len(ways.spread(known, 8, np.random.default_rng(0))) == 8
