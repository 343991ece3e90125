"""The SuperNet run along one architecture, against the same SuperNet computed the DARTS way.

::

    .venv/bin/python benchmarks/supernet.py [--json PATH] [--batch 64] [--channels 16] [--layers 8] [--repeats N]

The DARTS way is what differentiable search does in each step: all eight operations on every edge, weighted by
the softmax of the architecture's parameters, every node the sum over all that it could look back at; activations
in NCHW, every convolution as PyTorch has it. Both have the same weights and get the same images, and one
round runs the slow way once and then every architecture once.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Read when torch is loaded. A thread that spins while it waits for one whose core is taken by another process
# waits for a time slice at every operation, and both ways would be timed by the neighbours' habits.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "passive")

import torch
import torch.nn.functional as F
from timing import Progress, machine, ratios, spread, take_turns
from torch import Tensor, nn

from cars_hw.files import write_json
from cars_hw.genotype import NODES, OPERATIONS, Genotype
from cars_hw.network import run_stem
from cars_hw.operations import Depthwise, DilatedDepthwise, FactorizedReduce
from cars_hw.space import SearchSpace
from cars_hw.spec import NetworkSpec
from cars_hw.supernet import SuperCell, SuperNet
from cars_hw.training.memory import keep_freed_memory
from cars_hw.training.shared import evaluate

REQUIRED = {"forward": 20.0, "step": 30.0}
IMAGE = (32, 32)
EDGES = NODES * (NODES + 3) // 2
DARTS = "the DARTS way"


class DartsWay(nn.Module):
    """The weights of a SuperNet, all operations on all edges."""

    def __init__(self, supernet: SuperNet) -> None:
        super().__init__()
        self.spec = supernet.spec
        self.supernet = copy.deepcopy(supernet).to(memory_format=torch.contiguous_format)
        _use_plain_modules(self.supernet)
        # One row a kind of cell, as in DARTS: all normal cells share theirs, and so do the reductions.
        self.alphas = nn.Parameter(1e-3 * torch.randn(2, EDGES, len(OPERATIONS)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of the mixture of all architectures."""
        weights = self.alphas.softmax(dim=-1)
        before, last = run_stem(self.supernet.stem, x)
        for index, cell in enumerate(self.supernet.cells):
            reduction = index in self.spec.reductions
            before, last = last, _run_mixed(cell, before, last, weights[int(reduction)], reduction)
        return self.supernet.classifier(last.mean(dim=(2, 3)))


def _run_mixed(cell: SuperCell, before: Tensor, last: Tensor, weights: Tensor, reduction: bool) -> Tensor:
    states = [cell.preprocess_0(before), cell.preprocess_1(last)]
    edges = iter(weights)
    for node in range(NODES):
        mixed = [
            _mix(cell, (node, source), states[source], next(edges), 2 if reduction and source < 2 else 1)
            for source in range(node + 2)
        ]
        states.append(sum(mixed[1:], start=mixed[0]))
    return torch.cat(states[2:], dim=1)


def _mix(cell: SuperCell, edge: tuple[int, int], state: Tensor, weights: Tensor, stride: int) -> Tensor:
    values = []
    for name, weight in zip(OPERATIONS, weights, strict=True):
        if name == "none":
            values.append(weight * state[:, :, ::stride, ::stride].mul(0.0))
        else:
            values.append(weight * cell.operation(*edge, name)(state))
    return sum(values[1:], start=values[0])


class _PlainReduce(nn.Module):
    """FactorizedReduce as DARTS writes it."""

    def __init__(self, reduce: FactorizedReduce) -> None:
        super().__init__()
        self.conv_1, self.conv_2, self.bn = reduce.conv_1, reduce.conv_2, reduce.bn

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.bn(torch.cat((self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])), dim=1))


def _use_plain_modules(module: nn.Module) -> None:
    """Replace every module that cars_hw computes in its own way by PyTorch's, with the same weights."""
    for name, child in module.named_children():
        if isinstance(child, Depthwise | DilatedDepthwise):
            plain = nn.Conv2d(
                child.in_channels,
                child.out_channels,
                child.kernel_size,
                child.stride,
                child.padding,
                child.dilation,
                child.groups,
                bias=False,
            )
            plain.weight = child.weight
            setattr(module, name, plain)
        elif isinstance(child, FactorizedReduce):
            setattr(module, name, _PlainReduce(child))
        else:
            _use_plain_modules(child)


def without_gradients(forward: Callable[[], Tensor]) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            forward()

    return run


