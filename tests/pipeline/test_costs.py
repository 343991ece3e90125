"""Costs by name, with limits and from other packages, through search, resume, training and report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.training import Recipe
from cars_hw.errors import BudgetError, InputError, RunError
from cars_hw.evolution.objectives import CostObjective
from cars_hw.export.memory import activation_bytes
from cars_hw.nn.cost import network_cost
from cars_hw.pipeline.costs import COSTS, GROUP, cost_names, named_objective, network_cost_of, parse_cost, unit_of
from cars_hw.pipeline.objectives import find_anchor
from cars_hw.pipeline.plan import SearchPlan, search_settings
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.search import run_search
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.train import train_run
from cars_hw.plugins import load_plugin
from cars_hw.report.data import Cost
from cars_hw.report.page import write_report
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.zoo import resolve_genotype

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)
PRESET = replace(
    PRESETS["quick"],
    evolution=EvolutionSettings(4, epochs=3, warmup_epochs=1, epochs_per_generation=1, protection="size"),
    training=replace(PRESETS["quick"].training, batch_size=64, evaluation_images=16),
    recipe=Recipe(epochs=1, batch_size=64, learning_rate=0.1, crop_padding=0),
    final=FinalSettings(0),
)
PLUGIN = """
import numpy

from cars_hw import NetworkCost


def convolutions(architecture, precision):
    cells = architecture.genotype.normal, architecture.genotype.reduce
    return sum("conv" in edge.operation for cell in cells for node in cell for edge in node)


CONVOLUTIONS = NetworkCost("edges", "edges that are convolutions", convolutions)
NEGATIVE = NetworkCost("edges", "no cost", lambda architecture, precision: -1.0)
RAISING = NetworkCost("edges", "raises", lambda architecture, precision: {}["weights"])
NUMPY = NetworkCost("edges", "NumPy's", lambda architecture, precision: numpy.float32(0.5))
NOTHING = 3
"""


class Stopped(Exception):
    """What stands for a kill."""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with a cost: a module, and the entry points beside it."""
    folder = tmp_path / "site"
    (folder / "edge_costs-1.0.dist-info").mkdir(parents=True)
    (folder / "edge_costs.py").write_text(PLUGIN)
    (folder / "edge_costs-1.0.dist-info" / "METADATA").write_text("Name: edge-costs\nVersion: 1.0\n")
    (folder / "edge_costs-1.0.dist-info" / "entry_points.txt").write_text(
        f"[{GROUP}]\nconvolutions = edge_costs:CONVOLUTIONS\nnothing = edge_costs:NOTHING\nbroken = edge_gone:X\n"
    )
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("edge_costs", None)


def plan(images: Path, *costs: str) -> SearchPlan:
    return SearchPlan(DataSource(str(images)), SPEC, PRESET, costs=costs)


def test_a_cost_and_its_limit() -> None:
    assert parse_cost("peak-memory") == ("peak-memory", None)
    assert parse_cost("peak-memory=0.5") == ("peak-memory", 0.5)
    for text in ("file-size=", "file-size=0", "file-size=nan", "file-size=1MB", "file-size=-1"):
        with pytest.raises(InputError, match="the limit of the cost file-size must be a number above zero"):
            parse_cost(text)
    architecture = Architecture(resolve_genotype("CARS_A"), SPEC)
    peak = named_objective("peak-memory=0.5", "fp32")
    assert (peak.name, peak.unit, peak.limit) == ("peak-memory", "MB", 0.5)
    assert peak.value(architecture) == activation_bytes(architecture) / 1e6
    assert named_objective("peak-memory", "int8").value(architecture) < 0.5 * peak.value(architecture)
    assert named_objective("parameters", "fp32").value(architecture) == (
        network_cost(SPEC, architecture.genotype).parameters / 1e6
    )


def test_plug_ins_are_found_by_name_and_what_is_wrong_is_a_line(package: Path, images: Path) -> None:
    assert cost_names() == [*COSTS, "broken", "convolutions", "nothing"]
    architecture = Architecture(resolve_genotype("CARS_A"), SPEC)
    for name in ("convolutions", "edge_costs:CONVOLUTIONS"):
        assert network_cost_of(name).value(architecture, "fp32") == architecture.genotype.to_darts().count("conv")
    for text, message in (
        (
            "size",
            r"unknown cost 'size'; known: parameters, multiply-adds, file-size, peak-memory, peak-memory-ort, en",
        ),
        ("nothing", r"the cost nothing is a int, not a cars_hw.NetworkCost"),
        ("broken", r"the plug-in edge_gone:X cannot be imported: ModuleNotFoundError: No module named 'edge_gone'"),
        ("edge_costs:GONE", r"edge_costs:GONE cannot be imported: AttributeError"),
    ):
        with pytest.raises(InputError, match=message):
            plan(images, text)
    with pytest.raises(InputError, match="parameters is named twice"):
        plan(images, "parameters", "parameters=3")
    with pytest.raises(InputError, match=r"the cost edge_costs:NEGATIVE of a network is -1.0"):
        named_objective("edge_costs:NEGATIVE", "fp32").value(architecture)
    with pytest.raises(InputError, match=r"the cost edge_costs:RAISING failed: KeyError: 'weights'"):
        named_objective("edge_costs:RAISING", "fp32").value(architecture)
    assert named_objective("edge_costs:NUMPY", "fp32").value(architecture) == 0.5
    with pytest.raises(InputError, match=r"there is no plug-in 'x' for cars_hw.costs"):
        load_plugin(GROUP, "x")
    other = package.parent / "other-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Name: other\nVersion: 2.0\n")
    (other / "entry_points.txt").write_text(f"[{GROUP}]\nconvolutions = other:X\n")
    sys.path.append(str(package.parent))
    try:
        with pytest.raises(
            InputError, match=r"several packages have a plug-in 'convolutions'.*: edge_costs.*, other:X"
        ):
            network_cost_of("convolutions")
    finally:
        sys.path.remove(str(package.parent))


