"""Searches on float and on int8 latency at the same budget, and both fronts measured in both precisions.

::

    .venv/bin/python benchmarks/precisions.py --device litert [--network quick] [--share 0.3] [--json PATH]

The budget is what this share of random networks keeps to in int8.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from cars_hw.config.data import DataSource
from cars_hw.config.files import write_json
from cars_hw.devices import Device, open_device
from cars_hw.latency import LatencyTable, Predictor, measure_genotypes, profile_device
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.search import run_search
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.search_space import SearchSpace
from latency import small_preset  # noqa: TID251 -- the benchmark beside this one

PRECISIONS = ("fp32", "int8")


def main() -> None:
    """Profile, search and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="litert")
    parser.add_argument("--network", choices=NETWORKS, default="quick")
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device, spec = open_device(arguments.device), NETWORKS[arguments.network]
    tables = {precision: profile_device(device, spec, precision=precision) for precision in PRECISIONS}
    rng = np.random.default_rng(0)
    drawn = [SearchSpace().sample(rng) for _ in range(500)]
    bounds = {name: [Predictor(table).bound(one) for one in drawn] for name, table in tables.items()}
    limit = float(np.quantile(bounds["int8"], arguments.share))
    shares = {name: float(np.mean(np.array(found) <= limit)) for name, found in bounds.items()}
    print(
        f"budget {limit:.4g} ms: {shares['fp32']:.0%} of random networks keep to it in float and "
        f"{shares['int8']:.0%} "
        f"in int8; their predictions' tau {kendalltau(bounds['fp32'], bounds['int8']).statistic:.2f}",
        flush=True,
    )
    preset = small_preset(32, arguments.epochs)
    record: dict[str, Any] = {"limit_ms": limit, "share_within": shares, "fronts": {}}
    for name, table in tables.items():
        target = LatencyTarget(table, limit, device)
        plan = SearchPlan(DataSource("fashion-mini"), spec, preset, (target,), proxy=True)
        with tempfile.TemporaryDirectory() as folder:
            front = run_search(plan, Path(folder) / "run").front()
        measured = {
            precision: _measured(device, tables[precision], [network.genotype for network in front])
            for precision in PRECISIONS
        }
        print(f"searched in {name}: {len(front)} networks")
        for number, network in enumerate(front):
            float_ms, int8_ms = (measured[precision][number] for precision in PRECISIONS)
            over = " over the budget" if int8_ms > limit else ""
            print(
                f"  accuracy {network.accuracy:.1%}  parameters {network.parameters:9,}  float {float_ms:.3f} ms  "
                f"int8 {int8_ms:.3f} ms{over}",
                flush=True,
            )
        record["fronts"][name] = {
            "genotypes": [network.genotype.to_darts() for network in front],
            "accuracies": [network.accuracy for network in front],
            "parameters": [network.parameters for network in front],
            "measured_ms": measured,
        }
    both = set(record["fronts"]["fp32"]["genotypes"]) & set(record["fronts"]["int8"]["genotypes"])
    print(f"{len(both)} networks are in both fronts")
    if arguments.json is not None:
        write_json(arguments.json, record)


def _measured(device: Device, table: LatencyTable, genotypes: list[Genotype]) -> list[float]:
    assert table.reference is not None
    found = measure_genotypes(
        device,
        table.spec,
        genotypes,
        precision=table.precision,
        reference=table.reference_architecture,
        expected_ms=table.reference.measured.ms,
    )
    return [taken.ms for taken in found.models]


if __name__ == "__main__":
    main()
