"""The sum of a network's operations, fast enough for a search."""

from __future__ import annotations

from collections.abc import Mapping

from cars_hw.genotype import Genotype, Node
from cars_hw.latency.keys import Usage, live_states, node_keys, placed_glue, usage_of
from cars_hw.spec import NetworkSpec


class OperationSums:
    """Sums ``costs`` (milliseconds by key's text) over :func:`genotype_keys`, and remembers the parts.

    Once it is settled which inputs the two cells use, the sum is one number for everything but the nodes, plus
    one for each node: so each node that was ever seen costs a look-up.
    """

    def __init__(self, spec: NetworkSpec, costs: Mapping[str, float]) -> None:
        self._spec = spec
        self._costs = costs
        self._glue: dict[tuple[Usage, Usage], float] = {}
        self._nodes: dict[tuple[Usage, Usage], tuple[dict[Node, float], dict[Node, float]]] = {}

    def total(self, genotype: Genotype) -> float:
        """Return the sum for ``genotype``, in milliseconds."""
        usages = usage_of(genotype.normal), usage_of(genotype.reduce)
        if usages not in self._glue:
            self._glue[usages] = sum(self._costs[str(item.key)] for item in placed_glue(self._spec, usages))
            self._nodes[usages] = ({}, {})
        total = self._glue[usages]
        for reduction, cell in enumerate((genotype.normal, genotype.reduce)):
            known = self._nodes[usages][reduction]
            for node in cell:
                if node not in known:
                    known[node] = self._node(usages, bool(reduction), node)
                total += known[node]
        return total

    def _node(self, usages: tuple[Usage, Usage], reduction: bool, node: Node) -> float:
        live = live_states(self._spec, usages)
        return sum(
            self._costs[str(key)]
            for layout in self._spec.cells()
            if layout.reduction == reduction and layout.position in live
            for key, _ in node_keys(layout, node)
        )
