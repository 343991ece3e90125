"""Hold a way to train shared weights against a table of truth.

    python benchmarks/judge.py --truth benchmarks/results/truth-NAME.json --data FOLDER \
        --out benchmarks/results/judge-NAME.json [--epochs 16] [--rate 0.0125] [--batch 64] [--seeds 3]
        [--architectures 1] [--share edges|nodes|kernels] [--average 0.98] [--fair] [--sandwich]
        [--widen sizes|operations|both] [--precision bf16] [--evaluations 4]

A SuperNet is trained on uniform draws, as in the warm-up of a search. Its size is that of the table's second half,
whose networks it is judged by; with ``--over-sizes`` it is the largest of the table, draws have all sizes, and all
networks judge it. They are evaluated with its weights on the held-out images. Kendall's tau compares three orders
with that by the mean of both standalone trainings on the images that score: by shared losses, by shared accuracies,
and by the accuracies of a linear probe in place of the shared classifier. The agreement of the two trainings (the
ceiling) and the orders by parameters and by multiply-adds stand beside, and so do scores of the untrained networks
(``zero_cost.py``, and a linear probe). Errors are those of a bootstrap over the networks. A calibration by size
(``calibration.py``) predicts trained losses from shared losses and multiply-adds, by a regression on networks that
were trained; another one does so from the errors of the linear probe.

Each seed that is done is written at once, and a seed that was interrupted goes on after its last epoch. Without
``--data`` nothing is trained: what the file has is compared with the table as it is now.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from calibration import FEW, from_few, left_out
from timing import machine
from torch import nn
from truth import Task
from truth_table import COSTS, Agreement, Row, Table, agreement, halves
from zero_cost import INITIAL_WEIGHTS, scores

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.config.lock import locked
from cars_hw.config.search import Widening
from cars_hw.config.training import SharedPrecision, SharedTraining, SizeSampling, WeightSharing
from cars_hw.data import Augmentation, EvaluationBatches, TrainingBatches
from cars_hw.errors import CarsHwError, InputError
from cars_hw.nn.network import Network
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.fair_draws import FairDraws
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.widening import BY_SIZE, widened
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.linear_probe import left_out_scores
from cars_hw.training.shared_evaluation import evaluate as evaluate_together
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.threads import torch_threads

FORMAT = ChecksummedFormat("judgement of shared weights", 1, "other-out")
FIGURES = ("loss", "accuracy")
"""Of trained networks, and of those under the shared weights, which also have an accuracy by a linear probe."""
PROBE = "linear probe"
"""What the score of untrained networks by a linear probe is called."""
SCORED = 64
"""Images of the minibatch for the scores of untrained networks."""
ORDERS = {
    "by_loss": "by shared loss",
    "by_accuracy": "by shared accuracy",
    "by_probe": "by a linear probe",
    "present": "without average",
}
"""What a SuperNet orders networks by; with ``--average``, also the losses of its present weights."""


@dataclass(frozen=True)
class Settings:
    """The way to train, and what it is held against."""

    truth: str
    over_sizes: bool
    epochs: int
    batch: int
    architectures: int
    rate: float
    rate_min: float
    share: WeightSharing = "edges"
    average: float = 0.0
    fair: bool = False
    size_sampling: SizeSampling = "drawn"
    widening: Widening = "none"
    precision: SharedPrecision = "auto"

    @property
    def trained_epochs(self) -> int:
        """The epochs of the SuperNet: a step of several architectures counts as several steps of one."""
        a_step = self.architectures + (2 if self.size_sampling == "sandwich" else 0)
        return max(1, round(self.epochs / a_step))

    def shared_training(self, resolution: int, threads: int) -> SharedTraining:
        """Return the settings of the SuperNet's training, with the augmentation of the table's trainings."""
        return SharedTraining(
            batch_size=self.batch,
            architectures=self.architectures,
            learning_rate=self.rate,
            learning_rate_min=self.rate_min,
            crop_padding=max(1, resolution // 8),
            threads=threads,
            share=self.share,
            average=self.average,
            size_sampling=self.size_sampling,
            precision=self.precision,
        )


def space_of(networks: Sequence[NetworkSpec]) -> ArchitectureSpace:
    """Return the space of all sizes between those of ``networks``; of one size, if they have the same."""
    channels, layers = ({getattr(network, name) for network in networks} for name in ("channels", "layers"))
    if len(channels) == len(layers) == 1:
        return ArchitectureSpace(SearchSpace(), networks[0])
    sizes = SizeGrid(tuple(range(min(channels), max(channels) + 1, 2)), tuple(range(min(layers), max(layers) + 1)))
    return ArchitectureSpace(SearchSpace(), networks[0], sizes)


def draw(space: ArchitectureSpace | FairDraws, rng: np.random.Generator, count: int) -> list[Architecture]:
    """Return ``count`` draws."""
    return [space.sample(rng) for _ in range(count)]


def evaluate(
    supernet: SuperNet, architectures: Mapping[str, Architecture], batches: EvaluationBatches
) -> dict[str, dict[str, float]]:
    """Return the mean loss and the accuracy of each of ``architectures`` with the shared weights, by its name.

    ``probe`` is its accuracy by a linear probe in place of the shared classifier.
    """
    supernet.train()
    losses, hits = torch.zeros(2, len(architectures))
    several = list(architectures.values())
    rows = evaluate_together(Slices(supernet), several, batches, no_autocast, classifier="probe")
    with torch.inference_mode():
        slices = Slices(supernet)
        paths = [slices.path(architecture) for architecture in architectures.values()]
        for images, labels in batches:
            for place, path in enumerate(paths):
                logits = path.logits(images)
                losses[place] += F.cross_entropy(logits, labels, reduction="sum")
                hits[place] += (logits.argmax(1) == labels).sum()
    total = len(batches.labels)
    probed = [sum(row) for row in rows]
    return {
        figure: {name: round(float(value) / total, 5) for name, value in zip(architectures, values, strict=True)}
        for figure, values in (("loss", losses), ("accuracy", hits), ("probe", probed))
    }


def no_autocast() -> torch.autocast:
    """Return a context in which precisions stay as they are."""
    return torch.autocast("cpu", enabled=False)


def untrained_probes(
    architectures: Mapping[str, Architecture], batches: EvaluationBatches, classes: int
) -> dict[str, float]:
    """Return the accuracy of a linear probe on each untrained network, the mean over initial weights."""
    labels = torch.cat([labels for _, labels in batches])
    found: dict[str, float] = {}
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        for name, (genotype, spec) in architectures.items():
            values = []
            for seed in range(INITIAL_WEIGHTS):
                torch.manual_seed(seed)
                network = Network(spec, genotype).to(memory_format=torch.channels_last).train()
                network.classifier = nn.Identity()
                features = torch.cat([network(images) for images, _ in batches])
                answers = left_out_scores(features, labels, classes).argmax(1)
                values.append(float((answers == labels).double().mean()))
            found[name] = round(mean(values), 5)
    return found


@dataclass(frozen=True)
class Trial:
    """What is trained and evaluated: the images, the networks, and the way to train."""

    task: Task
    rows: Sequence[Row]
    settings: Settings
    threads: int
    evaluations: int = 4

    @property
    def architectures(self) -> dict[str, Architecture]:
        """The architectures by their names."""
        data = self.task.data
        return {
            row.name: Architecture(row.genotype, row.spec(data.resolution, data.channels, data.classes))
            for row in self.rows
        }

    def scores(self) -> dict[str, dict[str, float]]:
        """Return the scores of the untrained networks, on one minibatch of the training images."""
        data = self.task.data
        batches = TrainingBatches(
            data.train, SCORED, data.mean, data.std, Augmentation(0, flip=False), device="cpu"
        )
        with torch_threads(self.threads):
            return {
                **scores(self.architectures, *next(batches.epoch(torch.Generator().manual_seed(0)))),
                PROBE: untrained_probes(self.architectures, self.task.parts["held_out"], data.classes),
            }

    def train(self, seed: int, checkpoint: TrainingCheckpoint) -> dict[str, Any]:
        """Return the training losses of one SuperNet, and its evaluations at equal distances of epochs."""
        data, epochs = self.task.data, self.settings.trained_epochs
        architectures = self.architectures
        space = space_of([architecture.network for architecture in architectures.values()])
        torch.manual_seed(seed)
        settings = self.settings.shared_training(data.resolution[0], self.threads)
        weights = SuperNetWeights(
            SuperNet(space.largest, settings.share),
            data,
            settings,
            epochs=epochs,
            seed=seed,
            over_sizes=space.sizes is not None,
            smallest=space.smallest,
        )
        fair = FairDraws(space)
        found: dict[str, Any] = {"seed": seed, "seconds": 0.0, "training_loss": [], "evaluations": []}
        kept = checkpoint.load()
        if kept is not None:
            weights.restore(kept["weights"])
            fair.restore(kept["draws"])
            found = kept["found"]
        parts_of = range(1, self.evaluations + 1)
        marks = {max(1, round(epochs * number / self.evaluations)) for number in parts_of}
        while weights.epoch < epochs:
            began = time.monotonic()
            # A generator for each epoch, so that a training that goes on draws what it would have drawn.
            rng = np.random.default_rng([seed, weights.epoch])
            part = fair.space = widened(space, self.settings.widening, weights.epoch, epochs)
            source = fair if self.settings.fair else part
            found["training_loss"].append(round(weights.train(partial(draw, source, rng)), 5))
            if weights.epoch in marks:
                parts = (weights.supernet, architectures, self.task.parts["held_out"])
                with torch_threads(self.threads):
                    with weights.averaged():
                        shared = evaluate(*parts)
                    present = {"present": evaluate(*parts)} if settings.average else {}
                found["evaluations"].append({"epoch": weights.epoch, **shared, **present})
            found["seconds"] = round(found["seconds"] + time.monotonic() - began, 1)
            checkpoint.save(
                {"epoch": weights.epoch, "weights": weights.state(), "draws": fair.state(), "found": found}
            )
        return found


def goodness(table: Table, names: Sequence[str]) -> dict[str, list[float]]:
    """Return the orders that no shared weights give, better networks with higher values: trained ones and costs."""
    return {
        "trained loss": [-loss for loss in table.truth("score_loss", names)],
        "trained accuracy": table.truth("score_accuracy", names),
        **{cost: [table.costs[name][cost] for name in names] for cost in COSTS},
    }


def compared(
    table: Table, found: Sequence[Mapping[str, Any]], scores: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Return for each half of the networks how far each order agrees with the trained networks."""
    judged = found[0]["evaluations"][0]["loss"]
    names = [name for name in table.trained() if name in judged]
    return {half: of_half(table, chosen, found, scores) for half, chosen in halves(names).items()}


