"""cars-hw: the most accurate convolutional network within a latency budget on your device.

The steps are those of the command line::

    from pathlib import Path
    import cars_hw

    table = cars_hw.profile_device(cars_hw.open_device("ort"), cars_hw.NETWORKS["quick"])
    data = cars_hw.DataSource("fashion-mini")
    plan = cars_hw.SearchPlan(
        data=data,
        network=table.spec,
        preset=cars_hw.PRESETS["quick"],
        targets=(cars_hw.LatencyTarget(table, limit_ms=0.5),),
    )
    run = cars_hw.run_search(plan, Path("run"))
    cars_hw.train_run(run, cars_hw.TrainSettings(data))
    cars_hw.export_run(run, data=data)
    for model in cars_hw.verify_run(run, cars_hw.open_device("ort")):
        print(model.name, model.accuracy, model.measured_ms, model.within_budget)

The names and their modules are listed in ``__init__.pyi``, beside this file. A module is imported when one of its
names is first used: ``import cars_hw`` loads neither numpy nor torch.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _modules() -> dict[str, str]:
    """Return the module of each public name: what the stub, which type checkers read, imports."""
    import ast
    import pkgutil

    stub = pkgutil.get_data(__name__, "__init__.pyi")
    assert stub is not None
    return {
        alias.name: node.module
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever the name stands for
    if name == "__all__":
        return sorted(_modules())
    # The import system asks for names such as __path__ before there is anything to look up.
    if name.startswith("__") or name not in _modules():
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    globals()[name] = value = getattr(import_module(_modules()[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(_modules())
