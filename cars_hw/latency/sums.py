"""The sum of a network's operations, fast enough for a search."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from cars_hw.latency.block_keys import block_key, chain_ends
from cars_hw.latency.keys import (
    OpKey,
    frame_keys,
    node_keys,
    relu_keys,
    relu_sources,
)
from cars_hw.space.blocks import block_layouts
from cars_hw.space.genotype import Genotype, Node, names_of
from cars_hw.space.liveness import Usages, live_states, parts_of, usages_of
from cars_hw.space.network_spec import CellLayout, NetworkSpec


class OperationSums:
    """Sums ``costs`` (milliseconds by key's text) over :func:`genotype_keys`, and remembers the parts.

    Once it is settled which inputs the two cells use, the sum is one number for the frame, one for each cell's
    ReLUs and one for each node: so what was ever seen costs a look-up. What one cell takes is remembered by the
    shapes of its images, for networks of all sizes; see :meth:`at`.
    """

    def __init__(self, spec: NetworkSpec, costs: Mapping[str, float]) -> None:
        self._spec = spec
        self._family = spec.base_family
        self._costs = costs
        self._cells = _CellCosts(costs)
        self._parts: dict[Usages, _Parts] = {}
        self._blocks: dict[tuple[int, str], float] = {}
        self._ends: float | None = None

    def at(self, spec: NetworkSpec) -> OperationSums:
        """Return the sums for ``spec``, which remember together with these what cells take."""
        other = OperationSums(spec, self._costs)
        other._cells = self._cells
        return other

    def total(self, genotype: Genotype) -> float:
        """Return the sum for ``genotype``, in milliseconds.

        Raises:
            SpecError: its cells are of another family than those of the network.
            GenotypeError: it has another number of blocks, or leaves out one that the network cannot do without.
        """
        if genotype.family != self._family:
            self._spec.require_family(genotype)
        if self._spec.blocks is not None:
            genotype.require_size(self._spec.layers, self._spec.reductions)
            return self._of_blocks(genotype)
        usages = usages_of(genotype)
        parts = self._parts.get(usages)
        if parts is None:
            parts = self._parts[usages] = _Parts(self._spec, self._costs, self._cells, usages)
        total = parts.frame
        for reduction, cell in ((False, genotype.normal), (True, genotype.reduce)):
            total += parts.relus(reduction, relu_sources(cell, reduction))
            known = parts.nodes[reduction]
            for node in cell:
                # Looked up here: this is the innermost of what a search does without a network.
                ms = known.get(node)
                total += parts.node(reduction, node) if ms is None else ms
        return total

    def _of_blocks(self, genotype: Genotype) -> float:
        """Return the sum for a genotype of blocks: every choice at its place, and what all of them have."""
        if self._ends is None:
            self._ends = sum(self._costs[str(key)] for keys in chain_ends(self._spec) for key in keys)
        total = self._ends
        for placed in enumerate(names_of(genotype)):
            ms = self._blocks.get(placed)
            if ms is None:
                key = block_key(block_layouts(self._spec)[placed[0]], placed[1])
                ms = self._blocks[placed] = 0.0 if key is None else self._costs[str(key)]
            total += ms
        return total


class _CellCosts:
    """The milliseconds of each operation of one cell's node, or of its ReLUs."""

    def __init__(self, costs: Mapping[str, float]) -> None:
        self._costs = costs
        self._known: dict[Hashable, list[float]] = {}

    def node(self, layout: CellLayout, node: Node) -> list[float]:
        name = layout.reduction, layout.inner, layout.output, node
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._of(node_keys(layout, node))
        return known

    def relus(self, layout: CellLayout, sources: tuple[int, ...]) -> list[float]:
        name = layout.inner, layout.output, sources
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._of(relu_keys(layout, sources))
        return known

    def _of(self, keys: Iterable[tuple[OpKey, str]]) -> list[float]:
        return [self._costs[str(key)] for key, _ in keys]


class _Parts:
    """The parts of all networks whose cells have the same usages."""

    def __init__(self, spec: NetworkSpec, costs: Mapping[str, float], cells: _CellCosts, usages: Usages) -> None:
        self._cells = cells
        live = live_states(spec, usages)
        layouts = (*spec.stem_cells(usages[1].parts), *spec.cells(parts_of(usages)))
        alive = [layout for layout in layouts if layout.position in live]
        self._layouts = [[layout for layout in alive if layout.reduction == kind] for kind in (False, True)]
        self._relus: dict[Hashable, float] = {}
        self.nodes: tuple[dict[Node, float], dict[Node, float]] = ({}, {})
        self.frame = sum(costs[str(item.key)] for item in frame_keys(spec, usages))

    def relus(self, reduction: bool, sources: tuple[int, ...]) -> float:
        """Return the milliseconds of the ReLUs of the states ``sources``, over all cells of the kind."""
        name = reduction, sources
        if name not in self._relus:
            self._relus[name] = _sum(self._cells.relus(layout, sources) for layout in self._layouts[reduction])
        return self._relus[name]

    def node(self, reduction: bool, node: Node) -> float:
        """Return the milliseconds of ``node``, over all cells of the kind."""
        known = self.nodes[reduction]
        if node not in known:
            known[node] = _sum(self._cells.node(layout, node) for layout in self._layouts[reduction])
        return known[node]


def _sum(per_cell: Iterable[list[float]]) -> float:
    return sum(ms for cell in per_cell for ms in cell)