def of_half(
    table: Table,
    names: Sequence[str],
    found: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Return how far each order of ``names`` agrees with the trained networks, by trained loss and accuracy."""
    known = goodness(table, names)
    complete = [name for name in names if name in table.complete()]

    def against(values: Sequence[float]) -> dict[str, Any]:
        return {name: asdict(agreement(values, known[f"trained {name}"])) for name in ("loss", "accuracy")}

    def calibrated(shared: Sequence[float]) -> dict[str, Any]:
        orders = (shared, known["multiply_adds"], table.truth("score_loss", names))
        return {"left_out": asdict(left_out(*orders)), "from_few": from_few(*orders)}

    def by_probe(accuracies: Sequence[float]) -> dict[str, Any]:
        return {"by_probe": against(accuracies), "calibrated_probe": calibrated([1 - one for one in accuracies])}

    def shared(evaluation: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "epoch": evaluation["epoch"],
            **{f"mean_{one}": round(mean([evaluation[one][name] for name in names]), 4) for one in FIGURES},
            "by_loss": against([-evaluation["loss"][name] for name in names]),
            "by_accuracy": against([evaluation["accuracy"][name] for name in names]),
            **(by_probe([evaluation["probe"][name] for name in names]) if "probe" in evaluation else {}),
            "calibrated": calibrated([evaluation["loss"][name] for name in names]),
            **(
                {"present": against([-evaluation["present"]["loss"][name] for name in names])}
                if "present" in evaluation
                else {}
            ),
        }

    ends = [one["evaluations"][-1] for one in found]
    probed = all("probe" in end for end in ends)
    return {
        "networks": len(names),
        "together": against([-mean([end["loss"][name] for end in ends]) for name in names]),
        **(
            {"together_by_probe": against([mean([end["probe"][name] for end in ends]) for name in names])}
            if probed
            else {}
        ),
        "trained_twice": len(complete),
        "ceiling": {one: asdict(table.ceiling(f"score_{one}", complete)) for one in FIGURES},
        **{cost: against(known[cost]) for cost in COSTS},
        **(
            {"calibrated_untrained": calibrated([1 - scores[PROBE][name] for name in names])}
            if PROBE in scores
            else {}
        ),
        "scores": {score: against([values[name] for name in names]) for score, values in scores.items()},
        "seeds": [
            {"seed": one["seed"], "evaluations": [shared(evaluation) for evaluation in one["evaluations"]]}
            for one in found
        ],
    }


def report(content: Mapping[str, Any]) -> None:
    """Print the comparison."""
    print(f"Kendall's tau ± its standard error, against {content['settings']['truth']}")
    for half, comparison in content["comparison"].items():
        print(f"\n{half}: {comparison['networks']} networks, {comparison['trained_twice']} of them trained twice")
        print(f"{'':34}{'trained loss':>18}{'trained accuracy':>18}")
        _line("ceiling: a second training", comparison["ceiling"])
        for cost in COSTS:
            _line(cost, comparison[cost])
        _print_untrained(comparison)
        for seed in comparison["seeds"]:
            for one in seed["evaluations"]:
                name = f"seed {seed['seed']}, epoch {one['epoch']}"
                _line(f"{name}, by shared loss", one["by_loss"])
                _line(f"{name}, by shared accuracy", one["by_accuracy"])
                if "by_probe" in one:
                    _line(f"{name}, by a linear probe", one["by_probe"])
        ends = [seed["evaluations"][-1] for seed in comparison["seeds"]]
        for order, words in ORDERS.items():
            if order not in ends[0]:
                continue
            means = [mean([end[order][one]["tau"] or 0.0 for end in ends]) for one in FIGURES]
            name = f"mean of {len(ends)} seeds, {words}"
            print(f"{name:34}" + "".join(f"{value:>18.2f}" for value in means))
        if len(ends) > 1:
            _line(f"all {len(ends)} together, by mean loss", comparison["together"])
            if "together_by_probe" in comparison:
                _line(f"all {len(ends)} together, by mean probe", comparison["together_by_probe"])
        for order, words in (("calibrated", "by shared loss"), ("calibrated_probe", "by a linear probe")):
            if order in ends[0]:
                _print_calibration([end[order] for end in ends], words)
        accuracy, loss = (mean([end[f"mean_{one}"] for end in ends]) for one in ("accuracy", "loss"))
        print(f"mean shared accuracy {accuracy:.1%}, loss {loss:.2f}")


def _print_untrained(comparison: Mapping[str, Any]) -> None:
    for score, against in comparison["scores"].items():
        _line(f"{score}, untrained", against)
    if "calibrated_untrained" in comparison:
        _print_calibration([comparison["calibrated_untrained"]], f"{PROBE}, untrained")


def _print_calibration(ends: Sequence[Mapping[str, Any]], order: str) -> None:
    name = f"left out, {order}, by size"
    print(f"{name:34}{mean([end['left_out']['tau'] or 0.0 for end in ends]):>18.2f}")
    few = [end["from_few"] for end in ends if end["from_few"] is not None]
    if few:
        calibrated, plain = (mean(values) for values in zip(*few, strict=True))
        name = f"from {FEW} trained"
        print(f"{name:34}{calibrated:>18.2f}   (the others {order} as it is: {plain:.2f})")


def _line(name: str, against: Mapping[str, Any]) -> None:
    print(f"{name:34}" + "".join(f"{Agreement(**against[one])!s:>18}" for one in FIGURES))


def judge(args: argparse.Namespace) -> None:
    """Train what is missing, and write the file after every seed."""
    table = Table.read(args.truth)
    rows = [row for row in table.rows if args.over_sizes or row.name.startswith("wiring")]
    task = Task.load(args.data, table.settings["resolution"], table.settings["images"], "cpu")
    if task.images != table.settings["images"]:
        raise InputError(f"{args.data} has not the images of {args.truth}; give the folder that it was made with")
    settings = Settings(
        args.truth.stem,
        args.over_sizes,
        args.epochs,
        args.batch,
        args.architectures,
        args.rate,
        args.rate_min,
        args.share,
        args.average,
        args.fair,
        "sandwich" if args.sandwich else "drawn",
        args.widen,
        args.precision,
    )
    trial = Trial(task, rows, settings, args.threads, args.evaluations)
    found: list[dict[str, Any]] = []
    untrained: dict[str, dict[str, float]] = {}
    if args.out.exists():
        content = FORMAT.read(args.out)
        if Settings(**content["settings"]) != settings:
            raise InputError(f"{args.out} was made with other settings; give another --out")
        found, untrained = content["found"], content.get("scores", {})
    if not untrained:
        untrained = trial.scores()
        if found:
            keep(args.out, table, {**content, "scores": untrained})
    for seed in range(args.seeds):
        if seed in [one["seed"] for one in found]:
            continue
        path = args.out.with_suffix(f".{seed}.checkpoint")
        checkpoint = TrainingCheckpoint(path, {**asdict(settings), "seed": seed}, log)
        found.append(trial.train(seed, checkpoint))
        content = {"machine": machine(), "settings": asdict(settings), "found": found, "scores": untrained}
        keep(args.out, table, content)
        checkpoint.remove()
        log(f"seed {seed}: {found[-1]['seconds']:.0f} s")


def keep(out: Path, table: Table, content: Mapping[str, Any]) -> None:
    """Write ``content``, and its comparison with ``table``."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    comparison = compared(table, content["found"], content.get("scores", {}))
    FORMAT.write(out, {**content, "made": made, "comparison": comparison})


def log(line: str) -> None:
    """Print a message for people."""
    print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, required=True, help="a table that truth.py made")
    parser.add_argument("--data", help="the images of that table, in a folder with train/, val/ and test/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--over-sizes", action="store_true", help="judge by networks of all sizes of the table")
    parser.add_argument(
        "--epochs",
        type=int,
        default=16,
        help="passes of an architecture over the images; a step of several architectures counts as several steps",
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--architectures", type=int, default=1, help="architectures that a step trains")
    parser.add_argument("--rate", type=float, default=0.0125, help="learning rate of the first epoch")
    parser.add_argument("--rate-min", type=float, default=0.001, help="learning rate of the last epoch")
    parser.add_argument("--share", choices=get_args(WeightSharing), default="edges", help="training.share")
    parser.add_argument("--average", type=float, default=0.0, help="training.average")
    parser.add_argument("--fair", action="store_true", help="draw every operation on every edge equally often")
    parser.add_argument("--sandwich", action="store_true", help="training.size_sampling, with --over-sizes")
    parser.add_argument("--widen", choices=get_args(Widening), default="none", help="evolution.widening")
    parser.add_argument(
        "--precision", choices=get_args(SharedPrecision), default="auto", help="training.precision; auto is float32"
    )
    parser.add_argument("--seeds", type=int, default=3, help="SuperNets to train")
    parser.add_argument(
        "--evaluations",
        type=int,
        default=4,
        help="evaluations of a SuperNet, the last one after its training; each costs as much as some epochs",
    )
    parser.add_argument("--threads", type=int, default=1, help="of a training step")
    args = parser.parse_args()
    if args.evaluations < 1:
        parser.error("--evaluations: the last one, after the training, is always made; give 1 or more")
    if args.sandwich and not args.over_sizes:
        parser.error("--sandwich is for sizes; give --over-sizes")
    if args.widen in BY_SIZE and not args.over_sizes:
        parser.error(f"--widen {args.widen} is for sizes; give --over-sizes")
    return args


def main() -> None:
    """Train, and print the comparison."""
    args = arguments()
    try:
        if args.data is not None:
            with locked(args.out.with_suffix(".lock"), str(args.out)):
                judge(args)
        keep(args.out, Table.read(args.truth), FORMAT.read(args.out))
        report(FORMAT.read(args.out))
    except CarsHwError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
