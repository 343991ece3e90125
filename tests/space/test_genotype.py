import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cars_hw.errors import GenotypeError
from cars_hw.space.families import FAMILIES
from cars_hw.space.genotype import NODES, Cell, Edge, Genotype
from cars_hw.space.zoo import zoo

CARS_A_AS_PUBLISHED = (
    "Genotype(normal=[('skip_connect', 0), ('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('avg_pool_3x3', 1), "
    "('max_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 2)], "
    "normal_concat=range(2, 6), "
    "reduce=[('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 1), "
    "('max_pool_3x3', 0), ('dil_conv_5x5', 1), ('dil_conv_5x5', 0), ('skip_connect', 2)], "
    "reduce_concat=range(2, 6))"
)
PAIRS = [["skip_connect", 0], ["skip_connect", 1]] * NODES


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    """Legal cells, empty nodes among them: only the first node is sure to have a real edge."""
    nodes = []
    empty: set[int] = set()
    for number in range(NODES):
        sources = draw(st.permutations(range(number + 2)))[:2]
        known = [FAMILIES["darts"].operations if source not in empty else ("none",) for source in sources]
        first, second = (Edge(draw(st.sampled_from(names)), source) for names, source in zip(known, sources))  # noqa: B905
        if number == 0 and not (first.is_real or second.is_real):
            first = first._replace(operation="skip_connect")
        if not (first.is_real or second.is_real):
            empty.add(number + 2)
        nodes.append((first, second))
    return tuple(nodes)


genotypes = st.builds(Genotype, cells(), cells())


def cell(*changes: tuple[int, object]) -> list[list[Any]]:
    pairs = [list(pair) for pair in PAIRS]
    for position, pair in changes:
        pairs[position] = pair
    return pairs


@given(genotypes)
def test_json_round_trip(genotype: Genotype) -> None:
    assert Genotype.from_dict(genotype.to_dict()) == genotype
    assert Genotype.parse(json.dumps(genotype.to_dict())) == genotype


@given(genotypes)
def test_darts_round_trip(genotype: Genotype) -> None:
    assert Genotype.from_darts(genotype.to_darts()) == genotype
    assert Genotype.parse(f"  {genotype.to_darts()}\n") == genotype


@given(genotypes, st.randoms(use_true_random=False))
def test_key_ignores_order_in_a_node(genotype: Genotype, random: Random) -> None:
    def shuffled(cell: Cell) -> Cell:
        return tuple((node[1], node[0]) if random.random() < 0.5 else node for node in cell)

    assert Genotype(shuffled(genotype.normal), shuffled(genotype.reduce)).key() == genotype.key()


def test_key_ignores_where_a_none_hangs() -> None:
    def with_last(*pairs: list[Any]) -> Genotype:
        return Genotype.from_dict({"normal": PAIRS[:6] + list(pairs), "reduce": PAIRS})

    sources = [with_last(["none", source], ["sep_conv_3x3", 4]) for source in (0, 1, 2, 3)]
    assert len({genotype.key() for genotype in sources}) == 1
    assert len(set(sources)) == 4


@pytest.mark.parametrize(
    "changed", [["skip_connect", 3], ["sep_conv_5x5", 4], ["none", 4]], ids=["source", "operation", "absent"]
)
def test_key_tells_different_networks_apart(changed: list[Any]) -> None:
    one = Genotype.from_dict({"normal": [*PAIRS[:7], ["skip_connect", 4]], "reduce": PAIRS})
    other = Genotype.from_dict({"normal": [*PAIRS[:7], changed], "reduce": PAIRS})
    assert one.key() != other.key()


def test_key_tells_the_cells_apart() -> None:
    other = [*PAIRS[:7], ["sep_conv_3x3", 4]]
    one = Genotype.from_dict({"normal": PAIRS, "reduce": other})
    assert one.key() != Genotype.from_dict({"normal": other, "reduce": PAIRS}).key()


def test_darts_text_as_it_is_published() -> None:
    genotype = Genotype.from_darts(CARS_A_AS_PUBLISHED)
    assert genotype == zoo()["CARS_A"].genotype
    assert genotype.normal[3] == (Edge("sep_conv_3x3", 0), Edge("dil_conv_5x5", 2))
    assert genotype.cell(reduction=True)[0] == (Edge("avg_pool_3x3", 0), Edge("max_pool_3x3", 1))
    assert genotype.cell(reduction=False) == genotype.normal


