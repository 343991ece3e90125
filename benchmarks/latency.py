"""How accurate a latency table's predictions are on this machine.

::

    .venv/bin/python benchmarks/latency.py careful  --network cifar --table table.json [--json PATH]
    .venv/bin/python benchmarks/latency.py coarse   --network cifar [--json PATH]
    .venv/bin/python benchmarks/latency.py budgets  --table table.json [--json PATH]
    .venv/bin/python benchmarks/latency.py restless --folder DIR [--network NAME]... [--json PATH]
    .venv/bin/python benchmarks/latency.py estimators TABLE... [--json PATH]
    .venv/bin/python benchmarks/latency.py sizes    --table table.json [--network NAME] [--json PATH]

``--device litert`` does it on LiteRT (but ``coarse``, which is ONNX Runtime's).

``careful`` profiles the machine into the table (unless it is there) and validates it on 60 random networks and
the zoo. ``coarse`` does the same as tools do that measure once: one session in the running process, pinned to
nothing, and the mean of its runs. ``budgets`` searches under three budgets across the table's range, six on a table
over sizes, and measures every front again; with ``--restless`` beside a process that comes and goes. ``restless``
profiles beside such a process, three times, and compares with a table of the machine left alone. ``--same-core``
keeps the very core busy that is measured on, instead of another one. ``estimators`` compares ways to make one
figure of a model's sessions, on stored tables of one network. ``sizes`` profiles a table over sizes (8 to 48
channels and 5 to 20 cells of ``cifar``, 16 to 64 channels and 5 to 20 cells of ``imagenet``) unless it is there,
and compares it with 80 networks that took no part, spread over the logarithm of the latency; half of them have
stages of uneven depths. Then it takes sessions and networks away from the table, and says what a table of less time
would predict.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import restless_machine
from shorter_tables import error_by_time

from cars_hw.config.codec import unstructure
from cars_hw.config.data import DataSource
from cars_hw.config.files import write_json
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS, Preset
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.devices import Device, OrtDevice, Sample, open_device
from cars_hw.devices.host import ort_runtime
from cars_hw.devices.protocol import SessionCounter
from cars_hw.latency import (
    Accuracy,
    LatencyTable,
    Predictor,
    Validation,
    fresh_architectures,
    fresh_genotypes,
    measure_architectures,
    profile_device,
    validate_table,
)
from cars_hw.latency.validation import predict_all
from cars_hw.measurement.schedule import Measured
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.search import run_search
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.zoo import zoo

RANDOM_NETWORKS = 60
SIZES = {
    "cifar": SizeGrid(tuple(range(8, 49, 4)), tuple(range(5, 21))),
    "imagenet": SizeGrid(tuple(range(16, 65, 8)), tuple(range(5, 21))),
}
HELD_OUT_SIZES = 80
SIZED_PLAN = MeasurePlan(sessions=4, patience_seconds=60.0)
BUDGETS = 6
SHARES = (0.1, 0.4, 0.8)
"""A budget is what this share of random networks keeps to."""


class CoarseDevice(OrtDevice):
    """ONNX Runtime as it is timed in passing: in this process, on whichever core, and the mean of the runs."""

    def run(
        self,
        models: Sequence[Path],
        plan: MeasurePlan,
        seed: int,
        on_session: SessionCounter | None = None,
    ) -> list[Sample]:
        """Return one sample a model."""
        onnxruntime = ort_runtime.load()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        rng = np.random.default_rng(seed)
        taken = []
        for done, model in enumerate(models, start=1):
            session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            feeds = {node.name: rng.standard_normal(node.shape, np.float32) for node in session.get_inputs()}
            session.run(None, feeds)
            began = time.perf_counter()
            for _ in range(plan.min_runs):
                session.run(None, feeds)
            taken.append(Sample(round(1e3 * (time.perf_counter() - began) / plan.min_runs, 6)))
            if on_session is not None:
                on_session(done)
        return taken


ONCE = MeasurePlan(sessions=1, patience_seconds=0, block=10_000)


def held_out(table: LatencyTable) -> list[Genotype]:
    """Return random genotypes and the zoo's, without those that calibrated ``table``."""
    drawn = fresh_genotypes(table, RANDOM_NETWORKS, np.random.default_rng(1))
    taken = {network.genotype.key() for network in table.calibration} | {genotype.key() for genotype in drawn}
    published = {one.genotype.key(): one.genotype for one in zoo().values()}
    return drawn + [genotype for key, genotype in published.items() if key not in taken]


