"""The judge of shared weights: what it compares, and that a seed goes on after its last epoch."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from long_runs import amount
from scripts import script

from cars_hw.errors import InputError
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.training.linear_probe import left_out_scores
from cars_hw.training.shared_weights import SuperNetWeights

IMAGES = (100, 40, 40)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = script("benchmarks/judge", monkeypatch)
    monkeypatch.setattr(found, "SCORED", 8)
    return found


@pytest.fixture
def truth(judge: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A table of three networks of one size and three over sizes; their trainings are given, not run."""
    table, making = script_of(judge, "truth_table"), script_of(judge, "truth")
    monkeypatch.setattr(table, "CHANNELS", (4, 8))
    monkeypatch.setattr(table, "CELLS", (3, 4))
    task = making.Task.load("fashion-mini", 8, IMAGES, "cpu")
    rows = table.rows(6, (4, 3), seed=3)
    settings = making.Settings("fashion-mini", 8, list(IMAGES), 1, 32, 0.05)
    made = making.Making(tmp_path / "truth.json", rows, task, settings)
    made.keep(
        [
            table.Curve(row.name, seed, [2.0], [dict.fromkeys(table.FIGURES, value) | {"epoch": 1}])
            for seed, values in ((0, (1, 2, 3, 4, 5, 6)), (1, (1, 2, 3, 4, 6, 5)))
            for row, value in zip(rows, values, strict=True)
        ]
    )
    return tmp_path / "truth.json"


def script_of(judge: ModuleType, name: str) -> ModuleType:
    """Return the module ``name`` that ``judge`` has imported."""
    import sys

    assert judge.Task.__module__ == "truth"
    return sys.modules[name]


def run(
    judge: ModuleType, monkeypatch: pytest.MonkeyPatch, truth: Path, out: Path, *more: str
) -> dict[str, object]:
    arguments = (
        "--truth",
        str(truth),
        "--data",
        "fashion-mini",
        "--out",
        str(out),
        "--batch",
        "32",
        "--seeds",
        "2",
    )
    monkeypatch.setattr("sys.argv", ["judge.py", *arguments, "--epochs", "4", *more])
    judge.judge(judge.arguments())
    content: dict[str, object] = judge.FORMAT.read(out)
    return content


