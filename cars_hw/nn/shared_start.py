"""Copy shared weights from one SuperNet to another one, of another size or with other classes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import torch

from cars_hw.nn.block_slices import slices_of
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.block_space import uniform
from cars_hw.space.families import SKIP, CellFamily
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec


def common_size(first: NetworkSpec, second: NetworkSpec) -> NetworkSpec:
    """Return ``first`` at the largest size that lies within both: the fewer channels, and cells of each stage."""
    depths = tuple(map(min, zip(first.stages, second.stages, strict=True)))
    one, two, three = depths
    return replace(
        first, channels=min(first.channels, second.channels), layers=sum(depths), depths=(one, two, three)
    )


def copy_weights(old: SuperNet, new: SuperNet, *, classifier: bool, without: Collection[str] = ()) -> int:
    """Copy the weights of ``old`` to ``new`` for all sizes that lie within both; return how many were copied.

    An architecture of such a size then has the same weights in both. There is one exception: if a stage before a
    reduction has one cell in only one of the two, the layer that reads over it has other rows in an architecture
    with fewer channels than the common size. Other weights of ``new`` stay, and so do those of the operations
    ``without``, as far as no other operation has them. The classifier is copied only if ``classifier`` is True;
    then both must have the same classes.
    """
    own, theirs = common_size(new.spec, old.spec), common_size(old.spec, new.spec)
    of_old, of_new = slices_of(old), slices_of(new)
    kept = {new.classifier.weight, new.classifier.bias} if not classifier else set()
    copied: dict[torch.Tensor, torch.Tensor]
    copied = {parameter: torch.zeros_like(parameter, dtype=torch.bool) for parameter in new.parameters()}
    with torch.no_grad():
        for genotype in _covering(own, theirs, without):
            places = zip(
                of_old.places(Architecture(genotype, theirs)),
                of_new.places(Architecture(genotype, own)),
                strict=True,
            )
            for source, target in places:
                parameter = target.parameter
                if parameter in kept:
                    continue
                view = target.of(parameter.detach())
                view.copy_(source.of(source.parameter.detach()).reshape(view.shape))
                target.of(copied[parameter]).fill_(True)
    return sum(int(mask.sum()) for mask in copied.values())


def _covering(new: NetworkSpec, old: NetworkSpec, without: Collection[str]) -> Iterator[Genotype]:
    """Yield genotypes that have every operation of both networks, but those ``without``, at every place."""
    if new.blocks is not None:
        yield from (uniform(new, name) for name in new.blocks.operations if name not in {*without, SKIP})
        return
    known = old.cell_family.operations
    missing = [name for name in new.cell_family.operations if name not in known]
    yield from _covering_cells(new.cell_family, {*without, *missing})


def _covering_cells(family: CellFamily, without: Collection[str]) -> Iterator[Genotype]:
    """Yield genotypes of ``family`` that have every operation but those ``without`` on every edge between them."""
    for name in family.real_operations:
        if name in without:
            continue
        # The last node has the most sources, and two are used at a time.
        for number in range((family.nodes + 2) // 2):
            cell = tuple(_node(name, 2 * number, node + 2) for node in range(family.nodes))
            yield Genotype(cell, cell, family.base)


def _node(operation: str, source: int, sources: int) -> tuple[Edge, Edge]:
    """Return a node with ``operation`` on ``source`` and on the next one, counted around."""
    return Edge(operation, source % sources), Edge(operation, (source + 1) % sources)
