"""From a table to verified models, in the small, on the fake device."""

from __future__ import annotations

import io
import json
import math
import time
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import forked
import numpy as np
import onnx
import pytest
import torch
from long_runs import amount
from tfevents import scalars

from cars_hw.config.data import DataSource
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS, Preset
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import Recipe
from cars_hw.data import load_data
from cars_hw.devices import FakeDevice, LitertDevice
from cars_hw.errors import BudgetError, InputError, RunError, TableError
from cars_hw.evolution.checkpoint import content, supernet_weights
from cars_hw.export.card import CardLatency, ModelCard, card_path
from cars_hw.latency import LatencyTable, Predictor, fastest_genotype, measure_genotypes
from cars_hw.measurement.schedule import measure
from cars_hw.nn.cost import network_cost, published_cost
from cars_hw.nn.supernet import SuperNet
from cars_hw.pipeline.chosen_networks import choose
from cars_hw.pipeline.export import export_run
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.networks import FrontNetwork
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.pipeline.trained_weights import load_trained
from cars_hw.pipeline.verify import verify_run
from cars_hw.report.page import write_report
from cars_hw.space.liveness import unread_cells
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.search_space import SearchSpace

SHORT = EvolutionSettings(population=6, epochs=4, warmup_epochs=1, epochs_per_generation=1, protection="both")
SMALL: Preset = replace(
    PRESETS["quick"],
    evolution=SHORT,
    training=replace(PRESETS["quick"].training, batch_size=32, evaluation_images=16),
    recipe=Recipe(epochs=1, batch_size=32, learning_rate=0.1),
)


@pytest.fixture
def data(images: Path) -> DataSource:
    return DataSource(str(images))


def median_budget(table: LatencyTable) -> float:
    predictor, rng = Predictor(table), np.random.default_rng(0)
    return float(np.median([predictor.bound(SearchSpace().sample(rng)) for _ in range(100)]))


def make_plan(table: LatencyTable, data: DataSource, limit: float | None = None, seed: int = 0) -> SearchPlan:
    return SearchPlan(data, table.spec, SMALL, (LatencyTarget(table, limit or median_budget(table)),), seed=seed)


def test_from_a_search_to_verified_models_and_a_report(
    table: LatencyTable, tmp_path: Path, data: DataSource
) -> None:
    plan = make_plan(table, data)
    limit = plan.targets[0].limit_ms
    assert limit is not None
    run = run_search(plan, tmp_path / "run")
    front = run.front()
    assert [network.name for network in front] == [f"net-{n:02d}" for n in range(1, len(front) + 1)]
    predictor = Predictor(table)
    for network in front:
        estimate = network.latency_estimates[0]
        assert (estimate.predicted_ms, estimate.bound_ms) == tuple(predictor.predict(network.genotype))
        assert estimate.bound_ms <= limit
        assert unread_cells(table.spec, network.genotype) == ()
        ships, published = (count(table.spec, network.genotype) for count in (network_cost, published_cost))
        assert (network.parameters, network.multiply_adds) == ships[:2]
        assert (network.published_parameters, network.published_multiply_adds) == published[:2]
    trained = train_run(run, TrainSettings(data, top=2, jobs=1))
    assert [network.name for network in trained] == [network.name for network in choose(front, 2)]
    exported = export_run(run, data=data, formats=["onnx"])
    device = FakeDevice()
    rows = verify_run(run, device, plan=MeasurePlan(sessions=1))
    for model, row, network in zip(exported, rows, trained, strict=True):
        card = ModelCard.read(card_path(model.path))
        assert card.genotype == network.genotype
        assert card.accuracy == network.accuracy == row.accuracy
        (latency,) = card.latencies
        assert latency.measured_ms == row.measured_ms == measure(device, [model.path]).models[0].ms
        assert (latency.device, latency.threads, latency.state) == ("fake", 1, "quiet")
        assert (latency.predicted_ms, latency.bound_ms) == (row.predicted_ms, row.bound_ms)
        assert latency.level == run.configuration.targets[0].level
        assert card.test_images == len(load_data(data.source, resolution=table.spec.resolution).test)
        assert row.within_budget is (row.measured_ms <= limit)
        # Counted in the file; this table's device runs ONNX files.
        graph = onnx.load(str(model.path)).graph
        weighted = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
        sizes = {one.name: math.prod(one.dims) for one in graph.initializer}
        assert row.parameters == sum(sizes[name] for node in weighted for name in node.input[1:])
        assert row.drift == 0.0
        assert row.deviation == pytest.approx(row.measured_ms / predictor.predict(network.genotype).ms - 1)
    page = write_report(run).read_text()
    assert all(row.name in page for row in rows)
    assert "http" not in page.replace("http-equiv", "")
    # A second time nothing is trained: the weights are as old as they were.
    before = run.weights_path(trained[0].name).stat().st_mtime_ns
    train_run(run, TrainSettings(data, top=2, jobs=1))
    assert run.weights_path(trained[0].name).stat().st_mtime_ns == before


