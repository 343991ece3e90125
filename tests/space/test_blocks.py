"""Networks of blocks: genotypes, where blocks stand, costs, draws and offspring."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from cars_hw.config.codec import structure, unstructure
from cars_hw.config.search import VariationRates
from cars_hw.errors import GenotypeError, InputError, SpecError
from cars_hw.evolution.variation import crossover, mutate, offspring
from cars_hw.latency import fastest_genotype
from cars_hw.nn.cost import network_cost, published_cost
from cars_hw.report.blocks import describe
from cars_hw.space.architecture import Architecture
from cars_hw.space.architecture_space import ArchitectureSpace
from cars_hw.space.block_cost import block_cost
from cars_hw.space.block_space import BlockSpace, uniform
from cars_hw.space.blocks import block_layouts, head_channels, stem_layouts
from cars_hw.space.fair_draws import FairDraws
from cars_hw.space.families import BLOCK_FAMILIES
from cars_hw.space.genotype import BlockGenotype, Genotype
from cars_hw.space.mobile import Block
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.shape import Shape
from cars_hw.space.size_grid import SizeGrid
from cars_hw.space.space_of import space_of

SPEC = NetworkSpec(4, 4, (9, 9), 1, classes=10, family="mobile")
GENOTYPE = BlockGenotype(("skip", "k5_e3_se", "k3_e1", "k7_e6"))


def test_where_blocks_stand() -> None:
    # Four blocks are stages of one, one and two; the second and the third stage begin by halving.
    shapes = [(one.source, one.channels, one.stride) for one in block_layouts(SPEC)]
    assert shapes == [
        (Shape(4, 9, 9), 4, 1),
        (Shape(4, 9, 9), 8, 2),
        (Shape(8, 5, 5), 16, 2),
        (Shape(16, 3, 3), 16, 1),
    ]
    assert [one.skippable for one in block_layouts(SPEC)] == [True, False, False, True]
    assert [len(one.choices) for one in block_layouts(SPEC)] == [19, 18, 18, 19]
    assert head_channels(SPEC) == 64
    large = replace(SPEC, stem="imagenet", resolution=(64, 64))
    assert [one.output for one in stem_layouts(large)] == [Shape(2, 32, 32), Shape(4, 16, 16), Shape(4, 8, 8)]


def test_costs_worked_out_by_hand() -> None:
    # Expansion to 12 channels, filters of 5x5, squeeze to 1 channel, projection to 8.
    cost = block_cost(Block(3, 5, 8, 2, 0.25), Shape(4, 9, 9))
    assert cost.parameters == (4 * 12 + 12) + (12 * 25 + 12) + (12 + 1) + (12 + 12) + (12 * 8 + 8)
    assert cost.multiply_adds == 4 * 12 * 81 + 12 * 25 * 25 + 2 * 12 + 12 * 8 * 25
    whole = network_cost(SPEC, GENOTYPE)
    stem, third = (9 * 4 + 4, 9 * 4 * 81), ((8 * 9 + 8) + (8 * 16 + 16), 8 * 9 * 9 + 8 * 16 * 9)
    fourth = ((16 * 96 + 96) + (96 * 49 + 96) + (96 * 16 + 16), (16 * 96 + 96 * 49 + 96 * 16) * 9)
    head = ((16 * 64 + 64) + (64 * 10 + 10), 16 * 64 * 9 + 64 * 10)
    parts = [stem, (cost.parameters, cost.multiply_adds), third, fourth, head]
    assert (whole.parameters, whole.multiply_adds) == tuple(map(sum, zip(*parts, strict=True)))
    assert published_cost(SPEC, GENOTYPE).parameters == whole.parameters + whole.folded


def test_genotypes_are_written_and_read_again() -> None:
    assert GENOTYPE.to_dict() == {"family": "mobile", "blocks": ["skip", "k5_e3_se", "k3_e1", "k7_e6"]}
    assert Genotype.from_dict(GENOTYPE.to_dict()) == GENOTYPE
    assert Genotype.parse(GENOTYPE.to_darts()) == GENOTYPE
    assert structure(unstructure(GENOTYPE), Genotype) == GENOTYPE
    assert unstructure(Architecture(GENOTYPE, SPEC).network)["family"] == "mobile"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"family": "mobile"}, "'blocks', a list of choices"),
        ({"family": "mobile", "blocks": []}, "at least one block"),
        ({"family": "mobile", "blocks": ["k3_e1", 3]}, "a list of choices"),
        ({"family": "mobile", "blocks": ["k3_e4"]}, "block 1 has an unknown choice 'k3_e4'; known: skip, k3_e1"),
        ({"family": "portable", "blocks": ["k3_e1"]}, "unknown family of cells 'portable'"),
    ],
)
def test_what_is_no_genotype_is_refused(value: object, message: str) -> None:
    with pytest.raises(GenotypeError, match=message.replace("'", ".")):
        Genotype.from_dict(value)


def test_an_error_counts_blocks_as_the_report_does() -> None:
    left_out = BlockGenotype(("k3_e1", "k3_e1", "k3_e1", "skip"))
    assert "; block 4 is left out" in describe(SPEC, left_out)
    with pytest.raises(GenotypeError, match=r"^block 4 has an unknown choice"):
        BlockGenotype((*left_out.blocks[:3], "k3_e4"))
    for place in SPEC.reductions:
        blocks = tuple("skip" if number == place else "k3_e1" for number in range(SPEC.layers))
        shown = describe(SPEC, BlockGenotype(blocks)).split("; ")[place].removesuffix(" is left out")
        with pytest.raises(GenotypeError, match=f"^{shown} begins a stage"):
            network_cost(SPEC, BlockGenotype(blocks))


def test_what_a_network_of_blocks_cannot_be_is_refused() -> None:
    for blocks, message in (
        (("k3_e1",) * 5, "has 5 blocks and the network 4"),
        (("k3_e1", "skip", "k3_e1", "k3_e1"), "block 2 begins a stage"),
    ):
        with pytest.raises(GenotypeError, match=message):
            network_cost(SPEC, BlockGenotype(blocks))
    with pytest.raises(SpecError, match="the genotype has mobile blocks and the network darts cells"):
        network_cost(replace(SPEC, family="darts"), GENOTYPE)
    with pytest.raises(InputError, match=r"no further operations: 'mobile.conv_1x1'"):
        replace(SPEC, family="mobile+conv_1x1")
    with pytest.raises(SpecError, match="their stem cannot be cells"):
        replace(SPEC, stem="cells", resolution=(64, 64))
    for ask in (SPEC.cells, lambda: GENOTYPE.cell(reduction=True), lambda: GENOTYPE.parts):
        with pytest.raises(GenotypeError, match=r"blocks and ha(s|ve) no cells"):
            ask()
    with pytest.raises(SpecError, match="one number of blocks, not 4 to 5"):
        ArchitectureSpace(space_of(SPEC), SPEC, SizeGrid((4,), (4, 5)))
    with pytest.raises(GenotypeError, match="unknown choice 'sep_conv_3x3'"):
        space_of(SPEC, ("sep_conv_3x3",))
    with pytest.raises(GenotypeError, match="needs a network"):
        BlockSpace().sample(np.random.default_rng(0))


def test_draws_and_mutations_reach_every_choice() -> None:
    space, rng = space_of(SPEC), np.random.default_rng(0)
    choices = {place: set(space.choices(place)) for place in space.places()}
    every = set(BLOCK_FAMILIES["mobile"].operations)
    assert choices == {0: every, 1: every - {"skip"}, 2: every - {"skip"}, 3: every}
    drawn: dict[object, Counter[str]] = {place: Counter() for place in choices}
    mutated: dict[object, set[str]] = {place: set() for place in choices}
    for _ in range(400):
        one, other = space.sample(rng), mutate(GENOTYPE, space, 0.5, rng)
        space.validate(one)
        space.validate(other)
        for place in choices:
            drawn[place][space.choice_of(one, place)] += 1
            mutated[place].add(space.choice_of(other, place))
    assert mutated == choices
    assert all(set(counts) == choices[place] for place, counts in drawn.items())
    assert mutate(GENOTYPE, space, 0.0, rng) == GENOTYPE


def test_crossover_takes_each_block_from_one_of_both() -> None:
    space, other = space_of(SPEC), uniform(SPEC, "k3_e6")
    seen = {crossover(GENOTYPE, other, space, 0.5, np.random.default_rng(seed)).key() for seed in range(200)}
    assert len(seen) == 2**4
    assert crossover(GENOTYPE, other, space, 1.0, np.random.default_rng(0)) == other


def test_neighbours_differ_in_one_block_and_are_all() -> None:
    found = list(space_of(SPEC).neighbours(GENOTYPE))
    assert len(set(found)) == len(found) == 18 + 17 + 17 + 18
    for one in found:
        assert isinstance(one, BlockGenotype)
        assert sum(a != b for a, b in zip(one.blocks, GENOTYPE.blocks, strict=True)) == 1


def test_offspring_keep_to_a_limit_and_the_cheapest_genotype_is_found() -> None:
    space = ArchitectureSpace(space_of(SPEC), SPEC, SizeGrid((2, 4), (4,)))
    own = space.cells_for(SPEC)

    def parameters(genotype: Genotype) -> float:
        return network_cost(SPEC, genotype).parameters

    cheapest = fastest_genotype(own, parameters, np.random.default_rng(0), 1)
    assert cheapest == BlockGenotype(("skip", "k3_e1", "k3_e1", "skip"))
    rng, rates = np.random.default_rng(1), VariationRates(mutation=0.5, crossover=0.4, random=0.1)
    limit = 1.2 * parameters(cheapest)
    children = offspring(
        [Architecture(cheapest, SPEC), Architecture(GENOTYPE, SPEC)],
        12,
        space,
        rates,
        rng,
        allowed=lambda one: network_cost(one.network, one.genotype).parameters <= limit,
        anchor=Architecture(cheapest, SPEC),
    )
    assert len({child.key() for child in children}) == 12
    assert all(network_cost(one.network, one.genotype).parameters <= limit for one in children)
    assert {one.network.channels for one in children} == {2, 4}


def test_fair_draws_give_every_choice_its_turn() -> None:
    draws, rng = FairDraws(ArchitectureSpace(space_of(SPEC), SPEC)), np.random.default_rng(0)
    seen: list[Counter[str]] = [Counter() for _ in range(4)]
    for _ in range(38):
        genotype = draws.sample(rng).genotype
        assert isinstance(genotype, BlockGenotype)
        for counts, name in zip(seen, genotype.blocks, strict=True):
            counts[name] += 1
    assert set(seen[0].values()) == {2}
    assert max(seen[1].values()) - min(seen[1].values()) == 1
    again = FairDraws(draws.space)
    again.restore(draws.state())
    assert again.sample(np.random.default_rng(3)) == draws.sample(np.random.default_rng(3))


def test_a_code_has_one_choice_for_each_block() -> None:
    space = space_of(SPEC)
    assert isinstance(space, BlockSpace)
    code = space.encode(GENOTYPE)
    assert code.shape == (4, 19)
    assert code.sum() == 4
    assert code[0, 0] == code[2, 1] == 1