def test_settings_are_those_of_a_search(judge: ModuleType) -> None:
    changed = {"share": "nodes", "average": 0.5, "precision": "bf16"}
    settings = judge.Settings("truth", False, 8, 64, 2, 0.1, 0.01, **changed)
    training = settings.shared_training(16, 1)
    assert {name: getattr(training, name) for name in changed} == changed
    assert (training.architectures, settings.trained_epochs) == (2, 4)


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_a_seed_that_was_interrupted_goes_on_after_its_last_epoch(
    judge: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    truth: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    way = ("--share", "kernels", "--average", "0.5", "--fair")
    whole = run(judge, monkeypatch, truth, tmp_path / "whole.json", *way)
    train, epochs = judge.SuperNetWeights.train, []

    def interrupted(self: object, *arguments: object) -> object:
        if len(epochs) == 5:
            raise KeyboardInterrupt
        epochs.append(arguments)
        return train(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(judge.SuperNetWeights, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(judge, monkeypatch, truth, tmp_path / "parts.json", *way)
    parts = run(judge, monkeypatch, truth, tmp_path / "parts.json", *way)
    for content in (whole, parts):
        for seed in content["found"]:
            seed.pop("seconds")
    assert parts["found"] == whole["found"]
    assert parts["comparison"] == whole["comparison"]
    assert sorted(path.name for path in tmp_path.glob("parts*")) == ["parts.json"]
    losses = [seed["training_loss"] for seed in whole["found"]]
    assert losses[0] != losses[1]
    for change in (("--rate", "0.1"), ("--share", "nodes"), ("--average", "0")):
        with pytest.raises(InputError, match="other settings"):
            run(judge, monkeypatch, truth, tmp_path / "whole.json", *way, *change)
    # The average and the present weights are evaluated, and differ.
    for seed in whole["found"]:
        for one in seed["evaluations"]:
            assert one["loss"].keys() == one["present"]["loss"].keys()
            assert one["loss"] != one["present"]["loss"]
    judge.report(whole)
    printed = capsys.readouterr().out
    for line in (
        "naswot, untrained",
        "mean of 2 seeds, by a linear probe",
        "linear probe, untrained",
        "left out, by shared loss, by size",
        "left out, by a linear probe, by size",
        "all 2 together, by mean probe",
    ):
        assert line in printed


@pytest.mark.parametrize(
    ("architectures", "sampling", "epochs"), [(1, "drawn", 12), (4, "drawn", 3), (2, "sandwich", 3)]
)
def test_ways_to_train_have_equal_passes(judge: ModuleType, architectures: int, sampling: str, epochs: int) -> None:
    settings = judge.Settings("truth", True, 12, 64, architectures, 0.01, 0.001, size_sampling=sampling)
    assert settings.trained_epochs == epochs


def test_orders_are_compared_with_those_of_the_trained_networks(judge: ModuleType, truth: Path) -> None:
    table = judge.Table.read(truth)
    names = [row.name for row in table.rows][3:]
    # The means of both trainings are 4, 5.5 and 5.5, of loss and accuracy alike.
    shared = {"epoch": 1, "loss": dict(zip(names, (3, 2, 1), strict=True))}
    shared["accuracy"] = dict(zip(names, (3, 2, 1), strict=True))
    found = judge.compared(table, [{"seed": 0, "evaluations": [shared]}], {})["wiring"]
    assert (found["networks"], found["trained_twice"]) == (3, 3)
    assert found["ceiling"]["loss"]["tau"] == pytest.approx(1 / 3, abs=1e-4)
    (seed,) = found["seeds"]
    (one,) = seed["evaluations"]
    tied = pytest.approx(2 / np.sqrt(6), abs=1e-4)
    # Low losses are good ones, and so the order by shared loss is that of low trained losses, reversed.
    assert -one["by_loss"]["loss"]["tau"] == tied
    assert one["by_loss"]["accuracy"]["tau"] == tied
    # Two SuperNets together order by the mean of their losses.
    other = {**shared, "loss": dict(zip(names, (0, 1, 4), strict=True))}
    both = [{"seed": seed, "evaluations": [each]} for seed, each in enumerate((shared, other))]
    together = judge.compared(table, both, {})["wiring"]["together"]["accuracy"]
    assert together["tau"] == judge.agreement([-1.5, -1.5, -2.5], [4, 5.5, 5.5]).tau
    assert "together_by_probe" not in found
    # By probes, the mean is of accuracies: 4, 4 and 2. The calibration takes their errors.
    probes = [
        {**shared, "probe": dict(zip(names, values, strict=True))} for values in ((0.8, 0.2, 0.3), (0, 0.6, 0.1))
    ]
    both = [{"seed": seed, "evaluations": [each]} for seed, each in enumerate(probes)]
    untrained = {"linear probe": dict(zip(names, (0.5, 0.1, 0.9), strict=True))}
    probed = judge.compared(table, both, untrained)["wiring"]
    assert probed["together_by_probe"]["accuracy"]["tau"] == judge.agreement([4, 4, 2], [4, 5.5, 5.5]).tau
    adds = [table.costs[name]["multiply_adds"] for name in names]
    expected = judge.left_out([0.2, 0.8, 0.7], adds, [4, 5.5, 5.5])
    (evaluation,) = probed["seeds"][0]["evaluations"]
    assert evaluation["calibrated_probe"]["left_out"]["tau"] == expected.tau
    expected = judge.left_out([0.5, 0.9, 0.1], adds, [4, 5.5, 5.5])
    assert probed["calibrated_untrained"]["left_out"]["tau"] == expected.tau
    assert -one["by_accuracy"]["accuracy"]["tau"] == tied
    assert one["by_accuracy"]["loss"]["tau"] == tied
    costs = [table.costs[name]["parameters"] for name in names]
    assert found["parameters"]["accuracy"]["tau"] == judge.agreement(costs, [4, 5.5, 5.5]).tau


def test_shared_losses_and_accuracies_are_those_of_the_supernet(judge: ModuleType, truth: Path) -> None:
    table = judge.Table.read(truth)
    held_out = judge.Task.load("fashion-mini", 8, IMAGES, "cpu").parts["held_out"]
    rows = table.rows[3:]
    specs = [row.spec((8, 8), 1, 10) for row in rows]
    torch.manual_seed(0)
    supernet = SuperNet(specs[0])
    architectures = {row.name: Architecture(row.genotype, spec) for row, spec in zip(rows, specs, strict=True)}
    found = judge.evaluate(supernet, architectures, held_out)
    ((images, labels),) = held_out
    for row in rows:
        logits = supernet(images, row.genotype).detach()
        assert found["accuracy"][row.name] == int((logits.argmax(1) == labels).sum()) / 40
        assert found["loss"][row.name] == pytest.approx(float(F.cross_entropy(logits, labels)), abs=2e-5)
        features = supernet.features(supernet.common(images), row.genotype).detach()
        answers = left_out_scores(features, labels, 10).argmax(1)
        assert found["probe"][row.name] == int((answers == labels).sum()) / 40
    untrained = judge.untrained_probes(architectures, held_out, 10)
    assert untrained.keys() == architectures.keys()
    assert 0.1 < min(untrained.values()) <= max(untrained.values()) < 0.7


def test_other_images_are_refused(
    judge: ModuleType, monkeypatch: pytest.MonkeyPatch, truth: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(judge.Task, "images", [1, 2, 3])
    with pytest.raises(InputError, match="has not the images"):
        run(judge, monkeypatch, truth, tmp_path / "out.json")


def test_over_sizes_networks_of_all_sizes_judge(
    judge: ModuleType, monkeypatch: pytest.MonkeyPatch, truth: Path, tmp_path: Path
) -> None:
    drawn: list[Architecture] = []
    draw = judge.draw

    def watched(*arguments: object) -> list[Architecture]:
        drawn.extend(draw(*arguments))
        return drawn[-1:]

    monkeypatch.setattr(judge, "draw", watched)
    weights = judge.SuperNetWeights
    made: list[SuperNetWeights] = []
    monkeypatch.setattr(judge, "SuperNetWeights", lambda *a, **more: made.append(weights(*a, **more)) or made[-1])
    content = run(judge, monkeypatch, truth, tmp_path / "out.json", "--over-sizes", "--epochs", "3", "--seeds", "1")
    sizes = {(one.network.channels, one.network.layers) for one in drawn}
    assert len(sizes) > 3
    assert {4, 6, 8} >= {channels for channels, _ in sizes}
    assert {3, 4} == {layers for _, layers in sizes}
    numbers = {half: one["networks"] for half, one in content["comparison"].items()}
    assert numbers == {"all": 6, "size": 3, "wiring": 3}
    (seed,) = content["found"]
    assert len(set(seed["evaluations"][-1]["loss"].values())) == 6
    assert made[0].over_sizes
    assert (made[0].supernet.spec.channels, made[0].supernet.spec.layers) == (8, 4)


def test_draws_of_the_judge_widen_epoch_by_epoch(
    judge: ModuleType, monkeypatch: pytest.MonkeyPatch, truth: Path, tmp_path: Path
) -> None:
    drawn: list[list[Architecture]] = []
    draw = judge.draw
    monkeypatch.setattr(judge, "draw", lambda *arguments: drawn.append(draw(*arguments)) or drawn[-1])
    evaluated: list[int] = []
    monkeypatch.setattr(judge, "evaluate", lambda *_: evaluated.append(len(drawn)) or {"loss": {}})
    monkeypatch.setattr(judge, "keep", lambda *_: None)
    monkeypatch.setattr(judge.Trial, "scores", lambda _: {"synflow": {}})
    way = ["--epochs", "2", "--seeds", "1", "--batch", "50", "--over-sizes", "--widen", "both", "--fair"]
    way += ["--evaluations", "1"]
    arguments = ["--truth", str(truth), "--data", "fashion-mini", "--out", str(tmp_path / "out.json"), *way]
    monkeypatch.setattr("sys.argv", ["judge.py", *arguments])
    judge.judge(judge.arguments())
    assert evaluated == [4]
    # Two epochs of two steps: the first has one operation at the largest size.
    for step, whole in zip(drawn, (False, False, True, True), strict=True):
        ((genotype, network),) = step
        operations = {edge.operation for node in (*genotype.normal, *genotype.reduce) for edge in node}
        assert (operations == {"sep_conv_5x5"}) == (not whole)
        assert whole or (network.channels, network.layers) == (8, 4)


@pytest.mark.parametrize("widening", ["sizes", "both"])
def test_the_judge_widens_by_size_only_over_sizes(
    judge: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], widening: str
) -> None:
    monkeypatch.setattr("sys.argv", ["judge.py", "--truth", "t.json", "--out", "o.json", "--widen", widening])
    with pytest.raises(SystemExit):
        judge.arguments()
    assert f"--widen {widening} is for sizes; give --over-sizes" in capsys.readouterr().err


def test_a_judge_that_evaluates_nothing_is_refused_before_it_trains(
    judge: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["judge.py", "--truth", "t.json", "--out", "o.json", "--evaluations", "0"])
    with pytest.raises(SystemExit):
        judge.arguments()
    assert "give 1 or more" in capsys.readouterr().err


def test_a_file_without_scores_of_untrained_networks_gets_them(
    judge: ModuleType, monkeypatch: pytest.MonkeyPatch, truth: Path, tmp_path: Path
) -> None:
    table = judge.Table.read(truth)
    names = [row.name for row in table.rows][3:]
    shared = {figure: dict(zip(names, (3, 2, 1), strict=True)) for figure in ("loss", "accuracy")}
    found = [{"seed": seed, "evaluations": [shared | {"epoch": 1}]} for seed in (0, 1)]
    settings = judge.Settings(truth.stem, False, 4, 32, 1, 0.0125, 0.001)
    judge.keep(tmp_path / "out.json", table, {"settings": vars(settings), "found": found, "machine": {}})
    monkeypatch.setattr(judge.Trial, "scores", lambda _: {"synflow": dict(zip(names, (1, 2, 3), strict=True))})
    content = run(judge, monkeypatch, truth, tmp_path / "out.json")
    assert content["found"] == found
    assert content["scores"]["synflow"] == {names[0]: 1, names[1]: 2, names[2]: 3}
    assert judge.FORMAT.read(tmp_path / "out.json")["comparison"]["wiring"]["scores"].keys() == {"synflow"}


def test_a_later_table_is_compared_without_training(judge: ModuleType, truth: Path, tmp_path: Path) -> None:
    table = judge.Table.read(truth)
    names = [row.name for row in table.rows][3:]
    shared = {figure: dict(zip(names, (3, 2, 1), strict=True)) for figure in ("loss", "accuracy")}
    content = {"settings": {}, "found": [{"seed": 0, "evaluations": [shared | {"epoch": 1}]}]}
    taus = []
    for seeds in ((0, 1), (0,)):
        table.curves = {key: curve for key, curve in table.curves.items() if key[1] in seeds}
        judge.keep(tmp_path / "out.json", table, content)
        found = judge.FORMAT.read(tmp_path / "out.json")["comparison"]["wiring"]
        taus.append(found["seeds"][0]["evaluations"][0]["by_loss"]["loss"]["tau"])
        assert found["networks"] == 3
    # The first training alone has no ties.
    assert taus == [pytest.approx(-2 / np.sqrt(6), abs=1e-4), -1]