def validated(table: LatencyTable, device: Device, plan: MeasurePlan | None = None) -> Validation:
    """Validate ``table`` and print what came out."""
    result = validate_table(table, device, held_out(table), plan=plan)
    for name, accuracy in {"predictor": result.accuracy, **result.baselines}.items():
        print(
            f"  {name:18} mean error {accuracy.mean_error:6.1%}  bias {accuracy.bias:+6.1%}  "
            f"within 5% {accuracy.within_5:4.0%}  within 10% {accuracy.within_10:4.0%}  "
            f"tau {accuracy.kendall_tau:.3f}"
        )
    print(
        f"  bound held {result.coverage:.1%} (level {result.level:.0%})  noise floor {result.noise_floor:.1%}  "
        f"then and now {result.then_and_now:.1%}  drift {result.drift:+.1%}  sessions {result.noise:.1%}"
    )
    return result


def profiled(
    device: Device, network: str, plan: MeasurePlan | None = None, out: Path | None = None
) -> LatencyTable:
    """Profile ``device`` and print how long it took and how restless it was."""
    began = time.monotonic()
    table = profile_device(device, NETWORKS[network], plan=plan, out=out)
    predictor = Predictor(table)
    print(
        f"{network}: profiled in {time.monotonic() - began:.0f} s, margin {predictor.margin:.1%}, sessions differ "
        f"by {table.noise:.1%}; {restless_machine.describe(table)}; "
        f"{table.predictor.kind if table.predictor else None}"
    )
    for reason in table.quality_warnings():
        print(f"  not to be trusted: {reason}")
    return table


def careful(arguments: argparse.Namespace) -> dict[str, Any]:
    """Profile as the product does, and validate."""
    device = open_device(arguments.device)
    if arguments.table.exists():
        table = LatencyTable.read(arguments.table)
    else:
        table = profiled(device, (arguments.network or ["cifar"])[0], out=arguments.table)
    return unstructure(validated(table, device))


def coarse(arguments: argparse.Namespace) -> dict[str, Any]:
    """Profile and validate from one unpinned session and a mean."""
    device = CoarseDevice()
    return unstructure(validated(profiled(device, (arguments.network or ["cifar"])[0], ONCE), device, ONCE))


def restless(arguments: argparse.Namespace) -> dict[str, Any]:
    """Profile beside a process that comes and goes, and compare with a table of the machine left alone."""
    device = open_device(arguments.device)
    networks = arguments.network or ["quick", "cifar"]
    return {
        "networks": [
            restless_machine.restless(
                device, network, arguments.folder, arguments.repetitions, same_core=arguments.same_core
            )
            for network in networks
        ]
    }


