"""A run that was written by hand: six networks, a table of a fake device, models that are not models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from evaluations import evaluation
from few_descents import descend_once

from cars_hw.config.checksummed import digest
from cars_hw.config.codec import unstructure
from cars_hw.config.data import DataSource
from cars_hw.config.decoding import Decoding
from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.data.manifest import DataManifest, Split
from cars_hw.devices import Measurement, Sample
from cars_hw.export.card import ModelCard, Preprocessing
from cars_hw.latency import CalibrationNetwork, Coefficients, LatencyTable, Predictor, spec_keys
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.networks import FrontNetwork, TrainedNetwork
from cars_hw.pipeline.records import RunAbout, RunConfiguration, Verified
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)

DATA = DataManifest(
    created="2000-01-02T03:04:05+00:00",
    source=DataSource("fashion-mini"),
    name="fashion-mini",
    class_names=("ankle boot", "bag", "coat"),
    counts={"train": (100, 110, 120), "test": (10, 11, 12)},
    mean=(0.5,),
    std=(0.25,),
    decoding=Decoding.of(1),
    splits=(
        Split("test", "as the source gives them", None, 33, None),
        Split("weights", "0.5 of each class of the training images", 0, 165, digest(b"weights")),
        Split("architectures", "0.5 of each class of the training images", 0, 165, digest(b"architectures")),
    ),
    digest=digest(b"images"),
    files=None,
    skipped={},
)

MakeRun = Callable[..., RunFolder]


@pytest.fixture(scope="session")
def table() -> LatencyTable:
    """A table of random operations for a network of 4 channels and 3 cells on 8x8 images."""
    rng = np.random.default_rng(0)
    space = SearchSpace()
    return LatencyTable(
        device="fake",
        precision="fp32",
        threads=1,
        spec=SPEC,
        created="2000-01-01T00:00:00+00:00",
        conditions={"processor": "none", "cores": 2, "load": [0.5, 0.25, 0.125], "governor": None},
        plan=asdict(MeasurePlan(sessions=1)),
        overhead=exactly(0.001),
        entries={str(key): exactly(round(float(rng.uniform(0.002, 0.01)), 6)) for key in spec_keys(SPEC)},
        calibration=tuple(CalibrationNetwork(space.sample(rng), exactly(0.1)) for _ in range(8)),
        predictor=Coefficients(0.9, 0.004, 0.01, (-0.02, -0.01, 0.0, 0.0, 0.0, 0.01, 0.02, 0.05)),
    )


def exactly(ms: float) -> Measurement:
    return Measurement(ms, (Sample(ms), Sample(ms)), 0.0)


@pytest.fixture(scope="session")
def make_run(table: LatencyTable, tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Write a run whose networks ``net-01``, ``net-03`` and ``net-05`` were trained, exported, and measured."""

    def make(
        name: str = "run", *, limit: float | None = 0.5, measured: bool = True, data: str = "fashion-mini"
    ) -> RunFolder:
        run = RunFolder.create(tmp_path_factory.mktemp("runs") / name, configuration(table, limit, data), ABOUT)
        table.write(run.table_path(0))
        run.write_data(DATA)
        predictor, rng = Predictor(table), np.random.default_rng(1)
        genotypes = sorted((SearchSpace().sample(rng) for _ in range(6)), key=predictor.bound)
        front = [network(table, genotype, index, limit) for index, genotype in enumerate(genotypes)]
        run.write_front(front[:5], front[5:])
        run.write_history([generation(table, number, genotypes[:4]) for number in (1, 2, 3)])
        if measured:
            rows = [row for index in (0, 2, 4) for row in finish(run, front[index], index, limit)]
            run.write_verified(rows)
        return run

    return make


@pytest.fixture(scope="session")
def run(make_run: MakeRun) -> RunFolder:
    """A finished run; to be read only."""
    return make_run()


ABOUT = RunAbout("2000-01-02T03:04:05+00:00", {"python": "3.11.0", "cars-hw": "0.1.0"}, 2)


