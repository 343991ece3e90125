"""cars-hw: the most accurate convolutional network that keeps to a latency budget on your device.

The steps are those of the command line::

    from pathlib import Path
    import cars_hw

    table = cars_hw.profile(cars_hw.open_device("ort"), cars_hw.NETWORKS["quick"])
    data = cars_hw.DataSource("fashion-mini")
    plan = cars_hw.SearchPlan(
        data=data,
        network=table.spec,
        preset=cars_hw.PRESETS["quick"],
        budgets=(cars_hw.Budget(table, limit_ms=0.5),),
    )
    run = cars_hw.run_search(plan, Path("run"))
    cars_hw.train_run(run, data=data)
    cars_hw.export_run(run, data=data)
    for model in cars_hw.verify_run(run, cars_hw.open_device("ort")):
        print(model.name, model.accuracy, model.measured_ms, model.within_budget)

Names are imported when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cars_hw.config.measurement import MeasurePlan
    from cars_hw.config.presets import PRESETS, Preset
    from cars_hw.data import DataBundle, load
    from cars_hw.devices import Device, FakeDevice, open_device
    from cars_hw.errors import CarsHwError
    from cars_hw.export.export import export_genotype
    from cars_hw.latency import LatencyTable, Predictor, measure_genotypes, profile, smallest, validate
    from cars_hw.nn.cost import Cost, network_cost
    from cars_hw.nn.network import Network
    from cars_hw.nn.supernet import SuperNet
    from cars_hw.pipeline.export import export_run
    from cars_hw.pipeline.plan import Budget, DataSource, SearchPlan
    from cars_hw.pipeline.run_folder import RunFolder
    from cars_hw.pipeline.search import run_search
    from cars_hw.pipeline.train import load_trained, train_run
    from cars_hw.pipeline.verify import verify_run
    from cars_hw.report.page import write_report
    from cars_hw.space.genotype import Edge, Genotype
    from cars_hw.space.network_spec import NETWORKS, NetworkSpec
    from cars_hw.space.search_space import SearchSpace
    from cars_hw.space.zoo import resolve
    from cars_hw.studies.baselines import compare_run
    from cars_hw.studies.rank_correlation import rank_run

_WHERE = {
    "Budget": "pipeline.plan",
    "CarsHwError": "errors",
    "Cost": "nn.cost",
    "DataBundle": "data",
    "DataSource": "pipeline.plan",
    "Device": "devices",
    "Edge": "space.genotype",
    "FakeDevice": "devices",
    "Genotype": "space.genotype",
    "LatencyTable": "latency",
    "MeasurePlan": "config.measurement",
    "NETWORKS": "space.network_spec",
    "Network": "nn.network",
    "NetworkSpec": "space.network_spec",
    "PRESETS": "config.presets",
    "Predictor": "latency",
    "Preset": "config.presets",
    "RunFolder": "pipeline.run_folder",
    "SearchPlan": "pipeline.plan",
    "SearchSpace": "space.search_space",
    "SuperNet": "nn.supernet",
    "compare_run": "studies.baselines",
    "export_genotype": "export.export",
    "export_run": "pipeline.export",
    "load": "data",
    "load_trained": "pipeline.train",
    "measure_genotypes": "latency",
    "network_cost": "nn.cost",
    "open_device": "devices",
    "profile": "latency",
    "rank_run": "studies.rank_correlation",
    "resolve": "space.zoo",
    "run_search": "pipeline.search",
    "smallest": "latency",
    "train_run": "pipeline.train",
    "validate": "latency",
    "verify_run": "pipeline.verify",
    "write_report": "report.page",
}

__all__ = [
    "NETWORKS",
    "PRESETS",
    "Budget",
    "CarsHwError",
    "Cost",
    "DataBundle",
    "DataSource",
    "Device",
    "Edge",
    "FakeDevice",
    "Genotype",
    "LatencyTable",
    "MeasurePlan",
    "Network",
    "NetworkSpec",
    "Predictor",
    "Preset",
    "RunFolder",
    "SearchPlan",
    "SearchSpace",
    "SuperNet",
    "compare_run",
    "export_genotype",
    "export_run",
    "load",
    "load_trained",
    "measure_genotypes",
    "network_cost",
    "open_device",
    "profile",
    "rank_run",
    "resolve",
    "run_search",
    "smallest",
    "train_run",
    "validate",
    "verify_run",
    "write_report",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever the name stands for
    if name not in _WHERE:
        raise AttributeError(f"module 'cars_hw' has no attribute '{name}'")
    return getattr(import_module(f"cars_hw.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
