"""BlockSpace: the genotypes of blocks that a search may propose."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from cars_hw.errors import GenotypeError
from cars_hw.space.blocks import BlockChoice, block_layouts
from cars_hw.space.families import MOBILE, SKIP, BlockFamily, block_family
from cars_hw.space.genotype import BlockGenotype, Genotype, names_of
from cars_hw.space.genotype_space import Choices
from cars_hw.space.network_spec import NetworkSpec


@dataclass(frozen=True)
class BlockSpace:
    """All genotypes for the blocks of ``network`` whose choices are among ``operations``, by default all.

    A block that changes the shape of its input cannot be left out. Without a network, nothing can be drawn.

    Raises:
        GenotypeError: an unknown choice, the same one twice, or none besides ``skip``.
    """

    operations: tuple[str, ...] = ()
    network: NetworkSpec | None = None
    family: str = MOBILE

    def __post_init__(self) -> None:
        known = self.blocks.operations
        if not self.operations:
            object.__setattr__(self, "operations", known)
        unknown = sorted(name for name in self.operations if name not in known)
        if unknown:
            raise GenotypeError(f"unknown choice '{unknown[0]}'; {self.family} blocks have {', '.join(known)}")
        if len(set(self.operations)) < len(self.operations):
            raise GenotypeError("a search space has the same choice twice; draws would not be uniform")
        if not set(self.operations) - {SKIP}:
            raise GenotypeError(f"a search space needs at least one choice besides {SKIP}")

    @property
    def blocks(self) -> BlockFamily:
        """The family of the blocks.

        Raises:
            GenotypeError: the family is one of cells, or none.
        """
        found = block_family(self.family)
        if found is None:
            raise GenotypeError(f"{self.family} is no family of blocks")
        return found

    def for_network(self, network: NetworkSpec | None) -> BlockSpace:
        """Return the space of these choices for ``network``."""
        return replace(self, network=network)

    def places(self) -> range:
        """Return the number of every block.

        Raises:
            GenotypeError: there is no network.
        """
        return range(self._network.layers)

    def choices(self, place: int) -> Sequence[str]:
        """Return the names of the choices that are possible for the block ``place``."""
        return _possible(self._network, self.operations)[place]

    @property
    def _network(self) -> NetworkSpec:
        if self.network is None:
            raise GenotypeError("a space of blocks needs a network, which says how many blocks there are")
        return self.network

    def draw(self, place: int, rng: np.random.Generator) -> str:
        """Draw a choice for the block ``place``."""
        possible = self.choices(place)
        return possible[int(rng.integers(len(possible)))]

    def choice_of(self, genotype: Genotype, place: int) -> str:
        """Return the choice of ``genotype`` for the block ``place``."""
        return names_of(genotype)[place]

    def with_choice(self, genotype: Genotype, place: int, choice: str) -> BlockGenotype:
        """Return ``genotype`` with ``choice`` for the block ``place``."""
        names = names_of(genotype)
        return BlockGenotype((*names[:place], choice, *names[place + 1 :]), family=self.family)

    def of_choices(self, choices: Sequence[str]) -> BlockGenotype:
        """Return the genotype of these choices, one for each block."""
        return BlockGenotype(tuple(choices), family=self.family)

    def sample(self, rng: np.random.Generator) -> BlockGenotype:
        """Draw a genotype: every choice uniformly.

        Raises:
            GenotypeError: there is no network.
        """
        return self.of_choices([self.draw(place, rng) for place in self.places()])

    def fits(self, genotype: Genotype) -> bool:
        """Return whether ``genotype`` fits the network; True without one."""
        if self.network is None:
            return True
        names, possible = names_of(genotype), _possible(self.network, self.blocks.operations)
        return len(names) == len(possible) and all(map(_among, possible, names))

    def validate(self, genotype: Genotype) -> None:
        """Check that a search could propose ``genotype``.

        Raises:
            GenotypeError: it is of another family, has a choice that is not of this space, or does not fit the
                network.
        """
        if genotype.family != self.family:
            raise GenotypeError(f"the genotype has {genotype.family} {genotype.made_of}, not {self.family} blocks")
        for name in names_of(genotype):
            if name not in self.operations:
                raise GenotypeError(f"'{name}' is not in this search space")
        if self.network is not None:
            genotype.require_size(self.network.layers, self.network.reductions)

    def neighbours(self, genotype: Genotype) -> Iterator[BlockGenotype]:
        """Yield every genotype of the space that differs in the choice for one block.

        Raises:
            GenotypeError: ``genotype`` is not of this space, or there is no network.
        """
        self.validate(genotype)
        for place in self.places():
            for choice in self.choices(place):
                if choice != self.choice_of(genotype, place):
                    yield self.with_choice(genotype, place, choice)

    def regions(self) -> Iterator[Choices]:
        """Yield all choices: the latency of a network is a sum over its blocks."""
        yield {place: self.choices(place) for place in self.places()}

    def heaviest(self) -> BlockGenotype:
        """Return the genotype with the largest choice for every block."""
        return self.of_choices([max(self.choices(place), key=_size) for place in self.places()])

    def part(self, rng: np.random.Generator) -> BlockSpace:
        """Return the space of some of the choices, at least one of them besides ``skip``."""
        real = [name for name in self.operations if name != SKIP]
        kept = rng.choice(len(real), size=int(rng.integers(1, len(real) + 1)), replace=False)
        absent = (SKIP,) if SKIP in self.operations and rng.integers(2) else ()
        return replace(self, operations=(*absent, *(real[index] for index in sorted(kept))))

    def encode(self, genotype: Genotype) -> npt.NDArray[np.float32]:
        """Return shape ``(blocks, choices)``, one hot: per block its choice, in the order of the family."""
        names, every = names_of(genotype), self.blocks.operations
        code = np.zeros((len(names), len(every)), dtype=np.float32)
        code[range(len(names)), [every.index(name) for name in names]] = 1
        return code


@lru_cache(maxsize=4096)
def _possible(network: NetworkSpec, operations: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return for each block of ``network`` those of ``operations`` that are possible there."""
    return tuple(tuple(name for name in operations if name in layout.choices) for layout in block_layouts(network))


def _size(name: str) -> tuple[int, bool, int]:
    choice = BlockChoice.parse(name)
    return (0, False, 0) if choice is None else (choice.expansion, choice.squeeze, choice.kernel)


def _among(possible: Sequence[str], name: str) -> bool:
    return name in possible


def uniform(network: NetworkSpec, choice: BlockChoice | str) -> BlockGenotype:
    """Return the genotype with the same ``choice`` for every block of ``network``."""
    name = choice if isinstance(choice, str) else f"k{choice.kernel}_e{choice.expansion}{'_se' * choice.squeeze}"
    assert network.blocks is not None
    return BlockGenotype(tuple(itertools.repeat(name, network.layers)), family=network.blocks.name)