def test_both_formats_come_out_in_both_precisions_and_run_on_litert(
    table: LatencyTable, tmp_path: Path, data: DataSource
) -> None:
    run = run_search(make_plan(table, data), tmp_path / "run")
    (trained,) = train_run(run, TrainSettings(data, top=1, jobs=1))
    exported = export_run(run, data=data, precision="int8")
    assert [model.path.name for model in exported] == [
        f"{trained.name}{suffix}" for suffix in (".onnx", ".int8.onnx", ".tflite", ".int8.tflite")
    ]
    for model in exported:
        card = ModelCard.read(card_path(model.path))
        assert card == model.card
        assert card.precision == ("int8" if ".int8." in model.path.name else "fp32")
        # The run's table is of a device that runs ONNX in float.
        assert bool(card.latencies) is (model.path.name == f"{trained.name}.onnx")
    before = {model.path: model.path.read_bytes() for model in exported}
    for model in export_run(run, data=data, formats=["onnx"], precision="int8", int8="symmetric"):
        assert model.card.int8 == ("symmetric" if ".int8." in model.path.name else None)
        assert (before[model.path] == model.path.read_bytes()) is (model.card.int8 is None)
    assert "symmetric" in run.steps()[-1].settings.values()
    with pytest.raises(InputError, match="symmetric is a scheme of int8; fp32 models are not quantised"):
        export_run(run, data=data, int8="symmetric")
    rows = verify_run(run, LitertDevice(), plan=MeasurePlan(sessions=1, min_runs=5))
    assert [(row.name, row.precision) for row in rows] == [(f"{trained.name}.int8", "int8"), (trained.name, "fp32")]
    assert all(row.within_budget is None for row in rows)
    card = ModelCard.read(card_path(run.model_path(trained.name, "tflite")))
    assert card.latencies == (CardLatency("litert", 1, "quiet", measured_ms=rows[1].measured_ms),)
    page = write_report(run).read_text()
    assert "Effect of int8 quantisation" in page
    assert f"{trained.name}.int8 on litert" in page


def test_a_table_of_int8_is_for_int8_models(table: LatencyTable, tmp_path: Path, data: DataSource) -> None:
    quantised = replace(table, precision="int8")
    plan = make_plan(quantised, data)
    assert plan.exported_precision == "int8"
    run = run_search(plan, tmp_path / "run")
    assert run.configuration.precision == "int8"
    assert all(network.latency_estimates[0].precision == "int8" for network in run.front())
    with pytest.raises(TableError, match="for precision int8, not fp32"):
        replace(plan, precision="fp32")


def test_the_front_is_held_against_the_device_and_written_down(
    table: LatencyTable, tmp_path: Path, data: DataSource
) -> None:
    plan = make_plan(table, data)
    limit = plan.targets[0].limit_ms
    assert limit is not None
    predicted = run_search(plan, tmp_path / "predicted").front()
    assert all(network.latency_estimates[0].measured_ms is None for network in predicted)
    # The device has become slower than its table, just so that a part of the front is too slow.
    fastest, slowest = (predicted[place].latency_estimates[0].predicted_ms for place in (0, -1))
    device = FakeDevice(speed=math.sqrt(fastest * slowest) / limit)
    plan = replace(plan, targets=(replace(plan.targets[0], device=device),))
    run = run_search(plan, tmp_path / "run", measure_plan=MeasurePlan(sessions=1, patience_seconds=0))
    front, rejected = run.front(), run.rejected()
    assert front
    assert rejected
    assert not any(network.latency_estimates[0].over_limit for network in front)
    assert all(network.latency_estimates[0].over_limit for network in rejected)
    assert {network.genotype for network in predicted} <= {network.genotype for network in front + rejected}
    for network in front + rejected:
        (estimate,) = network.latency_estimates
        assert estimate.limit_ms == limit
        (measured,) = measure_genotypes(device, table.spec, [network.genotype], MeasurePlan(sessions=1)).models
        assert estimate.measured_ms == measured.ms
    page = write_report(run).read_text()
    assert f"<p>{len(rejected)} networks were rejected by measurement" in page
    assert [network.name for network in rejected] == [f"rejected-{n:02d}" for n in range(1, len(rejected) + 1)]


