"""The speed of a search: every figure a ratio within one run, on a CPU or on a GPU.

::

    .venv/bin/python benchmarks/speed.py [--on cpu|cuda] [--rounds 3] [--only forward,step] [--paper] [--json PATH]

A SuperNet of 16 channels and 8 cells on 32x32 images (random ones: the time is the same) is held against

- the DARTS way: all eight operations on every edge, weighted by the softmax of the architecture's parameters,
- the plain way: one architecture at a time, NCHW, float32, PyTorch's own modules, images from worker processes,
- the floor: floating-point operations and bytes over what this machine reaches on a large product and a large copy.

All ways have the same weights and take turns. ``--paper`` runs three generations of the paper's search (population
128, 10 epochs of 25,000 images) and says how long all of it takes; it is meant for a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

# Read when torch is loaded. A thread that spins while it waits for one whose core is taken by another process
# waits for a time slice at every operation, and all ways would be timed by the neighbours' habits.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "passive")

import torch
import torch.nn.functional as F
from floor import Machine, count, measure_machine
from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from timing import Progress, machine, ratios, seconds, spread, take_turns
from torch import Tensor
from ways import DartsWay, PlainWay, without_gradients

from cars_hw.config.codec import unstructure
from cars_hw.config.files import write_json
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.search import EvolutionSettings
from cars_hw.config.training import SharedTraining
from cars_hw.data import DataBundle, Dataset
from cars_hw.devices import FakeDevice
from cars_hw.evolution.objectives import CostObjective
from cars_hw.evolution.pnsga3 import ObjectiveNormalization, reference_directions, survive
from cars_hw.evolution.search import Search
from cars_hw.latency import Predictor, profile_device
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.genotype import NODES, Edge, Genotype
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.memory import keep_freed_memory
from cars_hw.training.recorded_passes import RECORD_AT, PlainPasses
from cars_hw.training.shared_evaluation import evaluate
from cars_hw.training.shared_weights import SuperNetWeights

SPEC = NetworkSpec(16, 8, (32, 32))
DARTS, PLAIN, OURS, ONE_BY_ONE = "the DARTS way", "the plain way", "cars-hw", "one by one"
ITS_OWN = "a SuperNet of its size"
HEAVIEST = tuple((Edge("sep_conv_5x5", 0), Edge("sep_conv_5x5", 1)) for _ in range(NODES))


@dataclass(frozen=True)
class Sizes:
    """How much of everything is run."""

    batch: int
    train: int
    evaluated: int
    evaluate_batch: int
    architectures: int
    population: int
    generation: int


SIZES = {
    "cpu": Sizes(64, 512, 128, 64, architectures=8, population=64, generation=8),
    "cuda": Sizes(128, 25_000, 5_000, 1_000, architectures=16, population=64, generation=64),
}
REQUIRED = {
    "cpu": {
        ("forward", DARTS): 25.0,
        ("forward", PLAIN): 2.5,
        ("step", DARTS): 45.0,
        ("step", PLAIN): 2.5,
        ("population", ONE_BY_ONE): 1.5,
        ("sizes_within", ITS_OWN): 1 / 1.15,
    },
    "cuda": {("step", PLAIN): 4.0, ("population", PLAIN): 4.0},
}


class Bench:
    """The contenders, and what they are run on."""

    def __init__(self, on: str, rounds: int) -> None:
        self.on, self.rounds, self.sizes = on, rounds, SIZES[on]
        self.device = torch.device(on)
        self.wait: Callable[[], object] = torch.cuda.synchronize if on == "cuda" else lambda: None
        self.progress = Progress()
        torch.manual_seed(0)
        # As the command line does; the other ways gain by it, too.
        keep_freed_memory()
        rng = np.random.default_rng(0)
        self.bundle = random_images(self.sizes.train, self.sizes.evaluated)
        self.weights = SuperNetWeights(
            SuperNet(SPEC),
            self.bundle,
            SharedTraining(
                batch_size=self.sizes.batch,
                validation_fraction=self.sizes.evaluated / (self.sizes.train + self.sizes.evaluated),
                evaluation_batch=self.sizes.evaluate_batch,
            ),
            epochs=100,
            seed=0,
            device=self.device,
        )
        self.supernet = self.weights.supernet
        evaluated = self.bundle.train.select(torch.arange(self.sizes.evaluated))
        self.plain = PlainWay(self.supernet, self.bundle, self.sizes.batch, evaluated, self.sizes.evaluate_batch)
        self.genotypes = [SearchSpace().sample(rng) for _ in range(self.sizes.architectures)]
        self.people = [SearchSpace().sample(rng) for _ in range(self.sizes.population)]
        shape = (self.sizes.batch, SPEC.in_channels, *SPEC.resolution)
        self.images = torch.randn(shape, device=self.device)
        self.pixels_last = self.images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(SPEC.classes, (self.sizes.batch,), device=self.device)

    def turns(self, what: str, contenders: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Run all once, because a first call plans and allocates, and then in turns."""
        for name, run in contenders.items():
            self.progress(f"{what}, warm-up: {name}")
            run()
        return take_turns(
            contenders, self.rounds, lambda text: self.progress(text and f"{what}, {text}"), self.wait
        )

    def forward(self) -> dict[str, Any]:
        """A forward pass."""
        darts = DartsWay(self.supernet)

        def each(run: Callable[[Genotype], Tensor]) -> Callable[[], object]:
            return without_gradients(lambda: [run(genotype) for genotype in self.genotypes])

        contenders = {
            DARTS: without_gradients(lambda: darts(self.images)),
            PLAIN: each(lambda genotype: self.plain.forward(self.images, genotype)),
            OURS: each(self._ours),
        }
        work = count(contenders[OURS])
        return self._compared(self.turns("forward", contenders), len(self.genotypes), work.floor_seconds)

    def _ours(self, genotype: Genotype) -> Tensor:
        with self.weights._autocast():
            return self.supernet(self.pixels_last, genotype)

    def step(self) -> dict[str, Any]:
        """A training step, on a batch that is there."""
        darts = DartsWay(self.supernet)
        # SGD leaves a parameter without a gradient alone; here all have one.
        optimiser = torch.optim.SGD(darts.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)

        def all_at_once() -> None:
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(darts(self.images), self.labels).backward()
            optimiser.step()

        def plainly() -> None:
            for genotype in self.genotypes:
                self.plain.step(self.images, self.labels, genotype)

        def ours() -> None:
            for genotype in self.genotypes:
                self.weights.step(self.pixels_last, self.labels, [Architecture(genotype, SPEC)])

        for _ in range(RECORD_AT if self.weights.records else 0):
            ours()
        contenders = {DARTS: all_at_once, PLAIN: plainly, OURS: ours}
        # What a recorded pass does is what it did when it was recorded; counted is a plain one.
        with plain_passes(self.weights):
            work = count(ours)
        return self._compared(self.turns("step", contenders), len(self.genotypes), work.floor_seconds)

    def loaded(self) -> dict[str, Any]:
        """Training steps with the loading of their images."""
        steps = 8 if self.on == "cpu" else 64
        plain_order, order = itertools.cycle(self.genotypes), itertools.cycle(self.genotypes)

        def ours() -> None:
            batches = self.weights.batches.epoch(self.weights.generator)
            for images, labels in itertools.islice(batches, steps):
                self.weights.step(images, labels, [Architecture(next(order), SPEC)])

        contenders = {PLAIN: lambda: self.plain.train(plain_order, steps), OURS: ours}
        return self._compared(self.turns("steps with loading", contenders), 1)

    def sizes_within(self) -> dict[str, Any]:
        """A training step of a small network, in a SuperNet of larger ones and in a SuperNet of its size."""
        small = NetworkSpec(8, 5, (16, 16))
        images = torch.rand(self.sizes.batch, *small.input_shape, device=self.device)
        images = images.contiguous(memory_format=torch.channels_last)
        architectures = [Architecture(genotype, small) for genotype in self.genotypes]

        def stepping(spec: NetworkSpec) -> Callable[[], None]:
            part = Dataset(self.bundle.train.images[:, :, ::2, ::2].contiguous(), self.bundle.train.labels)
            bundle = replace(self.bundle, train=part, test=part)
            settings = SharedTraining(batch_size=self.sizes.batch)
            weights = SuperNetWeights(
                SuperNet(spec), bundle, settings, epochs=100, seed=0, device=self.device, over_sizes=spec != small
            )

            def steps() -> None:
                for architecture in architectures:
                    weights.step(images, self.labels, [architecture])

            for _ in range(RECORD_AT if weights.records else 0):
                steps()
            return steps

        contenders = {ITS_OWN: stepping(small), OURS: stepping(NetworkSpec(24, 8, (16, 16)))}
        return self._compared(self.turns("sizes within", contenders), len(architectures))

    def population(self) -> dict[str, Any]:
        """The judging of a population."""
        batches = list(self.weights._full)

        def ours(people: list[Genotype]) -> list[float]:
            architectures = [Architecture(genotype, SPEC) for genotype in people]
            return evaluate(self.weights.slices, architectures, batches, self.weights._autocast)

        def one_by_one() -> None:
            with torch.inference_mode():
                for genotype in self.people:
                    for images, labels in batches:
                        with self.weights._autocast():
                            hits = self.supernet(images, genotype).argmax(dim=1) == labels
                        hits.sum().item()

        contenders = {
            PLAIN: lambda: self.plain.evaluate(self.people),
            ONE_BY_ONE: one_by_one,
            OURS: lambda: ours(self.people),
        }
        taken = self.turns("population", contenders)
        found = self._compared(taken, 1)
        images = len(self.people) * self.sizes.evaluated
        found["images_a_second"] = {name: images / spread(values)["median"] for name, values in taken.items()}
        return found

    def generation(self) -> dict[str, Any]:
        """One whole generation, and what survival and table look-ups take of it."""
        table = profile_device(FakeDevice(), NETWORKS["quick"], calibration=8, plan=MeasurePlan(sessions=1))
        predictor = Predictor(table)
        cost = CostObjective("latency", "ms", lambda one: predictor.predict(one.genotype).ms)
        population, people = self.sizes.generation, itertools.cycle(self.people)
        settings = EvolutionSettings(population, 100, 1, 1, "size")
        search = Search(ArchitectureSpace(SearchSpace(), NETWORKS["quick"]), [cost], self.weights, settings, seed=0)
        search.evolve()

        def plainly() -> None:
            self.plain.evaluate([next(people) for _ in range(2 * population)])
            self.plain.train(people, len(self.weights.batches))

        found = self._compared(self.turns("generation", {PLAIN: plainly, OURS: search.evolve}), 1)
        found["judged"], found["steps"] = 2 * population, len(self.weights.batches)
        return found

    def survival(self) -> dict[str, Any]:
        """The survival step of a population of 128, against pymoo's NSGA-III."""
        rng = np.random.default_rng(0)
        rows = rng.random((256, 2))
        directions = reference_directions(2, 128)

        def ours() -> None:
            survive(
                rows,
                None,
                128,
                "size",
                reference_directions=directions,
                normalization=ObjectiveNormalization(2),
                random_state=np.random.default_rng(0),
            )

        def theirs() -> None:
            survival = ReferenceDirectionSurvival(directions)
            survival.do(
                Problem(n_var=1, n_obj=2), Population.new(F=rows, X=rows[:, :1]), n_survive=128, random_state=rng
            )

        return self._compared(self.turns("survival", {"pymoo": theirs, OURS: ours}), 1)

    def table(self) -> dict[str, Any]:
        """Latency and bound of 128 architectures nobody has seen, against counting their multiply-adds."""
        from cars_hw.nn.cost import network_cost

        table = profile_device(FakeDevice(), NETWORKS["cifar"], calibration=8, plan=MeasurePlan(sessions=1))
        rng = np.random.default_rng(1)
        predictor = Predictor(table)

        def ours() -> None:
            for _ in range(128):
                genotype = SearchSpace().sample(rng)
                predictor.predict(genotype)

        def counting() -> None:
            for _ in range(128):
                network_cost(NETWORKS["cifar"], SearchSpace().sample(rng))

        return self._compared(self.turns("table", {"multiply-adds": counting, OURS: ours}), 1)

    def start(self) -> dict[str, Any]:
        """The start of the command line, against loading torch."""

        def running(*command: str) -> Callable[[], object]:
            return lambda: subprocess.run([sys.executable, *command], check=True, capture_output=True)

        contenders = {"import torch": running("-c", "import torch"), OURS: running("-m", "cars_hw", "--help")}
        return self._compared(self.turns("start", contenders), 1)

    def memory(self) -> dict[str, Any]:
        """What the largest architecture keeps for the way back, in float32, for a batch of 128."""
        seen: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        images = torch.randn(128, SPEC.in_channels, *SPEC.resolution, device=self.device)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self.supernet(
                images.contiguous(memory_format=torch.channels_last), Genotype(HEAVIEST, HEAVIEST)
            ).sum()
        del loss
        weights = sum(one.numel() * one.element_size() for one in self.supernet.parameters())
        return {"kept_for_backward_mb": sum(seen.values()) / 2**20, "weights_mb": weights / 2**20}

    def _compared(
        self,
        taken: dict[str, list[float]],
        architectures: int,
        floor: Callable[[Machine], float] | None = None,
    ) -> dict[str, Any]:
        # The DARTS way is run once where the others run one architecture after the other.
        each = {
            name: [v / (1 if name == DARTS else architectures) for v in values] for name, values in taken.items()
        }
        found: dict[str, Any] = {
            "seconds": {name: spread(values) for name, values in each.items()},
            "ratios": {name: spread(ratios(each[name], [each[OURS]])) for name in each if name != OURS},
        }
        if floor is not None:
            found["floor_s"] = floor(self.machine) / architectures
            found["share_of_floor"] = found["floor_s"] / found["seconds"][OURS]["median"]
        return found

    @property
    def machine(self) -> Machine:
        """What this machine reaches; measured once."""
        if not hasattr(self, "_machine"):
            dtype = torch.bfloat16 if self.on == "cuda" else torch.float32
            self._machine = measure_machine(self.device, dtype, self.wait)
        return self._machine