def test_darts_text_by_position_and_without_concatenation() -> None:
    positional = CARS_A_AS_PUBLISHED
    for name in ("normal=", "normal_concat=", "reduce=", "reduce_concat="):
        positional = positional.replace(name, "")
    short = CARS_A_AS_PUBLISHED.replace(" normal_concat=range(2, 6),", "").replace(
        ", reduce_concat=range(2, 6)", ""
    )
    assert Genotype.parse(positional) == Genotype.parse(short) == zoo()["CARS_A"].genotype


ATTACKS = {
    "a call": "Genotype(normal=__import__('os').mkdir(MARK), reduce=[])",
    "a call instead of it": "__import__('os').mkdir(MARK)",
    "a call in a range": "Genotype(normal_concat=range(2, __import__('os').mkdir(MARK)), normal=[], reduce=[])",
    "a call after it": "Genotype(normal=[], reduce=[]) or __import__('os').mkdir(MARK)",
    "a statement": "import os; os.mkdir(MARK)",
    "a comprehension": "Genotype(normal=[__import__('os').mkdir(MARK) for _ in (1,)], reduce=[])",
    "an f-string": "Genotype(normal=f'{__import__(\"os\").mkdir(MARK)}', reduce=[])",
    "a lambda": "Genotype(normal=(lambda: __import__('os').mkdir(MARK))(), reduce=[])",
    "attribute access": "Genotype(normal=().__class__, reduce=[])",
    "a method": "Genotype.from_dict({})",
    "an attribute's call": "os.Genotype(normal=[], reduce=[])",
    "a name": "Genotype(normal=PRIMITIVES, reduce=[])",
    "unpacking": "Genotype(*[[], []])",
    "unpacking names": "Genotype(**{'normal': [], 'reduce': []})",
    "an endless range": "Genotype(normal=range(10**30), reduce=[])",
    "a long range": "Genotype(normal=[], normal_concat=range(0, 100000000000), reduce=[])",
    "a power": "Genotype(normal=9**9**9**9, reduce=[])",
    "brackets": "[" * 5000,
    "parentheses": "Genotype(normal=" + "(" * 150 + "1" + ")" * 150 + ", reduce=[])",
    "signs": "Genotype(normal=" + "-" * 9000 + "1, reduce=[])",
    "sums": "Genotype(normal=" + "1+" * 4900 + "1, reduce=[])",
    "attributes": "Genotype(normal=a" + ".a" * 4900 + ", reduce=[])",
    "a flood": "Genotype(normal=" + "-" * 10**6 + "1, reduce=[])",
    "a null byte": "Genotype(normal=[\0], reduce=[])",
    "half a character": "Genotype(normal='\ud800', reduce=[])",
    "nothing": "",
    "no call": "Genotype",
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS.keys())
def test_text_is_never_evaluated(text: str, tmp_path: Path) -> None:
    mark = tmp_path / "evaluated"
    for parse in (Genotype.parse, Genotype.from_darts):
        with pytest.raises(GenotypeError) as error:
            parse(text.replace("MARK", repr(str(mark))))
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"normal": ' + "9" * (sys.get_int_max_str_digits() + 1) + "}",
        '{"a":' * 100_000,
        '{"normal": ' + "[" * 100_000,
        "{'normal': []}",
        "{",
        '{"normal": NaN, "reduce": []}',
        '{"normal": [], "reduce": []}',
    ],
    ids=["digits", "objects", "lists", "quotes", "cut", "nan", "empty"],
)
def test_broken_json_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(GenotypeError) as error:
        Genotype.parse(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


ILLEGAL = {
    "unknown operation": (
        cell((0, ["conv_7x1", 0])),
        "node 0 of the normal cell has an unknown operation 'conv_7x1'; known: none, max_pool_3x3",
    ),
    "operation of many lines": (cell((0, ["a\nb", 0])), r"unknown operation 'a\\nb'"),
    "twice the same": (
        cell((3, ["sep_conv_3x3", 0])),
        "node 1 of the normal cell takes input 0 twice; its two inputs must differ",
    ),
    "from the future": (
        cell((5, ["sep_conv_3x3", 4])),
        "node 2 of the normal cell takes input 4; it can only look back at 0 to 3",
    ),
    "itself": (cell((0, ["sep_conv_3x3", 2])), "node 0 of the normal cell takes input 2"),
    "before the beginning": (cell((0, ["sep_conv_3x3", -1])), "node 0 of the normal cell takes input -1"),
    "from an empty node": (
        cell((2, ["none", 0]), (3, ["none", 1]), (6, ["skip_connect", 3])),
        "node 3 of the normal cell takes input 3, a node without any real edge",
    ),
    "all none": ([["none", 0], ["none", 1]] * NODES, "the normal cell has no real edge: every operation is none"),
    "a node short": (PAIRS[:-2], "the normal cell needs 8 pairs of operation and input, two a node"),
    "half a node short": (PAIRS[:-1], "needs 8 pairs"),
    "a node more": (PAIRS + PAIRS[:2], "needs 8 pairs"),
    "no list": ("skip_connect", "needs 8 pairs"),
    "a triple": (cell((4, ["skip_connect", 0, 1])), r"the normal cell's pair 5 is not \[operation, input\]"),
    "turned round": (cell((4, [0, "skip_connect"])), r"pair 5 is not \[operation, input\]: \[0, 'skip_connect'\]"),
    "a boolean input": (cell((4, ["skip_connect", True])), "pair 5 is not"),
    "a fraction": (cell((4, ["skip_connect", 0.0])), "pair 5 is not"),
    "a deep pair": (cell((4, deep(900))), "pair 5 is not"),
}


@pytest.mark.parametrize(("pairs", "message"), ILLEGAL.values(), ids=ILLEGAL.keys())
def test_illegal_cells_say_what_is_wrong(pairs: object, message: str) -> None:
    with pytest.raises(GenotypeError, match=message) as error:
        Genotype.from_dict({"normal": pairs, "reduce": PAIRS})
    assert "\n" not in str(error.value)
    with pytest.raises(GenotypeError, match=message.replace("normal", "reduce")):
        Genotype.from_dict({"normal": PAIRS, "reduce": pairs})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "a genotype is an object with 'normal' and 'reduce', not list"),
        ({"normal": PAIRS}, "the genotype has no 'reduce' cell"),
        ({"reduce": PAIRS}, "the genotype has no 'normal' cell"),
        (
            {"normal": PAIRS, "reduce": PAIRS, "normal_concat": [3, 4, 5]},
            r"the normal cell concatenates \[3, 4, 5\]; this space concatenates nodes \[2, 3, 4, 5\]",
        ),
        ({"normal": PAIRS, "reduce": PAIRS, "reduce_concat": "2345"}, "the reduce cell concatenates '2345'"),
    ],
)
def test_incomplete_objects_say_what_is_missing(value: object, message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        Genotype.from_dict(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Genotype([], [], [], [], [])", "more than four fields"),
        ("Genotype(normal=[], depth=3)", "unexpected field 'depth'"),
        ("Genotype([], normal=[])", "unexpected field 'normal'"),
        ("Genotype(normal=[], normal_concat=range(2, 6, 2))", "'normal_concat' has a range that is not of a cell"),
        ("Genotype(normal=[], normal_concat=range(-1, 6))", "'normal_concat' has a range that is not of a cell"),
        ("Cell(normal=[], reduce=[])", "not DARTS text: expected Genotype"),
    ],
)
def test_malformed_darts_text_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        Genotype.from_darts(text)


def test_a_none_may_hang_from_an_empty_node() -> None:
    pairs = cell((2, ["none", 0]), (3, ["none", 1]), (6, ["none", 3]))
    genotype = Genotype.from_dict({"normal": pairs, "reduce": PAIRS})
    assert genotype.normal[3][0] == Edge("none", 3)


def test_a_wrong_number_of_nodes_is_refused_when_built_directly() -> None:
    legal = Genotype.from_dict({"normal": PAIRS, "reduce": PAIRS})
    with pytest.raises(GenotypeError, match="the reduce cell has 3 nodes; it needs 4"):
        Genotype(legal.normal, legal.reduce[:3])


@settings(max_examples=200)
@given(st.text(max_size=80))
def test_any_text_is_a_genotype_error(text: str) -> None:
    with pytest.raises(GenotypeError):
        Genotype.parse(text)