def training_step(forward: Callable[[], Tensor], module: nn.Module, labels: Tensor) -> Callable[[], object]:
    # SGD leaves a parameter without a gradient alone, so only the path's are updated.
    optimiser = torch.optim.SGD(module.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(forward(), labels).backward()
        optimiser.step()

    return run


def measure(spec: NetworkSpec, batch: int, genotypes: list[Genotype], repeats: int) -> dict[str, Any]:
    """Return seconds and ratios of a forward pass and of a training step."""
    torch.manual_seed(0)
    # As the command line does; the slow way gains by it, too.
    keep_freed_memory()
    supernet = SuperNet(spec)
    darts = DartsWay(supernet)
    images = torch.randn(batch, spec.in_channels, *spec.resolution)
    pixels_last = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(spec.classes, (batch,))

    def along(genotype: Genotype) -> Callable[[], Tensor]:
        return lambda: supernet(pixels_last, genotype)

    def all_at_once() -> Tensor:
        return darts(images)

    paths = {f"architecture {number + 1}": along(genotype) for number, genotype in enumerate(genotypes)}
    results = {}
    progress = Progress()
    for what, required in REQUIRED.items():
        if what == "forward":
            contenders = {name: without_gradients(run) for name, run in {DARTS: all_at_once, **paths}.items()}
        else:
            contenders = {DARTS: training_step(all_at_once, darts, labels)}
            contenders |= {name: training_step(run, supernet, labels) for name, run in paths.items()}
        # The first call plans convolutions and grows the heap: the slow way's first step takes twice as long.
        for name, run in contenders.items():
            progress(f"{what}, warm-up: {name}")
            run()
        taken = take_turns(contenders, repeats, lambda text, what=what: progress(text and f"{what}, {text}"))
        slow, fast = taken[DARTS], [taken[name] for name in paths]
        results[what] = {
            "darts_seconds": spread(slow),
            "path_seconds": spread([value for series in fast for value in series]),
            "ratio": spread(ratios(slow, fast)),
            "required_ratio": required,
            "samples": taken,
        }
    return results


def judge(spec: NetworkSpec, genotypes: list[Genotype], images: int, repeats: int) -> dict[str, Any]:
    """Return how much sooner a population is judged together than by one call after the other."""
    torch.manual_seed(0)
    supernet = SuperNet(spec).train()
    pixels = torch.randn(images, spec.in_channels, *spec.resolution).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(spec.classes, (images,))
    batches = [(pixels, labels)]

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", enabled=False)

    def one_by_one() -> None:
        for genotype in genotypes:
            evaluate(supernet, [genotype], batches, autocast)

    def together() -> None:
        evaluate(supernet, genotypes, batches, autocast)

    def plainly() -> None:
        # With all of torch's threads in every operation, as a loop over a validation set is written.
        with torch.inference_mode():
            for genotype in genotypes:
                (supernet(pixels, genotype).argmax(dim=1) == labels).sum().item()

    contenders = {"one by one": one_by_one, "in a plain loop": plainly, "together": together}
    evaluate(supernet, genotypes[:2], batches, autocast)
    taken = take_turns(contenders, repeats, Progress())
    return {
        "images_a_second": {
            name: len(genotypes) * images / spread(values)["median"] for name, values in taken.items()
        },
        "ratio": spread(ratios(taken["in a plain loop"], [taken["together"]])),
        "samples": taken,
    }


def print_table(results: dict[str, Any], batch: int) -> None:
    print(f"{'':14}{'DARTS way':>14}{'one path':>14}{'ratio':>9}{'least..most':>16}{'required':>10}")
    for what, result in results.items():
        slow, fast = (1e3 * result[name]["median"] / batch for name in ("darts_seconds", "path_seconds"))
        ratio = result["ratio"]
        print(
            f"{what:14}{slow:8.1f} ms/im{fast:8.2f} ms/im{ratio['median']:8.1f}x"
            f"{ratio['least']:8.1f}..{ratio['most']:<6.1f}{result['required_ratio']:9.0f}x"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="One path through the SuperNet against all operations at once.")
    parser.add_argument("--json", type=Path, help="write the figures and the machine to this file")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--architectures", type=int, default=8)
    parser.add_argument("--population", type=int, default=64)
    parser.add_argument("--threads", type=int, help="PyTorch's threads (default: PyTorch's choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    spec = NetworkSpec(channels=options.channels, layers=options.layers, resolution=IMAGE)
    rng = np.random.default_rng(0)
    genotypes = [SearchSpace().sample(rng) for _ in range(options.architectures)]
    described = machine()
    print("{cpu}, {threads} threads, torch {torch}, load average {load_average}".format(**described))
    print(f"{spec.describe()}; batch {options.batch}; {len(genotypes)} architectures, {options.repeats} rounds")
    results = measure(spec, options.batch, genotypes, options.repeats)
    print_table(results, options.batch)
    population = [SearchSpace().sample(rng) for _ in range(options.population)]
    judged = judge(spec, population, options.batch, options.repeats)
    speeds = ", ".join(f"{name} {speed:,.0f}" for name, speed in judged["images_a_second"].items())
    print(
        f"judging {len(population)} architectures, images a second: {speeds}; {judged['ratio']['median']:.2f} times"
    )
    results["judging"] = judged
    if options.json:
        settings = {"network": spec.to_dict(), "batch": options.batch, "rounds": options.repeats}
        write_json(options.json, {"machine": described, **settings, "results": results})
    reached = [results[what]["ratio"]["median"] >= required for what, required in REQUIRED.items()]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