def test_trained_networks_start_from_the_shared_weights_where_that_is_asked_for(
    table: LatencyTable, tmp_path: Path, data: DataSource
) -> None:
    plan = make_plan(table, data)
    training = replace(plan.preset.training, share="kernels", average=0.9)
    run = run_search(replace(plan, preset=replace(plan.preset, training=training)), tmp_path / "run")
    genotype = run.front()[-1].genotype
    # Far below the resolution of float32: no weight moves.
    still = Recipe(epochs=1, batch_size=32, learning_rate=1e-30, weight_decay=0.0)
    train_run(run, TrainSettings(data, genotype=genotype, recipe=still, jobs=1, inherit=True))
    assert run.steps()[-1].settings["inherit"] is True
    shared = supernet_weights(run.checkpoint)
    kept = load_trained(run, run.trained()[0])
    assert torch.equal(kept.classifier.weight, shared["classifier.weight"])
    edge = next(edge for edge in genotype.normal[0] if edge.is_real)
    supernet = SuperNet(run.network, "kernels")
    supernet.load_state_dict(shared)
    with torch.no_grad():
        owner = supernet.shared_cells()[0].operation(0, edge.source, edge.operation)
        for name, value in owner.named_parameters():
            assert torch.equal(dict(kept.cells[0].nodes[0][0].named_parameters())[name], value)  # type: ignore[index, union-attr]
    # The average was evaluated, and not the weights of the last step.
    present = torch.load(io.BytesIO(content(run.checkpoint)), weights_only=True)["weights"]["supernet"]
    assert not torch.equal(present["classifier.weight"], shared["classifier.weight"])
    (again,) = train_run(run, TrainSettings(data, genotype=genotype, recipe=still, jobs=1))
    assert run.steps()[-1].settings["inherit"] is False
    assert write_report(run).read_text().count("This step was run from Python with these settings:") == 3
    fresh = load_trained(run, again)
    assert not torch.equal(fresh.classifier.weight, shared["classifier.weight"])


def test_side_by_side_training_gives_what_one_after_the_other_gives(
    table: LatencyTable, tmp_path: Path, data: DataSource
) -> None:
    run = run_search(make_plan(table, data), tmp_path / "run")
    progress: list[tuple[str, int, int]] = []
    torch.set_num_threads(1)
    standalone = train_run(run, TrainSettings(data, top=2, jobs=1))
    weights = {network.name: run.weights_path(network.name).read_bytes() for network in standalone}
    for network in standalone:
        run.weights_path(network.name).with_suffix(".json").unlink()
    together = train_run(run, TrainSettings(data, top=2, jobs=2), progress=lambda *step: progress.append(step))
    assert together == standalone
    assert {network.name: run.weights_path(network.name).read_bytes() for network in together} == weights
    # 160 images, in batches of 32.
    assert {(name, 5, 5) for name in weights} <= set(progress)


def test_an_impossible_budget_names_the_smallest_latency(
    table: LatencyTable, tmp_path: Path, data: DataSource
) -> None:
    predictor = Predictor(table)
    rng = np.random.default_rng(0)
    least = predictor.bound(fastest_genotype(SearchSpace(network=table.spec), predictor.bound, rng))
    # With fewer cells it would be faster, but those are for the network's settings to say.
    assert predictor.bound(fastest_genotype(SearchSpace(), predictor.bound, rng)) < least
    with pytest.raises(BudgetError, match=r"no architecture keeps to the budget .* possible") as error:
        run_search(make_plan(table, data, least * 0.99), tmp_path / "run")
    assert error.value.smallest == pytest.approx((least,))
    assert not (tmp_path / "run").exists()
    run_search(make_plan(table, data, least * 1.01), tmp_path / "run")
    front = RunFolder.open(tmp_path / "run").front()
    assert front
    assert all(network.latency_estimates[0].bound_ms <= least * 1.01 for network in front)


def test_two_budgets_are_both_kept(table: LatencyTable, tmp_path: Path, data: DataSource) -> None:
    other = replace(
        table,
        device="other",
        entries={
            key: replace(entry, ms=entry.ms * (3 if "pool" in key else 1)) for key, entry in table.entries.items()
        },
    )
    limits = (median_budget(table), median_budget(other))
    plan = SearchPlan(
        data,
        table.spec,
        SMALL,
        (LatencyTarget(table, limits[0]), LatencyTarget(other, limits[1])),
        costs=("parameters",),
    )
    front = run_search(plan, tmp_path / "run").front()
    assert front
    for network in front:
        estimates = network.latency_estimates
        assert [estimate.device for estimate in estimates] == ["fake", "other"]
        assert all(estimate.bound_ms <= limit for estimate, limit in zip(estimates, limits, strict=True))


