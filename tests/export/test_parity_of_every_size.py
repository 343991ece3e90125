"""Every genotype at every size: the exported files compute what the network computes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from long_runs import amount

from cars_hw.export.card import ModelCard, card_path
from cars_hw.export.export import export_genotype
from cars_hw.export.formats import FORMATS
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.zoo import zoo

SIZES = [
    *(
        NetworkSpec(channels, layers, resolution, in_channels)
        for channels, layers, resolution, in_channels in product(
            (2, 6, 16), (3, 5, 8), ((8, 8), (14, 14), (15, 17), (28, 28), (33, 32)), (1, 3)
        )
    ),
    *(
        NetworkSpec(8, layers, resolution, stem="imagenet")
        for layers in (3, 5)
        for resolution in ((32, 32), (45, 47))
    ),
]
"""Even and odd sides, one and three channels, both stems."""


def cases() -> list[tuple[str, Genotype, NetworkSpec]]:
    """Return pairs of a genotype and a size, in a fixed random order; `make test-long` takes all of them."""
    rng = np.random.default_rng(0)
    genotypes = {name: published.genotype for name, published in zoo().items()}
    genotypes |= {f"random-{number}": SearchSpace().sample(rng) for number in range(200)}
    names = list(genotypes)
    # Each genotype once, each size about equally often.
    order = [(name, SIZES[number % len(SIZES)]) for number, name in enumerate(rng.permutation(names))]
    order += [(str(rng.choice(names)), SIZES[number % len(SIZES)]) for number in range(400)]
    return [(name, genotypes[name], spec) for name, spec in order[: amount(8, 600)]]


@pytest.mark.parametrize(
    ("genotype", "spec"),
    [
        pytest.param(genotype, spec, id=f"{name}-{spec.describe()}".replace(" ", "_"))
        for name, genotype, spec in cases()
    ],
)
def test_both_formats_agree_with_the_network(genotype: Genotype, spec: NetworkSpec, tmp_path: Path) -> None:
    # export_genotype raises where a file is off by more than the bound, and then writes nothing.
    exported = export_genotype(genotype, spec, tmp_path, name="model")
    assert {one.path.suffix for one in exported} == {one.suffix for one in FORMATS.values()}
    for one in exported:
        assert one.path.stat().st_size > 1000
        assert ModelCard.read(card_path(one.path)).genotype == genotype