def random_images(train: int, evaluated: int) -> DataBundle:
    """Return so many random images of 32x32 pixels for both parts of a search."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (train + evaluated, 3, 32, 32), dtype=torch.uint8, generator=generator)
    part = Dataset(images, torch.arange(train + evaluated) % 10)
    return DataBundle("random", part, part, tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3)


@contextmanager
def plain_passes(weights: SuperNetWeights) -> Iterator[None]:
    """Let ``weights`` record nothing for as long as the block lasts."""
    before = weights.passes
    weights.passes = PlainPasses(weights.supernet, weights._autocast)
    try:
        yield
    finally:
        weights.passes = before


def paper(bench: Bench) -> dict[str, Any]:
    """Run three generations of the paper's setting, and extrapolate all of it."""
    preset = PRESETS["paper"]
    evolution = preset.evolution
    weights = SuperNetWeights(
        SuperNet(SPEC), random_images(25_000, 25_000), preset.training, epochs=500, seed=0, device=bench.device
    )
    table = profile_device(FakeDevice(), NETWORKS["cifar"], calibration=8, plan=MeasurePlan(sessions=1))
    predictor = Predictor(table)
    cost = CostObjective("latency", "ms", lambda one: predictor.predict(one.genotype).ms)
    search = Search(ArchitectureSpace(SearchSpace(), NETWORKS["cifar"]), [cost], weights, evolution, seed=0)
    search.warm_up()
    warm_up = seconds(search.warm_up, bench.wait)
    taken = []
    for number in range(3):
        bench.progress(f"the paper's setting, generation {number + 1} of 3")
        taken.append(seconds(search.evolve, bench.wait))
    finalists = seconds(search.finalists, bench.wait)
    whole = warm_up * evolution.warmup_epochs + sum(taken) / 3 * evolution.generations + finalists
    most = torch.cuda.max_memory_reserved() / 2**20 if bench.on == "cuda" else None
    return {
        "warm_up_epoch_s": warm_up,
        "generations_s": taken,
        "finalists_s": finalists,
        "extrapolated_minutes": whole / 60,
        "required_minutes": 15,
        "gpu_memory_mb": most,
    }


