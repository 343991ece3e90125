"""The memory for activations in ONNX Runtime: what its profiler says, before and after a model is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from long_runs import amount

from cars_hw.errors import ExportError
from cars_hw.export.graph import Graph, Relu
from cars_hw.export.lower import lower_network
from cars_hw.export.onnx import ONNX
from cars_hw.export.ort_memory import activation_bytes, bytes_of_events, runtime_activation_bytes
from cars_hw.nn.fresh_weights import seeded
from cars_hw.nn.network import Network
from cars_hw.pipeline.costs import named_objective
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import resolve_genotype

SPEC = NetworkSpec(8, 3, (12, 12), 1)


def event(in_use: int, change: int = 0) -> dict[str, object]:
    return {
        "cat": "Node",
        "args": {"mem_bytes_requested_in_use": str(in_use), "mem_requested_in_use_delta": str(change)},
    }


def test_the_bytes_are_those_of_the_last_run_above_what_was_there_before_the_first() -> None:
    first = [event(1100, 100), event(1300, 200), event(1250, -50)]
    second = [event(1700), event(1740, 40), event(1740)]
    others = [{"cat": "Session", "args": {}}, {"cat": "Node", "args": {"op_name": "Conv"}}]
    assert bytes_of_events([*others, *first, *second]) == 740
    for events in ([], others, [*first, *second, event(1)]):
        with pytest.raises(ExportError, match="does not tell the memory that a model takes"):
            bytes_of_events(events)


def test_two_layers_take_a_tensor_and_the_output(tmp_path: Path) -> None:
    shape = Shape(32, 8, 8)
    layers = tuple(Relu(output=to, inputs=(source,), shape=shape) for source, to in (("in", "a"), ("a", "out")))
    (tmp_path / "two.onnx").write_bytes(ONNX.write(Graph((("in", shape),), layers, ("out",))))
    size = 4 * 32 * 8 * 8
    assert runtime_activation_bytes(tmp_path / "two.onnx") == pytest.approx(2 * size, rel=0.05)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"ONNX Runtime cannot run .*bad\.onnx") as raised:
        runtime_activation_bytes(tmp_path / "bad.onnx")
    assert "\n" not in str(raised.value)


def test_a_network_takes_what_was_predicted_before_it_had_weights(tmp_path: Path) -> None:
    rng, space = np.random.default_rng(5), SearchSpace()
    for number in range(amount(2, 12)):
        architecture = Architecture(space.sample(rng), SPEC)
        network = seeded(lambda chosen=architecture: Network(SPEC, chosen.genotype), f"trained {number}")
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(ONNX.write(lower_network(network), metadata={"genotype": "x" * 500}))
        found = runtime_activation_bytes(path)
        assert activation_bytes(architecture) == pytest.approx(found, rel=0.1)
        outputs = [4 * int(np.prod(layer.shape)) for layer in lower_network(network).layers]
        assert max(outputs) < found < sum(outputs)
        # At ONNX Runtime's default level, sessions of one file differ by up to 40%.
        assert [runtime_activation_bytes(path) for _ in range(4)] == [found] * 4


def test_the_cost_is_in_megabytes_and_grows_with_the_image() -> None:
    genotype = resolve_genotype("CARS_D")
    cost = named_objective("peak-memory-ort=0.5", "fp32")
    assert (cost.unit, cost.limit) == ("MB", 0.5)
    small, large = (cost.value(Architecture(genotype, NetworkSpec(8, 3, (side, side), 1))) for side in (12, 24))
    # Four times the pixels; what does not grow with them is small.
    assert 3 < large / small < 4.5
    assert small == activation_bytes(Architecture(genotype, SPEC)) / 1e6