def configuration(table: LatencyTable, limit: float | None, data: str) -> RunConfiguration:
    preset = PRESETS["quick"]
    return RunConfiguration(
        data=data,
        seed=0,
        network=SPEC,
        operations=SearchSpace().operations,
        targets=(LatencyTarget(table, limit).record(),),
        precision="fp32",
        costs=(),
        proxy=False,
        supernet_channels=None,
        supernet_layers=None,
        evolution=preset.evolution,
        training=preset.training,
        recipe=preset.recipe,
        standalone_epochs=0,
    )


def network(table: LatencyTable, genotype: Genotype, index: int, limit: float | None) -> FrontNetwork:
    cost = network_cost(SPEC, genotype)
    # The sixth was struck: it took longer than it may.
    target = LatencyTarget(table, limit)
    architecture = Architecture(genotype, table.spec)
    taken = 2 * (limit or 1.0) if index == 5 else 1.01 * target.predict(architecture).ms
    estimate = target.estimate(architecture, taken)
    return FrontNetwork(
        f"net-{index + 1:02d}",
        genotype,
        SPEC,
        0.7 + 0.02 * index,
        cost.parameters,
        cost.multiply_adds,
        (estimate,),
        validation=ClassCounts((20, 20, 10), (18, 12 + index, 5)),
    )


def generation(table: LatencyTable, number: int, genotypes: list[Genotype]) -> dict[str, Any]:
    members = [
        {
            "genotype": genotype.to_dict(),
            "network": unstructure(SPEC),
            "accuracy": 0.1 * number + 0.02 * place,
            "gain": 0.0,
            "costs": [Predictor(table).predict(genotype).ms],
        }
        for place, genotype in enumerate(genotypes)
    ]
    figures = {"loss": 1.0 / number, "best_accuracy": 0.1 * number + 0.06, "hypervolume": 0.1 * number}
    counts = unstructure(ClassCounts((40, 40, 20), (round(10 * number + 6), 0, 0)))
    return {"generation": number, "candidates": 8, **figures, "best_counts": counts, "population": members}


def finish(run: RunFolder, chosen: FrontNetwork, index: int, limit: float | None) -> list[Verified]:
    """Train, export and measure ``chosen``, or rather write what these steps write."""
    accuracy = 0.8 + 0.02 * index
    (estimate,) = chosen.latency_estimates
    recipe = PRESETS["quick"].recipe
    run.write_trained(
        TrainedNetwork(
            chosen.name,
            chosen.genotype,
            chosen.spec,
            evaluation((50, 30, 20), (round(100 * accuracy) - 40, 30, 10)),
            0.5,
            recipe,
            0,
            recipe.epochs,
            None,
            "fashion-mini",
            False,
            ("a", "b", "c"),
            digest(b"weights"),
            DATA.digest,
            DATA.test_digest,
        )
    )
    preprocessing = Preprocessing.of((0.5,), (0.25,), (8, 8))
    rows = []
    for suffix, precision in (("", "fp32"), (".int8", "int8")):
        model = run.model_path(chosen.name + suffix, "onnx")
        model.parent.mkdir(exist_ok=True)
        model.write_bytes(b"x" * 1500)
        card = ModelCard(
            chosen.genotype,
            SPEC,
            preprocessing,
            ("a", "b", "c"),
            1e-6,
            {"onnx": "1.0"},
            digest(model.read_bytes()),
            precision,
            "asymmetric" if precision == "int8" else None,
            accuracy=accuracy,
            test_images=100,
        )
        card.write(model.with_name(f"{model.name}.json"))
        known = {"predicted_ms": estimate.predicted_ms, "bound_ms": estimate.bound_ms, "limit_ms": limit}
        rows.append(
            Verified(
                name=chosen.name + suffix,
                device=estimate.device,
                precision=precision,
                threads=1,
                accuracy=accuracy - (0.01 if suffix else 0.0),
                parameters=chosen.parameters,
                **(known if not suffix else dict.fromkeys(known)),
                measured_ms=1.02 * estimate.predicted_ms * (2 if suffix else 1),
                state=estimate.state,
                usual_ms=1.3 * estimate.predicted_ms * (2 if suffix else 1),
                spread=0.01,
                drift=0.013,
                test_images=100,
            )
        )
    return rows


@pytest.fixture(autouse=True, scope="module")
def one_descent() -> Iterator[None]:
    """Let each search of a module descend once to its smallest network, also in the fixtures of the module."""
    with pytest.MonkeyPatch.context() as patch:
        descend_once(patch)
        yield
