"""Which whole networks the predictor is fitted on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cars_hw.errors import InputError
from cars_hw.latency.fastest import fastest_genotype
from cars_hw.latency.keys import spec_keys
from cars_hw.latency.sums import OperationSums
from cars_hw.latency.table import LatencyTable
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid

DRAWS = 400


def spread_genotypes(
    space: GenotypeSpace,
    latency: Callable[[Genotype], float],
    count: int,
    rng: np.random.Generator,
    *,
    apart_from: Genotype | None = None,
) -> list[Genotype]:
    """Return ``count`` distinct genotypes to calibrate on, none of them ``apart_from``, fastest first.

    Genotypes that are drawn uniformly crowd in the middle of the range of ``latency``, while a search goes to where
    the budget is. So one half is drawn, and the other is spread evenly over the range; candidates for it come
    from spaces of a few random operations as well, which reach further to both ends.

    Raises:
        InputError: the space has too few genotypes.
    """
    candidates = _candidates(space, rng, apart_from)
    if len(candidates) < count:
        raise InputError(
            f"the search space has too few architectures to calibrate on: {len(candidates)} of {count}"
        )
    # Every other candidate, from the first, is drawn from the whole space.
    chosen = candidates[: 2 * (count // 2) : 2]
    ranked = sorted(
        ((latency(genotype), index) for index, genotype in enumerate(candidates) if genotype not in chosen)
    )
    for target in np.linspace(ranked[0][0], ranked[-1][0], count - len(chosen)):
        nearest = min(range(len(ranked)), key=lambda position: abs(ranked[position][0] - target))
        chosen.append(candidates[ranked.pop(nearest)[1]])
    return sorted(chosen, key=latency)


def spread_architectures(
    space: GenotypeSpace,
    sizes: SizeGrid,
    network: NetworkSpec,
    latency: Callable[[Architecture], float],
    *,
    count: int,
    rng: np.random.Generator,
) -> list[Architecture]:
    """Return ``count`` distinct architectures on the grid ``sizes`` to calibrate on, fastest first.

    They are spread evenly over the logarithm of ``latency``, from the fastest to the slowest of the candidates, as
    a budget may lie anywhere in the range. A candidate is ``network`` at a random size with a genotype as in
    :func:`spread_genotypes`; a quarter of the candidates are at the corners of the grid.

    Raises:
        InputError: the space has too few architectures.
    """
    corners = sizes.corners(network)
    found: dict[object, Architecture] = {}
    for number in range(DRAWS):
        source = space.part(rng) if number % 2 else space
        at = corners[number // 4 % len(corners)] if number % 4 == 0 else sizes.sample(network, rng)
        architecture = Architecture(source.sample(rng), at)
        found.setdefault(architecture.key(), architecture)
    if len(found) < count:
        raise InputError(f"the search space has too few architectures to calibrate on: {len(found)} of {count}")
    candidates = list(found.values())
    logs = np.log([latency(one) for one in candidates])
    return [candidates[place] for place in evenly(logs, count)]


def evenly(values: npt.NDArray[np.float64], count: int) -> list[int]:
    """Return the places of ``count`` of the ``values``, spread evenly over their range, in ascending order."""
    left = np.argsort(values, kind="stable").tolist()
    chosen = []
    for aim in np.linspace(values.min(), values.max(), count):
        nearest = min(range(len(left)), key=lambda rank: abs(values[left[rank]] - aim))
        chosen.append(left.pop(nearest))
    return sorted(chosen, key=lambda place: float(values[place]))


def _candidates(space: GenotypeSpace, rng: np.random.Generator, apart_from: Genotype | None) -> list[Genotype]:
    """Return up to :data:`DRAWS` genotypes, all different, by turns of the whole space and of a part of it."""
    found: dict[object, Genotype] = {}
    for _ in range(2 * DRAWS):
        source = space.part(rng) if len(found) % 2 else space
        genotype = source.sample(rng)
        if apart_from is None or genotype.key() != apart_from.key():
            found.setdefault(genotype.key(), genotype)
        if len(found) == DRAWS:
            break
    return list(found.values())


def to_calibrate_on(table: LatencyTable, space: GenotypeSpace, count: int) -> list[Architecture]:
    """Return the smallest architecture of ``space`` and ``count`` - 1 that are spread over its range."""
    rng = np.random.default_rng(table.plan["seed"])
    if table.sizes is not None:
        return _over_sizes(table, table.sizes, space, count, rng)
    sums = OperationSums(table.spec, table.costs())
    # What no budget can be below is predicted more often than anything, and is far from all that is drawn.
    anchor = fastest_genotype(space, sums.total, rng, starts=1)
    chosen = [anchor, *spread_genotypes(space, sums.total, count - 1, rng, apart_from=anchor)]
    return [Architecture(genotype, table.spec) for genotype in chosen]


def _over_sizes(
    table: LatencyTable, sizes: SizeGrid, space: GenotypeSpace, count: int, rng: np.random.Generator
) -> list[Architecture]:
    """Return the smallest architecture on the grid ``sizes``, and ``count`` - 1 spread over the log latency."""
    sums: dict[NetworkSpec, OperationSums] = {}

    def latency(architecture: Architecture) -> float:
        genotype, network = architecture
        if network not in sums:
            keys = spec_keys(network)
            costs = table.operation_costs.of(keys)
            sums[network] = OperationSums(network, dict(zip(map(str, keys), map(float, costs), strict=True)))
        return sums[network].total(genotype)

    smallest = next(sizes.networks(table.spec))
    anchor = fastest_genotype(space, lambda genotype: latency(Architecture(genotype, smallest)), rng, starts=1)
    return [
        Architecture(anchor, smallest),
        *spread_architectures(space, sizes, table.spec, latency, count=count - 1, rng=rng),
    ]