def test_a_limit_beside_a_smallest_latency_of_interest_is_met_by_a_larger_size(images: Path) -> None:
    """Every network of the smallest size is cheaper than what is of interest."""
    wanted = replace(plan(images, "parameters"), sizes=SizeGrid((4, 8), (3,)))
    at_least = 2 * max(drawn_multiply_adds(wanted, wanted.architectures.smallest, number) for number in range(200))
    latency = CostObjective("latency", "ms", multiply_adds, limit=1e9, at_least=at_least)
    memory = CostObjective("memory", "MB", lambda one: one.network.channels, limit=8)
    anchor = find_anchor(wanted, [latency, memory])
    assert anchor is not None
    assert multiply_adds(anchor) >= at_least
    small = replace(memory, limit=4)
    with pytest.raises(
        BudgetError, match=r"^no architecture was found within the budget with latency of at least .* tried takes"
    ):
        find_anchor(wanted, [latency, small])
    with pytest.raises(BudgetError, match=r"memory: limit 3 MB, possible 4 MB"):
        find_anchor(wanted, [latency, replace(memory, limit=3)])


def multiply_adds(architecture: Architecture) -> float:
    return float(network_cost(architecture.network, architecture.genotype).multiply_adds)


def drawn_multiply_adds(wanted: SearchPlan, network: NetworkSpec, seed: int) -> float:
    cells = wanted.architectures.cells_for(network)
    return multiply_adds(Architecture(cells.sample(np.random.default_rng(seed)), network))


def test_a_search_keeps_to_memory_and_to_a_cost_of_a_package(
    package: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 0.0125
    wanted = plan(images, f"peak-memory={limit}", "convolutions=9", "file-size")
    monkeypatch.setattr("cars_hw.pipeline.objectives.NAMED_TRIES", 10)
    with pytest.raises(BudgetError, match=r"peak-memory: limit 0.001 MB, possible 0\.0\d+ MB"):
        run_search(plan(images, "peak-memory=0.001"), tmp_path / "none")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(package)

    def stop(stage: str, done: int, total: int) -> None:
        if stage.startswith("generation") and done > 1:
            raise Stopped

    with pytest.raises(Stopped):
        run_search(wanted, tmp_path / "run", progress=stop)
    run = run_search(wanted, tmp_path / "run", resume=True)
    assert run.configuration.costs == wanted.costs
    front = run.front()
    for network in front:
        assert list(network.costs) == ["peak-memory", "convolutions", "file-size"]
        assert network.costs["peak-memory"] == activation_bytes(network.architecture) / 1e6 <= limit
        assert network.costs["convolutions"] <= 9
    rng = np.random.default_rng(0)
    free = [activation_bytes(wanted.architectures.sample(rng)) / 1e6 for _ in range(20)]
    assert max(free) > limit
    train_run(run, TrainSettings(top=1, jobs=1))
    settings = search_settings(wanted, [])
    assert settings.costs == wanted.costs

    # What needs the package says so, and the report does without it.
    page = write_report(run).read_text(encoding="utf-8")
    assert "peak-memory, MB" in page
    assert "convolutions, edges" in page
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one != str(package)])
    sys.modules.pop("edge_costs")
    assert "file-size, MB" in write_report(RunFolder.open(run.path)).read_text(encoding="utf-8")
    with pytest.raises((RunError, InputError), match="unknown cost 'convolutions'"):
        plan(images, *wanted.costs)


def test_a_unit_is_read_without_importing_what_a_run_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helper.py").write_text("open('imported', 'w').close()\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert unit_of("helper:X") == ""
    assert not (tmp_path / "imported").exists()
    assert unit_of("file-size") == "MB"


def test_a_cost_in_milliseconds_is_no_latency_of_a_target() -> None:
    network = SimpleNamespace(costs={"dsp": 2.0}, latency_estimates=(), parameters=3e6, multiply_adds=5e6)
    assert Cost("dsp", "ms", 0).of(network) == 2.0  # type: ignore[arg-type]
    assert Cost("dsp", "ms", 0, 4.0).limit_text == "limit 4 ms"
    assert Cost("parameters", "M", 0).of(network) == 3.0  # type: ignore[arg-type]
