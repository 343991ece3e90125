"""GenotypeSpace: what evolution, calibration and the descent to the fastest network need of a space of genotypes.

A genotype has one choice at each of its places. What a choice is, only the space knows: a node in a space of cells,
a block in one of blocks.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec

if TYPE_CHECKING:
    import numpy as np

Place = Hashable
"""Where a genotype has a choice."""

Choices = Mapping[Place, Sequence[Any]]
"""Some choices for every place of a genotype, in the order of the places."""


class GenotypeSpace(Protocol):
    """The genotypes of one family that a search may propose: how they are drawn, changed and counted through.

    ``operations`` are the names of what a choice is made of, such as those of the operations of cells. With a
    ``network``, only genotypes are proposed that :meth:`fits` it.
    """

    def __hash__(self) -> int:
        """Equal spaces have equal hashes."""

    @property
    def family(self) -> str:
        """The name of the family, with further operations."""

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of what choices are made of."""

    @property
    def network(self) -> NetworkSpec | None:
        """The network that genotypes fit."""

    def for_network(self, network: NetworkSpec | None) -> GenotypeSpace:
        """Return the same choices for another network, or for any."""

    def places(self) -> Sequence[Place]:
        """Return every place, in a fixed order."""

    def choices(self, place: Any) -> Sequence[Any]:  # noqa: ANN401 -- the space's own kind
        """Return every choice for ``place``."""

    def draw(self, place: Any, rng: np.random.Generator) -> Any:  # noqa: ANN401
        """Draw a choice for ``place``."""

    def choice_of(self, genotype: Genotype, place: Any) -> Any:  # noqa: ANN401
        """Return the choice of ``genotype`` at ``place``."""

    def with_choice(self, genotype: Genotype, place: Any, choice: Any) -> Genotype:  # noqa: ANN401
        """Return ``genotype`` with ``choice`` at ``place``."""

    def of_choices(self, choices: Sequence[Any]) -> Genotype:
        """Return the genotype of these choices, one for each place in order."""

    def sample(self, rng: np.random.Generator) -> Genotype:
        """Draw a genotype that fits the network, every choice uniformly.

        Raises:
            GenotypeError: too many draws in a row do not fit it.
        """

    def fits(self, genotype: Genotype) -> bool:
        """Return whether ``genotype``, made of this space's choices, fits the network; True without a network."""

    def validate(self, genotype: Genotype) -> None:
        """Check that a search could propose ``genotype``.

        Raises:
            GenotypeError: it could not.
        """

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """Yield every genotype of the space that differs in one thing.

        Raises:
            GenotypeError: ``genotype`` is not of this space.
        """

    def regions(self) -> Iterator[Choices]:
        """Yield parts of the space, the whole one first, in each of which latencies are nearly sums over places."""

    def heaviest(self) -> Genotype:
        """Return the genotype whose training keeps the most for the backward pass, about."""

    def part(self, rng: np.random.Generator) -> GenotypeSpace:
        """Return the space of some of the operations, drawn at random; its genotypes need not fit the network."""