WAYS = ("forward", "step", "sizes_within", "loaded", "population", "generation", "survival", "table", "start")


def rows(name: str, found: dict[str, Any], on: str) -> Iterator[str]:
    """Yield the lines of the table for one measurement."""
    ours = found["seconds"][OURS]["median"]
    share = f", {found['share_of_floor']:.0%} of the floor's speed" if "share_of_floor" in found else ""
    for other, ratio in found["ratios"].items():
        required = REQUIRED[on].get((name, other))
        said = (
            ""
            if required is None
            else f"  required {required:g}{'' if ratio['median'] >= required else ': missed'}"
        )
        yield (
            f"{name:13}{1e3 * ours:12.4g} ms   {ratio['median']:7.2f} times as fast as {other:14}"
            f"({ratio['least']:.2f} to {ratio['most']:.2f}){said}"
        )
    if share:
        yield f"{'':13}{share[2:]} ({1e3 * found['floor_s']:.3g} ms)"


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=SIZES, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the figures and the machine to this file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(WAYS), help=f"some of {','.join(WAYS)}")
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--threads", type=int, help="PyTorch's threads (default: PyTorch's choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    described = machine()
    print("{cpu}, {threads} threads, {gpu}, torch {torch}, load average {load_average}".format(**described))
    bench = Bench(options.on, options.rounds)
    reached = bench.machine
    print(f"{reached.flops / 1e9:,.0f} GFLOP/s on a product, {reached.bytes / 1e9:,.1f} GB/s on a copy")
    results: dict[str, Any] = {"memory": bench.memory()}
    print("{kept_for_backward_mb:,.0f} MB kept for backward at a batch of 128".format(**results["memory"]))
    for name in options.only.split(","):
        results[name] = getattr(bench, name)()
        print("\n".join(rows(name, results[name], options.on)), flush=True)
    if "generation" in results:
        whole = results["generation"]["seconds"][OURS]["median"]
        for name in {"survival", "table"} & results.keys():
            share = results[name]["seconds"][OURS]["median"] / whole
            print(f"{name}: {share:.2%} of a generation (for 128 architectures, the generation is smaller)")
    if options.paper:
        results["paper"] = paper(bench)
        print(results["paper"])
    if options.json:
        sizes = {name: getattr(bench.sizes, name) for name in bench.sizes.__dataclass_fields__}
        rates = {"flops": reached.flops, "bytes": reached.bytes}
        write_json(
            options.json,
            {"machine": {**described, **rates}, "network": unstructure(SPEC), "sizes": sizes, **results},
        )


if __name__ == "__main__":
    main()
