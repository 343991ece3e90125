"""The sum of a network's operations, fast enough for a search."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from cars_hw.latency.keys import (
    OpKey,
    frame_keys,
    node_keys,
    relu_keys,
    relu_sources,
)
from cars_hw.space.genotype import Genotype, Node
from cars_hw.space.liveness import Usages, live_states, usages_of
from cars_hw.space.network_spec import NetworkSpec


class OperationSums:
    """Sums ``costs`` (milliseconds by key's text) over :func:`genotype_keys`, and remembers the parts.

    Once it is settled which inputs the two cells use, the sum is one number for the frame, one for each cell's
    ReLUs and one for each node: so what was ever seen costs a look-up.
    """

    def __init__(self, spec: NetworkSpec, costs: Mapping[str, float]) -> None:
        self._spec = spec
        self._costs = costs
        self._parts: dict[Usages, _Parts] = {}

    def total(self, genotype: Genotype) -> float:
        """Return the sum for ``genotype``, in milliseconds."""
        usages = usages_of(genotype)
        parts = self._parts.get(usages)
        if parts is None:
            parts = self._parts[usages] = _Parts(self._spec, self._costs, usages)
        total = parts.frame
        for reduction, cell in ((False, genotype.normal), (True, genotype.reduce)):
            total += parts.relus(reduction, relu_sources(cell, reduction))
            known = parts.nodes[reduction]
            for node in cell:
                # Looked up here: this is the innermost of what a search does without a network.
                ms = known.get(node)
                total += parts.node(reduction, node) if ms is None else ms
        return total


class _Parts:
    """The parts of all networks whose cells have the same usages."""

    def __init__(self, spec: NetworkSpec, costs: Mapping[str, float], usages: Usages) -> None:
        self._costs = costs
        live = live_states(spec, usages)
        alive = [layout for layout in spec.cells() if layout.position in live]
        self._layouts = [[layout for layout in alive if layout.reduction == kind] for kind in (False, True)]
        self._known: dict[Hashable, float] = {}
        self.nodes: tuple[dict[Node, float], dict[Node, float]] = ({}, {})
        self.frame = sum(costs[str(item.key)] for item in frame_keys(spec, usages))

    def relus(self, reduction: bool, sources: tuple[int, ...]) -> float:
        """Return the milliseconds of the ReLUs of the states ``sources``, over all cells of the kind."""
        name = reduction, sources, "relu"
        if name not in self._known:
            self._known[name] = self._sum(relu_keys(layout, sources) for layout in self._layouts[reduction])
        return self._known[name]

    def node(self, reduction: bool, node: Node) -> float:
        """Return the milliseconds of ``node``, over all cells of the kind."""
        known = self.nodes[reduction]
        if node not in known:
            known[node] = self._sum(node_keys(layout, node) for layout in self._layouts[reduction])
        return known[node]

    def _sum(self, per_cell: Iterable[Iterable[tuple[OpKey, str]]]) -> float:
        return sum(self._costs[str(key)] for keys in per_cell for key, _ in keys)