def test_data_that_does_not_fit_the_network_is_refused_before_anything_is_written(
    table: LatencyTable, tmp_path: Path, data: DataSource
) -> None:
    wrong = replace(table, spec=replace(table.spec, in_channels=3))
    plan = SearchPlan(data, wrong.spec, SMALL, costs=("parameters",))
    with pytest.raises(InputError, match=r"has 1 channels, the network 3$"):
        run_search(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_proxy_search_ships_another_network_than_it_trains(
    table: LatencyTable, tmp_path: Path, data: DataSource
) -> None:
    spec = replace(table.spec, in_channels=3, classes=100, resolution=(64, 64), stem="imagenet")
    preset = replace(SMALL, supernet_channels=4, supernet_layers=3)
    plan = SearchPlan(data, spec, preset, costs=("multiply-adds",), proxy=True)
    run = run_search(plan, tmp_path / "run")
    assert run.front()
    assert run.network == spec
    with pytest.raises(InputError, match="has 1 channels, the network 3"):
        train_run(run, TrainSettings(data))


def test_resuming_needs_the_same_settings(table: LatencyTable, tmp_path: Path, data: DataSource) -> None:
    run_search(make_plan(table, data), tmp_path / "run")
    with pytest.raises(RunError, match=r"exists$"):
        run_search(make_plan(table, data), tmp_path / "run")
    with pytest.raises(RunError, match=r"started with seed = 0, not 1"):
        run_search(make_plan(table, data, seed=1), tmp_path / "run", resume=True)
    again = run_search(make_plan(table, data), tmp_path / "run", resume=True)
    assert again.front()


def test_choosing_spreads_over_the_front() -> None:
    front = [
        FrontNetwork(str(n), SearchSpace().sample(np.random.default_rng(n)), NETWORKS["tiny"], n / 10, n, n, ())
        for n in range(9)
    ]
    assert [network.name for network in choose(front, 3)] == ["0", "4", "8"]
    assert [network.name for network in choose(front, 1)] == ["8"]
    assert choose(front, 20) == front
    with pytest.raises(InputError, match="at least one"):
        choose(front, 0)


COMMAND = (
    "search --population 6 --epochs 5 --warmup-epochs 2 --epochs-per-generation 1 "
    "--batch-size 16 --protect both --seed 3 --on cpu --resume --tensorboard"
)


LEARNING = """
training.average = 0.9
training.share = "kernels"
evolution.draws = "fair"
evolution.widening = "operations"
evolution.objective = "loss"
"""
"""Settings with a state of their own."""


def start(table: Path, data: DataSource, out: Path, limit: float, settings: str) -> ForkServerProcess:
    file = out.with_suffix(".toml")
    file.write_text(settings)
    given = ["--data", data.source, "--table", str(table), "--latency", f"{limit}ms", "--out", str(out)]
    given += ["--config", str(file)]
    return forked.start([*COMMAND.split(), *given], out.with_suffix(".errors"))


def finish(process: ForkServerProcess, out: Path) -> None:
    forked.finish(process, out.with_suffix(".errors"))


# The short suite kills every command in test_killed_runs.py.
@pytest.mark.parametrize("seed", range(20, 20 + amount(0, 12)))
def test_killed_at_any_moment_and_resumed_a_search_ends_with_the_same_front(
    tiny_table: Path, table: LatencyTable, tmp_path: Path, data: DataSource, seed: int
) -> None:
    limit = median_budget(table)
    settings = "" if seed % 2 else LEARNING
    whole = tmp_path / "whole"
    process = start(tiny_table, data, whole, limit, settings)
    while not (whole / "run.json").exists():
        assert process.is_alive()
        time.sleep(0.02)
    begun = time.monotonic()
    finish(process, whole)
    lasted = time.monotonic() - begun
    expected = (whole / "front.json").read_bytes()
    rng = np.random.default_rng(seed)
    broken = tmp_path / "broken"
    units = []
    for share in (0.15, 0.4, 0.6, 0.8):
        process = start(tiny_table, data, broken, limit, settings)
        checkpoint = broken / "checkpoint" / "search.pt"
        while not (broken / "run.json").exists() or (units and not checkpoint.exists()):
            assert process.is_alive()
            time.sleep(0.02)
        time.sleep(float(rng.uniform(0, share)) * lasted)
        process.kill()
        process.join()
        units.append(len((broken / "history.jsonl").read_text().splitlines()) if checkpoint.exists() else -1)
        if (broken / "front.json").exists():
            break
    finish(start(tiny_table, data, broken, limit, settings), broken)
    assert (broken / "front.json").read_bytes() == expected
    told = scalars(broken / "tensorboard")
    history = RunFolder(broken).history()
    assert [step for step, _ in told["loss"]] == [1, 2, 3]
    for name, key in (("loss", "loss"), ("hypervolume", "hypervolume"), ("accuracy/best", "best_accuracy")):
        assert [value for _, value in told[name]] == [np.float32(record[key]) for record in history]
    assert told == scalars(whole / "tensorboard")
    assert json.loads(expected)["networks"]
    assert (broken / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()
    assert not list(broken.rglob(".*.*"))