def estimators(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare ways to make one figure of a model's sessions on stored tables."""
    return {"estimators": restless_machine.estimators(arguments.tables)}


def sizes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare a table over sizes with networks of all sizes that took no part in it."""
    device = open_device(arguments.device)
    name = (arguments.network or ["cifar"])[0]
    began = time.monotonic()
    if not arguments.table.exists():
        profile_device(device, NETWORKS[name], sizes=SIZES[name], plan=SIZED_PLAN, out=arguments.table)
    seconds = time.monotonic() - began
    table = LatencyTable.read(arguments.table)
    predictor = table.predictor
    assert predictor is not None
    assert table.sizes is not None
    print(
        f"{name} on {device.name}: profiled in {seconds:.0f} s, {len(table.entries)} operations; "
        f"{restless_machine.describe(table)}; {predictor.kind} {dict(predictor.left_out_error)}, block "
        f"{predictor.block}, cache {predictor.cache_mb} MB",
        flush=True,
    )
    networks = held_out_sizes(table)
    reference = table.reference
    assert reference is not None
    found = measure_architectures(
        device, networks, reference=table.reference_architecture, expected_ms=reference.measured.ms
    )
    return {"network": name, "seconds": seconds, **sized_errors(table, networks, found)}


def held_out_sizes(table: LatencyTable) -> list[Architecture]:
    """Return networks that took no part in ``table``, half of them with stages of uneven depths, as in a search."""
    assert table.sizes is not None
    rng = np.random.default_rng(1)
    drawn = fresh_architectures(table, table.sizes, HELD_OUT_SIZES, rng, thirds=True)
    for place in range(1, len(drawn), 2):
        genotype, network = drawn[place]
        stages = [one for one in table.sizes.stages if sum(one) == network.layers]
        depths = stages[int(rng.integers(len(stages)))]
        drawn[place] = Architecture(genotype, replace(network, depths=depths))
    return drawn


def sized_errors(table: LatencyTable, networks: Sequence[Architecture], found: Measured) -> dict[str, Any]:
    """Return and print how far the predictions of ``table`` are from what ``networks`` take."""
    times = [one.ms for one in found.models]
    predictions = predict_all(table, networks)
    accuracy = Accuracy.of([one.ms for one in predictions], times)
    drift = found.machine.slower_than_expected or 1.0
    errors = np.array([one.ms for one in predictions]) / np.array(times) - 1
    steady = float(np.abs((1 + errors) * drift - 1).mean())
    assert table.sizes is not None
    # A profile adds some kinds of operations at further numbers of channels; the others are predicted there.
    widths = {network.channels for network in table.sizes.measured_networks(table.spec)}
    between = np.array([one.network.channels not in widths for one in networks])
    uneven = np.array([one.network.depths is not None for one in networks])
    covered = float(np.mean([ms <= one.bound_ms for one, ms in zip(predictions, times, strict=True)]))
    beyond = int(np.sum(np.abs(errors) > 0.1))
    print(
        f"  {min(times):.3g} to {max(times):.3g} ms, {max(times) / min(times):.0f} times; mean error "
        f"{accuracy.mean_error:.1%}, bias {accuracy.bias:+.1%}, {beyond} of {len(errors)} beyond 10%, tau "
        f"{accuracy.kendall_tau:.3f}; {between.sum()} networks of widths that were not measured in full: "
        f"{mean_error(errors[between])}; {uneven.sum()} of uneven depths: {mean_error(errors[uneven])}; the bound "
        f"held for {covered:.1%}; reference {drift - 1:+.1%}, mean error without that {steady:.1%}"
    )
    return {
        "rows": [
            {
                "genotype": one.genotype.to_darts(),
                "channels": one.network.channels,
                "layers": one.network.layers,
                "depths": list(one.network.stages),
                "predicted_ms": guess.ms,
                "bound_ms": guess.bound_ms,
                "measured_ms": ms,
            }
            for one, guess, ms in zip(networks, predictions, times, strict=True)
        ],
        "accuracy": unstructure(accuracy),
        "steady_error": steady,
        "between": float(np.abs(errors[between]).mean()) if between.any() else None,
        "uneven": float(np.abs(errors[uneven]).mean()) if uneven.any() else None,
        "coverage": covered,
        "slower_than_table": found.machine.slower_than_expected,
        "by_time": error_by_time(table, networks, [ms / drift for ms in times], between),
    }


def mean_error(errors: np.ndarray) -> str:
    """Return the mean of absolute ``errors`` as text; a dash for none."""
    return f"{np.abs(errors).mean():.1%}" if len(errors) else "-"


def small_preset(population: int, epochs: int) -> Preset:
    """Return a search of minutes: a small SuperNet, on whatever images; what it finds is for latency to judge."""
    evolution = EvolutionSettings(
        population=population, epochs=epochs, warmup_epochs=2, epochs_per_generation=1, protection="size"
    )
    return replace(PRESETS["quick"], supernet_channels=8, supernet_layers=5, evolution=evolution)


def limits(table: LatencyTable) -> list[float]:
    """Return the budgets: shares of the networks of one size, or spread over the logarithm of a range of sizes."""
    target, rng = LatencyTarget(table), np.random.default_rng(0)
    if table.sizes is None:
        space = SearchSpace()
        bounds = [target.predict(Architecture(space.sample(rng), table.spec)).bound_ms for _ in range(1000)]
        return [float(np.quantile(bounds, share)) for share in SHARES]
    sized = ArchitectureSpace(SearchSpace(), table.sizes.largest(table.spec), table.sizes)
    bounds = [target.predict(sized.sample(rng)).bound_ms for _ in range(1000)]
    return [float(limit) for limit in np.geomspace(np.quantile(bounds, 0.05), np.quantile(bounds, 0.98), BUDGETS)]


def searched(table: LatencyTable, device: Device, epochs: int, images: str = "fashion-mini") -> dict[str, Any]:
    """Search under several budgets, and measure every front once more when its search has ended."""
    preset = small_preset(24, epochs)
    data = DataSource(images)
    if table.sizes is not None:
        # Short trainings choose the front: few epochs under shared weights prefer small networks.
        preset = replace(preset, final=FinalSettings(0.5))
    found = []
    for limit in limits(table):
        target = LatencyTarget(table, limit, device)
        plan = SearchPlan(data, table.spec, preset, (target,), proxy=True, sizes=table.sizes)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            run = run_search(plan, Path(folder) / "run")
            front, rejected, larger = run.front(), run.rejected(), run.larger()
        assert table.reference is not None
        again = measure_architectures(
            device,
            [network.architecture for network in front],
            reference=table.reference_architecture,
            expected_ms=table.reference.measured.ms,
        ).models
        over = [taken.ms for taken in again if taken.ms > limit]
        best = max(zip(front, again, strict=True), key=lambda pair: pair[0].accuracy)
        used = best[1].ms / limit
        record = {
            "limit_ms": limit,
            "seconds": time.monotonic() - began,
            "used": used,
            "sizes": [network.spec.describe() for network in front],
            "front": [asdict(network.latency_estimates[0]) for network in front],
            "rejected": [asdict(network.latency_estimates[0]) for network in rejected],
            "again_ms": [taken.ms for taken in again],
            "larger": unstructure(larger),
        }
        found.append(record)
        print(
            f"budget {limit:.4g} ms: {len(front)} networks, {len(rejected)} rejected; measured again, {len(over)} "
            f"over; {min(record['again_ms']):.4g} to {max(record['again_ms']):.4g} ms, the most accurate uses "
            f"{used:.0%} ({best[0].spec.describe()}); {record['seconds']:.0f} s",
            *(f"{one.sentence}." for one in larger),
            sep="\n  ",
            flush=True,
        )
    return {"searches": found}


def budgets(arguments: argparse.Namespace) -> dict[str, Any]:
    """Search on the table of this machine."""
    device = open_device(arguments.device)
    beside = restless_machine.neighbour(device, 9) if arguments.restless else nullcontext()
    with beside:
        return searched(LatencyTable.read(arguments.table), device, arguments.epochs, arguments.data)


def main() -> None:
    """Run what the command line names."""
    ways = {
        "careful": careful,
        "coarse": coarse,
        "budgets": budgets,
        "restless": restless,
        "estimators": estimators,
        "sizes": sizes,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=ways)
    parser.add_argument("tables", nargs="*", type=Path, metavar="TABLE")
    parser.add_argument("--network", choices=NETWORKS, action="append")
    parser.add_argument("--device", default="ort")
    parser.add_argument("--table", type=Path, default=Path("table.json"))
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--data", default="fashion-mini", help="images of budgets; small ones for large networks")
    parser.add_argument("--restless", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("restless"))
    parser.add_argument("--same-core", action="store_true")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    record = ways[arguments.way](arguments)
    if arguments.json is not None:
        write_json(
            arguments.json,
            {"way": arguments.way, "conditions": open_device(arguments.device).conditions(), **record},
        )


if __name__ == "__main__":
    main()
