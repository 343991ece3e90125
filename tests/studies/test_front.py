"""A run's networks beside published ones: who is dominated by whom, how all are trained, and where they run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from evaluations import evaluation
from frozen_data import freeze
from published_schemas import require_files
from torch import nn

from cars_hw.cli.main import main
from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.training import Recipe
from cars_hw.data import load_data
from cars_hw.devices import FakeDevice
from cars_hw.devices.host import ort_runtime
from cars_hw.errors import InputError, RunError
from cars_hw.nn.network import Network
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.records import RunAbout
from cars_hw.pipeline.run_data import load_for_training
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.progress import Log, Progress, silent
from cars_hw.report.experiments import front_page
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import resolve_genotype
from cars_hw.studies import published_front as front
from cars_hw.studies import reference_training
from cars_hw.studies.front_membership import Contestant, FrontComparison, ranked, rows_of
from cars_hw.studies.published_front import compare_front
from cars_hw.studies.reference_training import (
    REFERENCE,
    ReferenceRecord,
    References,
    TrainedReference,
    train_references,
    waiting_references,
)
from cars_hw.studies.references import make, write_onnx
from cars_hw.studies.settings import FrontSettings
from cars_hw.training.standalone import NetworkTraining, train_network
from cars_hw.training.weights import save_weights

TINY = NetworkSpec(4, 3, (8, 8), 1, classes=3)
RECIPE = Recipe(epochs=2, batch_size=32, learning_rate=0.02, crop_padding=0, precision="float32")
ONCE = MeasurePlan(sessions=1)


@pytest.fixture
def run(images: Path, tmp_path: Path) -> RunFolder:
    """A run with one trained network, whose weights are fresh."""
    preset = replace(PRESETS["quick"], recipe=RECIPE)
    plan = SearchPlan(DataSource(str(images)), TINY, preset, costs=("parameters",))
    made = RunFolder.create(tmp_path / "run", configuration(plan), RunAbout("", {}, 1))
    frozen = freeze(made, plan.data)
    genotype = resolve_genotype("CARS_B")
    made.weights_path("net-01").parent.mkdir()
    digest = save_weights(Network(TINY, genotype).state_dict(), made.weights_path("net-01"))
    made.write_trained(
        TrainedNetwork(
            "net-01",
            genotype,
            TINY,
            evaluation((10, 10, 10), (10, 9, 8)),
            0.1,
            RECIPE,
            0,
            2,
            None,
            frozen.source.source,
            True,
            frozen.class_names,
            digest,
            frozen.digest,
            frozen.test_digest,
        )
    )
    return made


def contestant(name: str, accuracy: float, ms: float) -> Contestant:
    return Contestant(name, "run", accuracy, ms, 0.01, 1000, "2 epochs from scratch")


def test_a_network_is_dominated_by_who_is_as_good_and_better_in_one() -> None:
    everybody = [
        contestant("slow", 0.9, 3.0),
        contestant("fast", 0.7, 1.0),
        contestant("poor", 0.6, 2.0),
        contestant("late", 0.9, 4.0),
        contestant("worst", 0.5, 5.0),
        contestant("twin", 0.7, 1.0),
    ]
    found = {one.name: one for one in ranked(everybody)}
    assert list(found) == ["fast", "twin", "poor", "slow", "late", "worst"]
    assert {name: one.dominated_by for name, one in found.items() if one.dominated_by} == {
        "poor": ("fast", "twin"),
        "late": ("slow",),
        "worst": ("slow", "late", "fast", "twin", "poor"),
    }
    assert found["slow"].standing == "on the front"
    assert found["late"].standing == "dominated by slow"
    assert found["worst"].standing == "dominated by slow and 4 more"


def test_what_was_trained_otherwise_and_what_was_left_out_is_said() -> None:
    alike = [contestant("one", 0.9, 3.0), contestant("two", 0.7, 1.0)]
    assert FrontComparison("ort", {}, ranked(alike)).remarks == [
        "On the front over accuracy and latency on ort: two, one; 2 of the run's 2 networks are on it."
    ]
    counted = FrontComparison("ort", {}, ranked(alike), test_images=10)
    assert counted.remarks[1] == (
        "The accuracies are on 10 test images. The front does not consider their confidence intervals."
    )
    columns, rows = rows_of(counted)
    # The interval of Wilson for 9 of 10.
    assert (columns[2], rows[1][2]) == ("accuracy (test, 95% interval)", "90.0% (59.6 to 98.2)")
    other = replace(alike[0], training="9 epochs from shared weights", origin="zoo")
    told = FrontComparison("litert", {}, ranked([other, alike[1]]), ("ResNet-18",)).remarks
    assert told[0].endswith("1 of the run's 1 networks are on it.")
    assert "trained in different ways" in told[1]
    busy = FrontComparison(
        "ort", {}, ranked([replace(alike[0], spread=0.051), replace(alike[1], spread=0.05)])
    ).remarks
    assert busy[1:] == ["one (by 5%): sessions differ; more sessions give better figures."]
    assert "ResNet-18. torchvision's networks are only measured from ONNX files: on ort, not on litert." in told[2]


def scales(network: nn.Module) -> int:
    return sum(part.num_features for part in network.modules() if isinstance(part, nn.BatchNorm2d))


def test_references_are_trained_measured_and_kept(
    run: RunFolder, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, names = DataSource(str(images)), ("CARS_A", "shufflenet_v2_x0_5")
    found = compare_front(
        run, FakeDevice(), FrontSettings("fake", data, references=names, measurement=ONCE, jobs=1)
    )
    by_name = {one.name: one for one in found.contestants}
    assert {name: one.origin for name, one in by_name.items()} == {
        "net-01": "run",
        "CARS_A": "zoo",
        "shufflenet_v2_x0_5": "torchvision",
    }
    assert by_name["net-01"].accuracy == 0.9
    assert by_name["net-01"].training == "2 epochs from shared weights"
    assert by_name["CARS_A"].training == "2 epochs from scratch"
    # The zoo's genotype is the run's network with other cells, torchvision's its own with 3 rows of classes.
    # Each normalised channel has a scale, which the exported file has not.
    cars = Network(TINY, resolve_genotype("CARS_A"))
    assert by_name["CARS_A"].parameters == sum(value.numel() for value in cars.parameters()) - scales(cars)
    # ShuffleNetV2 x0.5 has 1,366,792 parameters; of 24 filters two channels of 3x3 go, and 997 rows of 1024 and 1.
    shuffle = make("shufflenet_v2_x0_5")
    trained = 1_366_792 - 24 * 2 * 9 - 997 * 1025
    assert by_name["shufflenet_v2_x0_5"].parameters == trained - scales(shuffle)
    assert require_files(run.path / "comparison") >= {"comparison", "reference"}
    content = json.loads((run.path / "comparison" / "front.json").read_text())
    assert [one["name"] for one in content["networks"]] == [one.name for one in found.contestants]
    assert [one["on_front"] for one in content["networks"]] == [not one.dominated_by for one in found.contestants]
    assert content["remarks"] == found.remarks
    page = front_page(found, "a run")
    for part in page.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>")
    for name in by_name:
        assert name.removeprefix("net-") in page
    # The run itself is as it was.
    assert [one.name for one in run.trained()] == ["net-01"]

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(reference_training, "_train", fail)
    monkeypatch.setattr("cars_hw.pipeline.network_training.train_network", fail)
    again = compare_front(
        run, FakeDevice(), FrontSettings("fake", data, references=names, measurement=ONCE, jobs=1)
    )
    assert again.contestants == found.contestants
    with pytest.raises(AssertionError, match="trained again"):
        other = replace(RECIPE, epochs=1)
        compare_front(
            run, FakeDevice(), FrontSettings("fake", data, references=names[1:], recipe=other, measurement=ONCE)
        )


def test_references_trained_side_by_side_are_those_trained_one_by_one(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MNASNet reads the version of its own weights, and raises where they have none.
    models = {"one": "mnasnet0_5", "two": "shufflenet_v2_x0_5"}
    settings = References(
        run,
        load_for_training(run, None),
        replace(RECIPE, epochs=1, hold_out=0.2),
        seed=0,
        device="cpu",
        jobs=1,
        progress=lambda *step: progress.append(step),
        log=lambda _line: None,
    )
    progress: list[tuple[str, int, int]] = []

    def in_turn(
        work: Callable[..., None],
        tasks: Sequence[Any],
        jobs: int,
        *told: Progress | Log,
        one_card: bool,
        retries: int,
    ) -> None:
        """Do what workers do, with what reaches them, in this process."""
        assert (len(tasks), jobs, one_card, retries) == (2, 2, False, 2)
        for task in pickle.loads(pickle.dumps(tasks)):  # noqa: S301 -- its own
            work(task, *told)

    monkeypatch.setattr("cars_hw.executors.spread.side_by_side", in_turn)
    standalone, together = (
        train_references(models, TINY, tmp_path / str(jobs), replace(settings, jobs=jobs)) for jobs in (1, 2)
    )
    assert [one.name for one in standalone] == list(models)
    for one, other in zip(standalone, together, strict=True):
        assert (one.accuracy, one.held_out) == (other.accuracy, other.held_out)
        assert one.held_out is not None
        for name, value in one.network.state_dict().items():
            assert torch.equal(value, other.network.state_dict()[name]), name
    # 96 training images of 120, a fifth of them held out: three steps.
    assert [step for step in progress if step[1] == step[2]] == [(name, 3, 3) for name in models] * 2
    record = REFERENCE.read_record(tmp_path / "1" / "one.json", ReferenceRecord)
    assert record.threads == torch.get_num_threads()
    # One of an earlier version does not tell its threads, and is not trained again.
    content = REFERENCE.read(tmp_path / "1" / "one.json")
    del content["threads"]
    REFERENCE.write(tmp_path / "1" / "one.json", content)
    assert not waiting_references(models, TINY, tmp_path / "1", settings)
    assert sorted(path.name for path in (tmp_path / "2").glob("*.*")) == [
        "one.json",
        "one.safetensors",
        "two.json",
        "two.safetensors",
    ]


@pytest.mark.parametrize(("given", "jobs"), [(2, 2), (8, 3), (None, 3)])
def test_the_last_networks_have_the_threads_of_the_first(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int | None, jobs: int
) -> None:
    done: set[str] = set()
    seen: list[tuple[list[str], int]] = []

    def side_by_side(
        _work: object, tasks: Sequence[Any], jobs: int, *_told: object, one_card: bool, retries: int
    ) -> None:
        del one_card, retries
        names = [task.name for task in tasks]
        seen.append((names, jobs))
        done.update(names)

    def kept(task: Any) -> TrainedReference | None:  # noqa: ANN401 -- a private class
        return TrainedReference(task.name, nn.Identity(), 0.5, None) if task.name in done else None

    monkeypatch.setattr("cars_hw.executors.spread.side_by_side", side_by_side)
    monkeypatch.setattr("cars_hw.executors.spread.default_jobs", lambda _device, tasks: min(4, tasks))
    monkeypatch.setattr(reference_training, "_kept", kept)
    monkeypatch.setattr(reference_training, "_train", lambda *_: pytest.fail("trained in this process"))
    data = load_for_training(run, None)
    settings = References(run, data, RECIPE, 0, "cpu", given, silent, lambda _line: None)
    models = dict.fromkeys(("one", "two", "three"), "mnasnet0_5")
    train_references(models, TINY, tmp_path, settings)
    done.remove("three")
    train_references(models, TINY, tmp_path, settings)
    # The threads of torch are divided by the number of processes.
    assert seen == [(["one", "two", "three"], jobs), (["three"], jobs)]


def test_from_scratch_trains_the_runs_networks_too(run: RunFolder, images: Path) -> None:
    found = compare_front(
        run,
        FakeDevice(),
        FrontSettings("fake", DataSource(str(images)), references=(), from_scratch=True, measurement=ONCE, jobs=1),
    )
    (only,) = found.contestants
    assert (only.name, only.origin, only.training) == ("net-01", "run", "2 epochs from scratch")


def test_where_no_onnx_runs_torchvision_is_left_out(run: RunFolder, images: Path) -> None:
    class Played(FakeDevice):
        model_format = "tflite"  # type: ignore[misc,assignment]

        def run(self, models, plan, seed, on_session=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            assert all(model.suffix == ".tflite" for model in models)
            from cars_hw.devices import Sample

            return [Sample(1.0) for _ in models]

    found = compare_front(
        run, Played(), FrontSettings("fake", DataSource(str(images)), references=("ResNet-18",), measurement=ONCE)
    )
    assert found.left_out == ("ResNet-18",)
    assert [one.name for one in found.contestants] == ["net-01"]


def test_what_cannot_be_compared_is_said(run: RunFolder, images: Path, tmp_path: Path) -> None:
    data = DataSource(str(images))
    with pytest.raises(InputError, match=r"unknown reference 'CARS_Z'; use a published genotype, MobileNetV2"):
        compare_front(run, FakeDevice(), FrontSettings("fake", data, references=("CARS_Z",)))
    with pytest.raises(InputError, match=r"^NASNet_A has nasnet cells and the run darts cells$"):
        compare_front(run, FakeDevice(), FrontSettings("fake", data, references=("CARS_A", "NASNet_A")))
    run.forget_trained("net-01")
    with pytest.raises(RunError, match=r"has no trained networks$"):
        compare_front(run, FakeDevice(), FrontSettings("fake", data))
    missing = CliRunner().invoke(main, ["experiment", "front", str(tmp_path / "none"), "--device", "fake"])
    assert missing.exit_code == 1
    assert "is not a run folder" in missing.output


def test_any_module_is_trained_as_a_network_is(images: Path) -> None:
    data = load_data(str(images), resolution=(8, 8))

    class Plain(nn.Module):
        """The same network, unknown to the training."""

        def __init__(self, inner: Network) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    results = []
    for wrap in (lambda network: network, Plain):
        torch.manual_seed(0)
        results.append(train_network(wrap(Network(TINY, resolve_genotype("CARS_A"))), data, RECIPE, seed=1))
    assert results[0].accuracy == results[1].accuracy
    assert results[0].loss == results[1].loss
    averaged = NetworkTraining(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), data, replace(RECIPE, ema=0.5), seed=0
    )
    averaged.run_epoch()
    assert averaged.evaluated is not averaged.network


def test_an_exported_network_computes_what_torch_does(tmp_path: Path) -> None:
    onnxruntime = ort_runtime.load()
    shape = Shape(1, 8, 8)
    torch.manual_seed(0)
    network = make("shufflenet_v2_x0_5", shape, 3).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    write_onnx(network, shape, tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    image = torch.randn(1, *shape)
    (found,) = session.run(None, {"input": image.numpy()})
    with torch.no_grad():
        expected = network(image).numpy()
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_command_prints_the_front(run: RunFolder, images: Path) -> None:
    arguments = ["experiment", "front", str(run.path), "--device", "fake", "--sessions", "1", "--on", "cpu"]
    arguments += ["--reference", "CARS_A", "--epochs", "1", "--jobs", "1"]
    planned = CliRunner().invoke(main, [*arguments, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert "published genotypes, 1 training" in planned.output
    assert "of training; the evaluations and the measuring come on top." in planned.output
    assert not (run.path / "comparison").exists()
    refused = CliRunner().invoke(main, [*arguments, "--random"])
    assert refused.exit_code == 1
    assert "no images are held out of the training" in refused.output
    assert "--hold-out 0.1" in refused.output
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    for words in ("net-01", "CARS_A", "1 epoch from scratch", "latency on fake", "on the front", "front.html"):
        assert words in result.output
    assert front.DEFAULT[:3] == ("CARS_A", "CARS_I", "DARTS_V2")
