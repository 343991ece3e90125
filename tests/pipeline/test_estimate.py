"""A dry run counts what a search does, and leaves nothing behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from long_runs import amount

from cars_hw.cli.main import main
from cars_hw.config.codec import unstructure
from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, FinalSettings, Protection, Widening
from cars_hw.config.training import EvaluatedClassifier, Recipe, SharedTraining, SizeSampling
from cars_hw.config.units import format_seconds
from cars_hw.errors import InputError
from cars_hw.latency import LatencyTable
from cars_hw.pipeline import estimate as estimating
from cars_hw.pipeline import pace
from cars_hw.pipeline import supernet as of_plan
from cars_hw.pipeline.estimate import Estimate, Part, estimate
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.memory import enough_memory
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.time_plan import StageSeconds
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.size_grid import SizeGrid
from cars_hw.training.shared_weights import SuperNetWeights


@pytest.mark.parametrize("choices", [("size", "shared"), ("speed", "probe")])
def test_what_is_counted_is_what_a_search_does(
    choices: tuple[Protection, EvaluatedClassifier],
    table: LatencyTable,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    protection, classifier = choices
    evolution = EvolutionSettings(4, epochs=5, warmup_epochs=1, epochs_per_generation=2, protection=protection)
    training = SharedTraining(
        batch_size=16, architectures=2, evaluation_images=20, threads=1, classifier=classifier
    )
    preset = replace(PRESETS["quick"], evolution=evolution, training=training)
    plan = SearchPlan(DataSource(str(images)), table.spec, preset, (LatencyTarget(table),))
    counted = {part.name: part.times for part in estimate(plan).parts}
    done = {"steps": 0, "subset": 0, "full": 0}

    class Counting(SuperNetWeights):
        def step(self, images, labels, genotypes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            done["steps"] += len(genotypes)
            return super().step(images, labels, genotypes)

        def counts(self, genotypes, *, before=False, full=False):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            done["full" if full else "subset"] += len(genotypes)
            return super().counts(genotypes, before=before, full=full)

    monkeypatch.setattr(of_plan, "SuperNetWeights", Counting)
    run = run_search(plan, tmp_path / "run")
    by = {"shared": "by the shared classifier", "probe": "by linear probes"}[classifier]
    assert [name.endswith(by) for name in counted] == [False, False, True, True]
    assert {one.classifier for one in run.front()} == {classifier}
    # A small space may have too few offspring that nobody has seen; there are never more than counted.
    warm_up, steps, subset, full = counted.values()
    # One epoch of warm-up, two generations of two epochs.
    assert steps == 4 * warm_up
    assert warm_up + steps == done["steps"]
    assert 0.7 * subset <= done["subset"] <= subset
    assert 0.7 * full <= done["full"] <= full


@pytest.mark.parametrize("counts", [(20, 12), (0, 8)])
def test_a_search_without_training_evaluates_each_architecture_once(
    counts: tuple[int, int], table: LatencyTable, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subset, finalists = counts
    evolution = EvolutionSettings(4, epochs=5, warmup_epochs=1, epochs_per_generation=2, protection="size")
    training = SharedTraining(
        batch_size=16, evaluation_images=subset, threads=1, classifier="untrained-probe", crop_padding=0
    )
    preset = replace(PRESETS["quick"], evolution=evolution, training=training)
    plan = SearchPlan(DataSource(str(images)), table.spec, preset, (LatencyTarget(table),))
    found = estimate(plan)
    assert [(part.name, part.times) for part in found.parts] == [
        ("architectures evaluated on the subset by linear probes on untrained weights", 4 * 3),
        ("finalists evaluated on all validation images by linear probes on untrained weights", finalists),
    ]
    assert found.stages.total == pytest.approx(found.seconds)
    seen: list[Architecture] = []
    evaluate = SuperNetWeights.counts

    def counting(self, architectures, **how):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN202
        seen.extend(architectures)
        return evaluate(self, architectures, **how)

    monkeypatch.setattr(SuperNetWeights, "counts", counting)
    monkeypatch.setattr(SuperNetWeights, "step", None)
    run = run_search(plan, tmp_path / "run")
    # A small space may have too few offspring that nobody has seen; there are never more than counted.
    assert 0.7 * (12 + finalists) <= len(seen) <= 12 + finalists
    assert (len({one.key() for one in seen}) == len(seen)) == (subset == 0)
    assert {one.classifier for one in run.front()} == {"untrained-probe"}
    assert [record["loss"] for record in run.history()] == [None, None]


def test_over_sizes_a_time_is_the_mean_over_the_space_and_the_largest_comes_first(
    table: LatencyTable, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = SharedTraining(batch_size=16, evaluation_images=20, threads=1)
    sizes = SizeGrid((2, 4, 6, 8), (3, 4, 5, 6))
    plan = SearchPlan(
        DataSource(str(images)),
        table.spec,
        replace(PRESETS["quick"], training=training),
        costs=("parameters",),
        sizes=sizes,
    )
    now = 0.0
    stepped: list[Architecture] = []

    def seconds(one: Architecture) -> float:
        """A time that grows with the size by a factor of 8, so that a median would be too small."""
        return one.network.layers * one.network.channels / 100

    class Timed(SuperNetWeights):
        def step(self, images, labels, architectures):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            nonlocal now
            stepped.extend(architectures)
            now += sum(map(seconds, architectures))

        def counts(self, architectures, *, before=False, full=False):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            nonlocal now
            now += sum(map(seconds, architectures)) * (3 if full else 2)
            return super().counts(architectures, before=before, full=full)

    monkeypatch.setattr(of_plan, "SuperNetWeights", Timed)
    monkeypatch.setattr("time.perf_counter", lambda: now)
    found = estimate(plan)
    monkeypatch.undo()
    rng = np.random.default_rng(1)
    mean = np.mean([seconds(plan.architectures.sample(rng)) for _ in range(4000)])
    for part, times in zip(found.parts, (1, 1, 2, 3), strict=True):
        assert part.seconds == pytest.approx(times * mean, rel=0.1), part.name
    assert stepped[0].network == sizes.largest(table.spec)
    costs = [one.network.channels * one.network.layers for one in stepped[1:]]
    assert max(costs) > 4 * min(costs)


@pytest.mark.parametrize("widening", ["sizes", "operations"])
def test_a_warm_up_that_widens_is_timed_by_its_own_draws(
    widening: Widening, table: LatencyTable, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evolution = EvolutionSettings(4, epochs=5, warmup_epochs=4, epochs_per_generation=1, widening=widening)
    training = SharedTraining(batch_size=16, evaluation_images=20, threads=1)
    preset = replace(PRESETS["quick"], evolution=evolution, training=training)
    sizes = SizeGrid((2, 8), (3,)) if widening == "sizes" else None
    plan = SearchPlan(DataSource(str(images)), table.spec, preset, costs=("parameters",), sizes=sizes)
    now = 0.0

    def seconds(one: Architecture) -> float:
        operations = {edge.operation for node in (*one.genotype.normal, *one.genotype.reduce) for edge in node}
        return 8.0 if operations == {"sep_conv_5x5"} else one.network.channels / 8

    class Timed(SuperNetWeights):
        def step(self, images, labels, architectures):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            nonlocal now
            now += sum(map(seconds, architectures))

        def counts(self, architectures, *, before=False, full=False):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            return super().counts(architectures, before=before, full=full)

    monkeypatch.setattr(of_plan, "SuperNetWeights", Timed)
    monkeypatch.setattr("time.perf_counter", lambda: now)
    found = estimate(plan)
    monkeypatch.undo()
    warm_up, later = found.parts[:2]
    if widening == "sizes":
        # Both epochs that widen have 8 channels. Later draws, and the population, have 2 or 8.
        assert warm_up.name == "warm-up steps, an architecture each, the largest first"
        assert warm_up.seconds == pytest.approx(0.5 + 0.5 * (1 + 0.25) / 2, abs=0.1)
        assert later.seconds == pytest.approx((1 + 0.25) / 2, abs=0.1)
    else:
        # A quarter of the draws has one operation.
        assert warm_up.name == "warm-up steps, an architecture each, of few operations first"
        channels = table.spec.channels / 8
        assert warm_up.seconds == pytest.approx(8 / 4 + channels * 3 / 4)
        assert later.seconds == channels


@pytest.mark.parametrize("sampling", ["sandwich", "drawn"][: amount(1, 2)])
def test_a_search_over_sizes_is_estimated_and_runs(
    sampling: SizeSampling, table: LatencyTable, images: Path, tmp_path: Path
) -> None:
    evolution = EvolutionSettings(4, epochs=2, warmup_epochs=1, epochs_per_generation=1)
    training = SharedTraining(
        batch_size=16, architectures=2, evaluation_images=20, threads=1, size_sampling=sampling
    )
    preset = replace(PRESETS["quick"], evolution=evolution, training=training)
    sizes = SizeGrid((2, 4, 6), (3, 4))
    plan = SearchPlan(DataSource(str(images)), table.spec, preset, costs=("multiply-adds",), sizes=sizes)
    found = estimate(plan)
    parts = {part.name: part for part in found.parts}
    ends = parts.get("steps of the largest and the smallest size")
    half_of_ends = ends.total_seconds / 2 if ends is not None else 0
    assert (ends is not None) == (sampling == "sandwich")
    # A batch has two drawn architectures, and both ends once.
    drawn = [part.times for name, part in parts.items() if "an architecture each" in name]
    assert ends is None or 2 * ends.times == sum(drawn)
    stages = found.stages
    assert stages.total == pytest.approx(found.seconds)
    # One epoch of warm-up and one of the only generation; of both, the ends are half.
    warming = parts["warm-up steps, an architecture each"].total_seconds + half_of_ends
    assert stages.warm_up == pytest.approx(warming)
    front = run_search(plan, tmp_path / "run").front()
    assert all(sizes.has(network.spec) for network in front)


def test_the_final_stage_is_counted_by_its_share(table: LatencyTable, images: Path) -> None:
    evolution = EvolutionSettings(4, epochs=5, warmup_epochs=1, epochs_per_generation=2, protection="size")
    training = SharedTraining(batch_size=16, evaluation_images=20, threads=1)
    recipe = Recipe(epochs=5, batch_size=16, learning_rate=0.02)
    preset = replace(PRESETS["quick"], evolution=evolution, training=training, recipe=recipe)
    plan = SearchPlan(DataSource(str(images)), table.spec, preset, (LatencyTarget(table),))
    assert not any("final stage" in part.name for part in estimate(plan).parts)
    half = replace(plan, preset=replace(preset, final=FinalSettings(0.5)))
    found = {jobs: estimate(half, jobs).parts[-1] for jobs in (1, 4)}
    assert found[1].name == "steps of the final stage"
    assert found[4].name == "steps of the final stage, 4 networks side by side"
    # As much as the search: 81 training images in 5 epochs; 2 x 4 x 2 evaluations of 20, and 12 of 78. Steps of 16.
    # The networks are of one size, so that their multiply-adds differ by their operations only.
    passes = 3 * 81 * 5 + 16 * 20 + 12 * 78
    assert found[1].times == pytest.approx(passes / (3 * 16), rel=0.35)
    # Three times as much again.
    most = replace(plan, preset=replace(preset, final=FinalSettings(0.75)))
    assert estimate(most, 1).parts[-1].times == pytest.approx(3 * found[1].times, abs=3)


def test_parts_add_up_and_times_are_readable() -> None:
    found = Estimate((Part("a", 10, 0.5), Part("b", 3, 2.0)), StageSeconds(5, 6, 0, 0), 100.0, False)
    assert found.seconds == 11.0
    assert unstructure(found)["parts"][1]["total_seconds"] == 6.0
    said = [format_seconds(value) for value in (0.123, 9.7, 45.2, 200.0, 25_500.0)]
    assert said == ["0.12 s", "9.7 s", "45 s", "3 min 20 s", "7 h 5 min"]


def test_the_command_says_how_long_and_writes_nothing(tiny_table: Path, images: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    asked = ["search", "--data", str(images), "--table", str(tiny_table), "--batch-size", "16", "--on", "cpu"]
    result = CliRunner().invoke(main, [*asked, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "warm-up steps" in result.output
    assert "MB of memory" in result.output
    found = json.loads(CliRunner().invoke(main, [*asked, "--dry-run", "--json"]).stdout)
    assert found["seconds"] == pytest.approx(sum(part["total_seconds"] for part in found["parts"]))
    assert found["memory_mb"] > 50
    assert sorted(tmp_path.iterdir()) == before
    missing = CliRunner().invoke(main, asked)
    assert missing.exit_code == 2
    assert "--out" in missing.output


def test_first_passes_are_timed_when_the_blocks_that_they_are_put_together_from_are_recorded() -> None:
    stepped: list[Architecture] = []

    class Composing:
        composes, records, device, threads = True, False, torch.device("cpu"), 1
        batches = SimpleNamespace(epoch=lambda _: iter([(torch.zeros(2, 3, 8, 8), torch.zeros(2))]))

        def step(self, _images: object, _labels: object, architectures: list[Architecture]) -> None:
            stepped.extend(architectures)

    plan = SearchPlan(DataSource("images"), NETWORKS["quick"], PRESETS["quick"], costs=("parameters",))
    drawn = [plan.architectures.sample(np.random.default_rng(0))] * 4
    weights = cast("SuperNetWeights", Composing())
    pace._steps(plan, weights, drawn, drawn, lambda times: times[0], ends=False)
    assert stepped[-4:] == drawn
    assert len({one.key() for one in stepped[:-4]}) == pace.BLOCKS_RECORDED


def test_too_little_memory_is_said_before_the_search_with_what_to_lower(
    table: LatencyTable, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsed = []

    class OnSmallGpu(SuperNetWeights):
        def rehearse(self, genotype: Genotype, together: int = 2) -> None:
            rehearsed.append(genotype)
            raise torch.OutOfMemoryError("CUDA out of memory")

    def built(*given: Any, **named: Any) -> SuperNetWeights:  # noqa: ANN401
        weights = OnSmallGpu(*given, **named)
        weights.device = torch.device("cuda")
        return weights

    monkeypatch.setattr(of_plan, "SuperNetWeights", built)
    training = SharedTraining(batch_size=16, evaluation_batch=20)
    plan = SearchPlan(
        DataSource(str(images)), table.spec, replace(PRESETS["quick"], training=training), (LatencyTarget(table),)
    )
    with pytest.raises(InputError, match=r"training batches of 16 images and evaluation batches of 20$"):
        run_search(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"training batches of 16 images and evaluation batches of 20$"):
        estimate(plan)
    full = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    with pytest.raises(InputError, match="memory is too small for training batches of 16"), enough_memory(plan):
        raise full
    with pytest.raises(RuntimeError, match="an illegal memory access"), enough_memory(plan):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    genotype, again = rehearsed
    assert genotype == again
    assert {edge.operation for node in (*genotype.normal, *genotype.reduce) for edge in node} == {"sep_conv_5x5"}


def test_recordings_are_those_of_new_architectures_that_train_twice() -> None:
    paper = SearchPlan(DataSource("fashion-mini"), NETWORKS["cifar"], PRESETS["paper"], costs=("parameters",))
    evolution = paper.preset.evolution
    # A third of 128 architectures in 44 generations, and all in the first; each has a hundred passes.
    steps = 195 * evolution.generations * evolution.epochs_per_generation
    assert estimating._recordings(paper, steps) == round(128 * (1 + 44 / 3))
    # With two passes for each of them on average, 0.6 have two at least.
    few = 2 * round(128 * (1 + 44 / 3))
    assert estimating._recordings(paper, few) == pytest.approx(0.594 * few / 2, rel=0.01)
    assert estimating._recordings(paper, 3) <= 3
    foreign = replace(paper, preset=replace(paper.preset, evolution=replace(evolution, uniform_draws=1.0)))
    # Those that are drawn from the space have one pass each.
    assert estimating._recordings(foreign, steps) == 0
