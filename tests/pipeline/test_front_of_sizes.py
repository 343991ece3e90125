"""What follows a search over sizes: every network is trained, exported, measured and reported at its own size."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from frozen_data import freeze

from cars_hw.cli.main import main
from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.training import Recipe
from cars_hw.devices import FakeDevice
from cars_hw.errors import InputError, RunError
from cars_hw.evolution.checkpoint import CHECKPOINT
from cars_hw.export.card import ModelCard, card_path
from cars_hw.latency import LatencyTable, Predictor, measure_architectures, profile_device
from cars_hw.nn.cost import both_costs
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.pipeline.export import export_run
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.networks import FrontNetwork
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.records import RunAbout
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.pipeline.trained_weights import load_trained
from cars_hw.pipeline.verify import verify_run
from cars_hw.report.data import gather
from cars_hw.report.page import page, section
from cars_hw.report.sections.answer import best_model
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid

NETWORK = NetworkSpec(4, 5, (8, 8), 1, classes=3)
SIZES = SizeGrid((4, 6, 8), (5, 6, 7))
SPECS = (
    NETWORK,
    replace(NETWORK, channels=6, layers=6, depths=(1, 2, 3)),
    replace(NETWORK, channels=8, layers=7),
)
"""The sizes of the front, from the smallest to the largest."""
RECIPE = Recipe(epochs=1, batch_size=64, learning_rate=0.05)
ONCE = MeasurePlan(sessions=1)


@pytest.fixture(scope="module")
def sized() -> LatencyTable:
    return profile_device(FakeDevice(), NETWORK, sizes=SIZES, calibration=12, plan=ONCE)


def begin(path: Path, images: Path, table: LatencyTable) -> RunFolder:
    """Return a run over sizes whose search is said to have ended, with a network of each of :data:`SPECS`."""
    target = LatencyTarget(table, 1e6)
    preset = replace(PRESETS["quick"], recipe=RECIPE)
    plan = SearchPlan(DataSource(str(images)), NETWORK, preset, (target,), ("parameters",), sizes=SIZES)
    run = RunFolder.create(path, configuration(plan), RunAbout("", {}, 1))
    freeze(run, plan.data)
    table.write(run.table_path(0))
    run.write_history([])
    rng = np.random.default_rng(2)
    front = []
    for number, spec in enumerate(SPECS, start=1):
        genotype = SearchSpace(network=spec).sample(rng)
        estimate = target.estimate(Architecture(genotype, spec))
        costs = both_costs(spec, genotype)
        front.append(
            FrontNetwork(
                f"net-{number:02d}", genotype, spec, 0.5 + number / 10, latency_estimates=(estimate,), **costs
            )
        )
    run.write_front(front)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, images: Path, sized: LatencyTable) -> RunFolder:
    """Such a run with its networks trained, exported and measured."""
    run = begin(tmp_path_factory.mktemp("runs") / "run", images, sized)
    train_run(run, TrainSettings(DataSource(str(images)), jobs=1))
    export_run(run)
    verify_run(run, FakeDevice(), plan=ONCE)
    return run


@pytest.fixture
def run(tmp_path: Path, images: Path, sized: LatencyTable) -> RunFolder:
    return begin(tmp_path / "run", images, sized)


def called(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_the_run_keeps_each_network_s_size(run: RunFolder) -> None:
    assert run.network == SPECS[-1]
    front = run.front()
    assert [one.spec for one in front] == list(SPECS)
    assert front[1].architecture == Architecture(front[1].genotype, SPECS[1])
    written = json.loads((run.path / "front.json").read_text())["networks"][1]["network"]
    assert (written["channels"], written["layers"], written["depths"]) == (6, 6, [1, 2, 3])


def test_each_network_is_trained_at_its_size(finished: RunFolder) -> None:
    trained = finished.trained()
    assert [one.spec for one in trained] == list(SPECS)
    for one, of_front in zip(trained, finished.front(), strict=True):
        network = load_trained(finished, one)
        assert network.spec == one.spec
        assert sum(parameter.numel() for parameter in network.parameters()) > of_front.parameters
        assert network.classifier.in_features == 16 * one.spec.channels


def test_each_network_is_exported_and_measured_at_its_size(finished: RunFolder, sized: LatencyTable) -> None:
    rows = {row.name: row for row in finished.verified()}
    architectures = [one.architecture for one in finished.front()]
    taken = measure_architectures(FakeDevice(), architectures, ONCE).models
    for one, model in zip(finished.front(), taken, strict=True):
        known = Predictor(sized, network=one.spec).predict(one.genotype)
        for suffix in ("onnx", "tflite"):
            card = ModelCard.read(card_path(finished.model_path(one.name, suffix)))
            assert (card.genotype, card.network) == one.architecture
        card = ModelCard.read(card_path(finished.model_path(one.name, "onnx")))
        (latency,) = card.latencies
        assert (latency.predicted_ms, latency.bound_ms) == known
        row = rows[one.name]
        assert (row.predicted_ms, row.bound_ms) == known
        assert row.parameters == one.parameters
        assert row.measured_ms == latency.measured_ms == pytest.approx(model.ms, rel=1e-6)


def test_the_report_shows_each_network_s_size(finished: RunFolder) -> None:
    report = gather(finished)
    assert report.sized
    sizes = ["4 channels, 5 cells", "6 channels, 6 cells (1+2+3)", "8 channels, 7 cells"]
    assert [one.spec.size for one in report.candidates] == sizes
    front = section("front", report)
    for size in sizes:
        assert f"<td>{size}</td>" in front
    assert '<th scope="col">size</th>' in front
    assert "net-02: 6 channels, 6 cells (1+2+3), " in front
    networks = section("networks", report)
    assert "Cells of the network: 6 channels in the first, 1 + 2 + 3 cells in three stages</h4>" in networks
    # A bar for each cell of each network, beside stem and head.
    assert [len(set(re.findall(r"cell (\d+)", part))) for part in networks.split("<section")[1:]] == [5, 6, 7]
    assert "<dd>4 to 8 channels and 5 to 7 cells, 8x8x1, 3 classes, cifar stem</dd>" in section(
        "conditions", report
    )
    best = best_model(report)
    assert best is not None
    of_best = next(one.spec.size for one in report.candidates if one.name == best.network)
    answer = section("answer", report)
    assert f'<dd class="note">{of_best}</dd>' in answer
    assert f"<td>{of_best.replace('channels', 'ch')}</td>" in answer
    assert report.networks == "4 to 8 channels and 5 to 7 cells, 8x8x1, 3 classes, cifar stem"
    assert (
        f"The most accurate network, {best.name}, uses 0% of the 1000000 ms on fake, and its upper bound 0%."
        in answer
    )
    assert "the slowest network that was allowed, of 4 to 8 channels and 5 to 7 cells, takes" in answer
    options = "--device fake --latency 1000000ms --resolution 8 --classes 3"
    assert f"make a table with <code>cars-hw profile {options} --out larger.json</code>" in answer


def test_in_a_run_of_one_size_tables_have_no_sizes(finished: RunFolder) -> None:
    report = gather(finished)
    alike = replace(report, candidates=tuple(replace(one, spec=SPECS[0]) for one in report.candidates))
    # A search over sizes has chosen the size, also where all networks have the same one.
    assert section("front", alike).count("<td>4 channels, 5 cells</td>") == len(alike.candidates)
    one_size = replace(alike, configuration=replace(report.configuration, sizes=None))
    assert '<th scope="col">size</th>' not in section("front", one_size)


def test_tables_in_the_terminal_show_sizes(
    finished: RunFolder, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cars_hw.cli.front_table import print_front

    print_front(finished.front())
    lines = capsys.readouterr().out.splitlines()
    assert any(re.search(r"net-02\s+6 ch, 6 cells \(1\+2\+3\)\s+70\.0%", line) for line in lines)
    print_front(finished.front()[:1])
    assert "cells" not in capsys.readouterr().out
    printed = called("train", finished.path, "--jobs", 1, "--on", "cpu")
    assert printed.exit_code == 0, printed.output
    assert re.search(r"net-03\s+8 ch, 7 cells\s+\d", printed.stdout)


def test_a_genotype_has_the_size_of_the_front_s_network(run: RunFolder, images: Path) -> None:
    data, genotype = DataSource(str(images)), run.front()[1].genotype
    (trained,) = train_run(run, TrainSettings(data, genotype=genotype, jobs=1))
    assert (trained.name, trained.spec) == ("net-02", SPECS[1])


def test_another_genotype_has_the_size_of_the_run_s_network_or_the_one_that_is_named(
    run: RunFolder, images: Path
) -> None:
    data, genotype = DataSource(str(images)), SearchSpace().sample(np.random.default_rng(9))
    (largest,) = train_run(run, TrainSettings(data, genotype=genotype, jobs=1))
    (named,) = train_run(run, TrainSettings(data, genotype=genotype, channels=4, jobs=1))
    assert (largest.spec, named.spec) == (SPECS[-1], replace(SPECS[-1], channels=4))
    assert named.name == f"{largest.name}-4x7"
    # A network of the front at another size is another network.
    (other,) = train_run(run, TrainSettings(data, genotype=run.front()[0].genotype, layers=6, jobs=1))
    assert (other.spec, other.network.startswith("genotype-")) == (replace(NETWORK, channels=8, layers=6), True)
    assert {one.name for one in gather(run).candidates[3:]} == {largest.name, named.name, other.name}


def test_a_network_outside_of_the_table_is_exported_and_measured_without_a_prediction(
    run: RunFolder, images: Path
) -> None:
    data, genotype = DataSource(str(images)), SearchSpace().sample(np.random.default_rng(9))
    (wide,) = train_run(run, TrainSettings(data, genotype=genotype, channels=10, jobs=1))
    (exported,) = export_run(run, formats=["onnx"])
    assert exported.card.latencies == ()
    (row,) = verify_run(run, FakeDevice(), plan=ONCE)
    # No table predicts the network, and the budget holds for it all the same.
    limit = run.targets()[0].limit_ms
    assert limit is not None
    assert (row.name, row.predicted_ms, row.bound_ms, row.limit_ms) == (wide.name, None, None, limit)
    assert row.within_budget is (row.measured_ms <= limit)
    assert row.measured_ms > 0
    # The report leaves the network out of the front, and shows its measurement.
    report = gather(run)
    assert [one.name for one in report.candidates] == ["net-01", "net-02", "net-03"]
    assert wide.name in page(report)


def test_a_genotype_of_several_sizes_is_asked_about(run: RunFolder, images: Path) -> None:
    front, data = run.front(), DataSource(str(images))
    run.write_front([front[0], replace(front[1], genotype=front[0].genotype)])
    sizes = "net-01 (4 channels, 5 cells), net-02 (6 channels, 6 cells (1+2+3))"
    with pytest.raises(InputError, match=re.escape(f"networks of several sizes have this genotype: {sizes}")):
        train_run(run, TrainSettings(data, genotype=front[0].genotype))
    asked = called("train", run.path, "--genotype", front[0].genotype.to_darts(), "--jobs", 1)
    assert asked.exit_code == 1
    assert asked.stderr.splitlines()[-1].endswith("; choose one with --channels and --layers")
    (trained,) = train_run(run, TrainSettings(data, genotype=front[0].genotype, channels=6, jobs=1))
    assert (trained.name, trained.spec) == ("net-02", SPECS[1])


def test_sizes_are_for_a_genotype(run: RunFolder) -> None:
    with pytest.raises(InputError, match="channels, layers and resolution are for a genotype"):
        train_run(run, TrainSettings(channels=8))


def test_another_resolution_is_for_a_run_over_several(run: RunFolder, images: Path) -> None:
    genotype = SearchSpace().sample(np.random.default_rng(9))
    with pytest.raises(
        InputError, match="have 8x8 pixels; another resolution is for a run of a search over several"
    ):
        train_run(run, TrainSettings(DataSource(str(images)), genotype=genotype, resolution=(10, 10)))


def test_shared_weights_are_those_of_the_network_s_slice(run: RunFolder, images: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        supernet = SuperNet(run.network)
    state = io.BytesIO()
    torch.save({"search": "{}", "weights": {"supernet": supernet.state_dict()}}, state)
    CHECKPOINT.write(run.checkpoint, state.getvalue())
    # Far below the resolution of float32: no weight moves.
    still = replace(RECIPE, learning_rate=1e-30, weight_decay=0.0)
    trained = train_run(run, TrainSettings(DataSource(str(images)), still, inherit=True, jobs=1))
    for one in trained:
        kept = load_trained(run, one).state_dict()
        shared = Slices(supernet).weights_of(one.architecture)
        assert shared["classifier.weight"].shape == (3, 16 * one.spec.channels)
        for name, value in shared.items():
            assert torch.equal(kept[name], value), name


def damaged() -> Iterator[tuple[str, NetworkSpec]]:
    yield "3 channels of an image", replace(SPECS[0], in_channels=3)
    yield "4 classes", replace(SPECS[0], classes=4)
    yield "9x8", replace(SPECS[0], resolution=(9, 8))


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in damaged()])
def test_a_network_that_differs_in_more_than_its_size_is_damage(
    run: RunFolder, finished: RunFolder, spec: NetworkSpec
) -> None:
    front, trained = run.front(), finished.trained()[0]
    said = (
        f" is damaged: net-01 is of {spec.describe()}, and the run's network of 8 channels, 7 cells, 8x8x1, "
        "3 classes, cifar stem"
    )
    run.write_front([replace(front[0], spec=spec), *front[1:]])
    with pytest.raises(RunError) as raised:
        run.front()
    assert str(raised.value) == f"{run.path / 'front.json'}{said}"
    run.write_front(front, [replace(front[0], spec=spec)])
    with pytest.raises(RunError, match="is damaged: net-01 is of"):
        run.rejected()
    run.write_trained(replace(trained, spec=spec))
    with pytest.raises(RunError) as raised:
        run.trained()
    assert str(raised.value) == f"{run.path / 'trained' / 'net-01.json'}{said}"
