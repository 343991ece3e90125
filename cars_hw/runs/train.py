"""The second step of a run: chosen networks are trained to the end."""

from __future__ import annotations

import multiprocessing
import os
import queue
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cars_hw.data import DataBundle, load
from cars_hw.errors import InputError, RunError
from cars_hw.evolution.checkpoint import supernet_weights
from cars_hw.files import replacing
from cars_hw.genotype import Genotype
from cars_hw.network import Network
from cars_hw.runs.folder import FrontNetwork, RunFolder, TrainedNetwork
from cars_hw.runs.search import DataSource, require_fit
from cars_hw.supernet import SuperNet
from cars_hw.training.memory import keep_freed_memory
from cars_hw.training.network import train_network
from cars_hw.training.settings import Recipe

Heard = Callable[[str, int, int], None]
"""Called with a network's name, its epochs done and its epochs in all."""


@dataclass(frozen=True)
class _Job:
    run: Path
    data: DataSource
    name: str
    genotype: Genotype
    recipe: Recipe
    seed: int
    device: str
    inherit: bool


def choose(front: Sequence[FrontNetwork], count: int) -> list[FrontNetwork]:
    """Return ``count`` networks spread evenly over ``front``, both ends among them.

    A front is ordered by its first cost, so that its last network is its most accurate one; that one comes
    first where only one is wanted. Fewer come back where the front has fewer.

    Raises:
        InputError: ``count`` is below 1.
    """
    if count < 1:
        raise InputError(f"train at least one network, not {count}")
    if count >= len(front):
        return list(front)
    if count == 1:
        return [max(front, key=lambda network: network.accuracy)]
    steps = [index * (len(front) - 1) / (count - 1) for index in range(count)]
    return [front[round(step)] for step in steps]


def train_run(
    run: RunFolder,
    *,
    data: DataSource,
    top: int = 5,
    genotype: Genotype | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str = "cpu",
    jobs: int | None = None,
    inherit: bool = True,
    heard: Heard = lambda _name, _done, _total: None,
) -> list[TrainedNetwork]:
    """Train ``top`` networks of the run's front, or ``genotype`` alone, and keep their weights in the run.

    Networks start from the SuperNet's weights where the run's SuperNet has the very shapes of the network and
    ``inherit`` is set. ``jobs`` networks are trained side by side (on a CPU one a core by default), each with
    its share of the cores. A network that was trained with the same recipe and seed already is not trained
    again.

    Raises:
        RunError: the run has no front yet.
        InputError: the data does not fit the network.
    """
    spec = run.network
    recipe = recipe or Recipe(**run.configuration["recipe"])
    if genotype is not None:
        known = [network for network in run.front() if network.genotype.key() == genotype.key()]
        chosen = [(known[0].name if known else _name_of(genotype), genotype)]
    else:
        chosen = [(network.name, network.genotype) for network in choose(run.front(), top)]
    bundle = load(data.source, root=data.root, download=data.download, resolution=spec.resolution)
    require_fit(bundle, spec)
    done = {(network.name, network.genotype.key()): network for network in run.trained()}
    waiting = []
    for name, chosen_genotype in chosen:
        before = done.get((name, chosen_genotype.key()))
        if before is None or (before.recipe, before.seed) != (asdict(recipe), seed):
            waiting.append(_Job(run.path, data, name, chosen_genotype, recipe, seed, device, inherit))
    _train_all(waiting, bundle, jobs or _default_jobs(device, len(waiting)), heard)
    names = {name for name, _ in chosen}
    return [network for network in run.trained() if network.name in names]


def load_trained(run: RunFolder, trained: TrainedNetwork) -> Network:
    """Return the trained network with its weights, ready to be evaluated.

    Raises:
        RunError: the weights are missing or not this network's.
    """
    network = Network(run.network, trained.genotype)
    path = run.weights_path(trained.name)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise RunError(f"cannot read the weights {path}; train the network again: cars-hw train") from error
    return network.eval()


def _name_of(genotype: Genotype) -> str:
    """Return a name for a genotype outside of the front, so that another one does not take its files."""
    return f"genotype-{zlib.crc32(repr(genotype.key()).encode()):08x}"


def _default_jobs(device: str, networks: int) -> int:
    if device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, networks))


def _train_all(waiting: Sequence[_Job], data: DataBundle, jobs: int, heard: Heard) -> None:
    if jobs == 1:
        for job in waiting:
            _train(job, data, lambda done, total, name=job.name: heard(name, done, total))  # type: ignore[misc]
        return
    threads = max(1, torch.get_num_threads() // jobs)
    # A forked torch may hang in its thread pools: the workers are started afresh.
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        messages: Any = manager.Queue()
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            futures = [pool.submit(_train_in_worker, job, threads, messages) for job in waiting]
            try:
                _listen(futures, messages, heard)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _listen(futures: Sequence[Future[None]], messages: Any, heard: Heard) -> None:  # noqa: ANN401 -- a proxy
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, timeout=0.2)
        while True:
            try:
                heard(*messages.get_nowait())
            except queue.Empty:
                break
        for future in finished:
            future.result()


def _train_in_worker(job: _Job, threads: int, messages: Any) -> None:  # noqa: ANN401 -- a proxy
    torch.set_num_threads(threads)
    keep_freed_memory()
    data = load(job.data.source, root=job.data.root, resolution=RunFolder(job.run).network.resolution)
    _train(job, data, lambda done, total: messages.put((job.name, done, total)))


def _train(job: _Job, data: DataBundle, progress: Callable[[int, int], None]) -> None:
    run = RunFolder(job.run)
    spec = run.network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        network = Network(spec, job.genotype, auxiliary=job.recipe.auxiliary > 0)
        if job.inherit:
            _inherit(run, network)
        result = train_network(network, data, job.recipe, seed=job.seed, device=job.device, progress=progress)
    network.auxiliary = None
    with replacing(run.weights_path(job.name)) as temporary:
        torch.save(network.cpu().state_dict(), temporary)
    run.write_trained(
        TrainedNetwork(job.name, job.genotype, result.accuracy, result.loss, asdict(job.recipe), job.seed)
    )


def _inherit(run: RunFolder, network: Network) -> None:
    """Take over the SuperNet's weights if it has the network's own shapes."""
    configuration = run.configuration
    own = (configuration["supernet_channels"], configuration["supernet_layers"]) == (None, None)
    if not own or configuration["proxy"] or not run.checkpoint.is_file():
        return
    supernet = SuperNet(network.spec)
    supernet.load_state_dict(supernet_weights(run.checkpoint))
    supernet.hand_over(network)
