from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cars_hw.config.measurement import Precision
from cars_hw.devices import ModelFormat
from cars_hw.errors import InputError
from cars_hw.export.graph import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Graph,
    Layer,
    Linear,
    MaxPool,
    Relu,
    Shift,
    Zeros,
)
from cars_hw.export.lower import lower_network
from cars_hw.latency import OpKey, build_model, genotype_keys, spec_keys
from cars_hw.latency.models import _key_graph
from cars_hw.nn.network import Network
from cars_hw.space.genotype import Edge, Genotype, Node
from cars_hw.space.liveness import live_states, usage_of
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import zoo

CIFAR = NetworkSpec(channels=4, layers=7, resolution=(12, 9))
IMAGENET = NetworkSpec(channels=4, layers=6, resolution=(70, 64), stem="imagenet")


def node(first: str, low: int, second: str, high: int) -> Node:
    return Edge(first, low), Edge(second, high)


def one_sided(source: int) -> tuple[Node, ...]:
    """A cell that takes only one of its inputs."""
    edges = node("sep_conv_3x3", source, "none", 1 - source)
    return (edges, *(node("dil_conv_3x3", 2, "none", 0),) * 3)


ONE_SIDED = [Genotype(one_sided(first), one_sided(second)) for first in (0, 1) for second in (0, 1)]


def some_genotypes() -> list[Genotype]:
    rng = np.random.default_rng(0)
    few = SearchSpace(("none", "skip_connect", "max_pool_3x3"))
    drawn = [space.sample(rng) for space in (SearchSpace(), few) for _ in range(10)]
    return [*drawn, *ONE_SIDED, *(published.genotype for published in zoo().values())]


def test_keys_read_well() -> None:
    texts = [str(key) for key in spec_keys(NETWORKS["cifar"])]
    for text in (
        "stem_cifar/c3-c108/32x32",
        "relu/c108/32x32",
        "relu_conv_bn/c108-c36/32x32",
        "relu_conv_bn/c144-c36/32x32",
        "factorized_reduce/c144-c72/32x32",
        "sep_conv_3x3/c36/32x32/s1",
        "sep_conv_3x3/c72/32x32/s2",
        "skip_connect/c72/32x32/s2",
        "max_pool_3x3/c144/8x8/s1",
        "add/c36/32x32",
        "concat/c36-c144/32x32",
        "zeros/c36/32x32",
        "head/c576-c10/8x8",
    ):
        assert text in texts
    assert not [text for text in texts if text.startswith("skip_connect") and text.endswith("s1")]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("spec", [CIFAR, IMAGENET, *NETWORKS.values()])
def test_the_keys_of_a_spec_are_all_that_any_genotype_needs(spec: NetworkSpec) -> None:
    known = spec_keys(spec)
    assert known == spec_keys(spec)
    needed = {placed.key for genotype in some_genotypes() for placed in genotype_keys(spec, genotype)}
    assert needed <= set(known)
    # Nor are there many that nobody needs: a profile measures every one of them.
    assert len(set(known) - needed) <= 3


def count(layers: tuple[Layer, ...]) -> Counter[str]:
    names = {
        Relu: "relu",
        Add: "add",
        Concat: "concat",
        MaxPool: "max",
        AvgPool: "avg",
        Shift: "shift",
        Zeros: "zeros",
    }
    return Counter(names.get(type(layer), "other") for layer in layers if not isinstance(layer, Conv | Linear))


@pytest.mark.parametrize("spec", [CIFAR, IMAGENET])
def test_the_isolated_models_make_up_the_network_that_ships(spec: NetworkSpec) -> None:
    graphs = {key: _key_graph(key) for key in spec_keys(spec)}
    for genotype in some_genotypes():
        whole = lower_network(Network(spec, genotype).eval())
        parts = [graphs[placed.key] for placed in genotype_keys(spec, genotype)]
        assert sum(part.multiply_adds for part in parts) == whole.multiply_adds
        together = count(tuple(layer for part in parts for layer in part.layers))
        expected = count(whole.layers)
        # A shifted image is shared, as a ReLU is, but is a part of two operations.
        assert expected.pop("shift", 0) <= together.pop("shift", 0)
        assert together == expected


@pytest.mark.parametrize("spec", [CIFAR, IMAGENET])
def test_an_isolated_model_has_the_shapes_that_its_key_says(spec: NetworkSpec) -> None:
    for key in spec_keys(spec):
        graph: Graph = _key_graph(key)
        assert {shape for _, shape in graph.inputs} == {key.source}
        (output,) = graph.outputs
        out = graph.shape(output)
        assert out.channels == key.channels
        outside = sum(np.prod(graph.shape(name)) for name in (*dict(graph.inputs), output))
        assert key.converted in (0, outside)
        assert (key.converted == 0) == (key.kind in ("relu", "add", "concat", "zeros"))


def test_cells_that_nothing_reads_are_not_there() -> None:
    # Every cell reads the one before the last only: of seven cells 6, 4, 2, 0 and the stem's older state.
    skipping = usage_of(one_sided(0))
    assert (skipping.first, skipping.second) == (True, False)
    assert live_states(CIFAR, (skipping, skipping)) == {6, 4, 2, 0, -2}
    cells = {placed.cell for placed in genotype_keys(CIFAR, ONE_SIDED[0])}
    assert cells == {None, 0, 2, 4, 6}


def test_two_edges_are_summed_and_an_empty_node_is_zeros_once_a_cell() -> None:
    genotype = zoo()["SNAS_aggressive"].genotype
    per_cell = Counter((placed.cell, placed.key.kind) for placed in genotype_keys(CIFAR, genotype))
    first, second = CIFAR.reductions
    assert per_cell[0, "add"] == 4
    assert per_cell[first, "add"] == 0
    assert per_cell[second, "zeros"] == 1
    assert per_cell[0, "zeros"] == 0


def test_places_run_from_stem_to_head() -> None:
    placed = genotype_keys(CIFAR, zoo()["CARS_A"].genotype)
    assert placed[0].what == "stem"
    assert placed[-1].what == "head"
    cells = [item.cell for item in placed if item.cell is not None]
    assert cells == sorted(cells)
    assert "node 0 from 0" in {item.what for item in placed}


@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_same_key_is_the_same_file(model_format: ModelFormat, precision: Precision, tmp_path: Path) -> None:
    key = OpKey("sep_conv_3x3", Shape(4, 8, 8), 4, 2)
    for name in ("a", "b"):
        build_model(key, tmp_path / name, model_format, precision)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("model_format", "precision", "message"),
    [
        ("pickle", "fp32", "unknown format 'pickle'; known: onnx, tflite"),
        ("onnx", "int4", "onnx models have no precision 'int4'; known: fp32, int8"),
    ],
)
def test_other_formats_and_precisions_are_refused(
    model_format: str, precision: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        build_model(OpKey("relu", Shape(4, 8, 8), 4), tmp_path / "a", model_format, precision)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
