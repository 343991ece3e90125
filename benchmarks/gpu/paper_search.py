"""The part of the check that extrapolates the paper's search."""

from __future__ import annotations

from dataclasses import replace

import torch
from gpu_setting import Found, Gpu

from cars_hw.config.presets import PRESETS
from cars_hw.nn.cost import network_cost
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.search_space import SearchSpace


def paper(gpu: Gpu) -> Found:
    """Run two generations of the paper's search, and extrapolate the time of all of it."""
    from cars_hw.evolution.objectives import CostObjective
    from cars_hw.evolution.search import Search

    preset = PRESETS["paper"]
    evolution, settings = preset.evolution, preset.training
    if gpu.cpu:
        settings = replace(settings, batch_size=32, evaluation_images=32, evaluation_batch=16)
        evolution = replace(evolution, population=4, epochs_per_generation=2)
    made = gpu.weights(settings, 200 if gpu.cpu else 50_000)
    spec = NETWORKS["cifar"]
    cost = CostObjective("parameters", "M", lambda one: network_cost(spec, one.genotype).parameters / 1e6)
    search = Search(ArchitectureSpace(SearchSpace(), spec), [cost], made, evolution, seed=0)
    loading = gpu.ms(search.warm_up) / 1e3
    warm_up = gpu.ms(search.warm_up) / 1e3
    generations = []
    for _ in range(2):
        generations.append(gpu.ms(search.evolve) / 1e3)
    people = gpu.architectures(2 if gpu.cpu else 6, 5)
    finalists = gpu.ms(lambda: made.counts(people, full=True)) / len(people) * 3 * evolution.population / 1e3
    # The later generation has fewer architectures that are new, and so fewer recordings.
    whole = (
        warm_up * evolution.warmup_epochs
        + generations[0]
        + generations[1] * (evolution.generations - 1)
        + finalists
    )
    memory: Found = {}
    if not gpu.cpu:
        free, total = torch.cuda.mem_get_info()
        most = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), total - free
        memory = dict(
            zip(("allocated, GB", "reserved, GB", "of the card, GB"), (one / 2**30 for one in most), strict=True)
        )
    return {
        "first epoch, s": loading,
        "an epoch of the warm-up, s": warm_up,
        "generations, s": generations,
        "finalists, s": finalists,
        "the paper's search, minutes": whole / 60,
        **memory,
    }
