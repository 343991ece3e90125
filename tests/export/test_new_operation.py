"""A new operation is one class: registered from here, it goes from the search space to exported files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.errors import ExportError
from cars_hw.export.builder import Builder
from cars_hw.export.format import ExportFormat
from cars_hw.export.formats import FORMATS
from cars_hw.export.graph import Relu
from cars_hw.export.lower import lower_module, lower_network
from cars_hw.export.parity import PARITY_BOUND, check_parity
from cars_hw.latency import Predictor, genotype_keys, profile_device, spec_keys
from cars_hw.nn.cost import published_cost
from cars_hw.nn.layers import Normalization
from cars_hw.nn.network import Network
from cars_hw.nn.operations import make_operation
from cars_hw.nn.supernet import SuperNet
from cars_hw.report.kinds import kind_of
from cars_hw.space.cost import Cost
from cars_hw.space.families import FAMILIES
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.operations import OPERATIONS
from cars_hw.space.operations.conv_1x1 import Conv1x1
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape

SMALL = NetworkSpec(4, 3, (8, 8), 3, classes=5)
FAMILY = "darts+own_1x1"


def spec() -> NetworkSpec:
    """Return a small network whose cells have the operation; it is known only while a test adds it."""
    return SMALL.with_changes(family=FAMILY)


ORDER = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class Own1x1(Conv1x1):
    """What a package adds: the 1x1 convolution of other cells, by a name of its own."""

    name = "own_1x1"
    title = "convolution 1x1"
    short = "conv 1x1"
    family = "separable"


class PositivePart(nn.Module):
    """A module of a kind that the export does not know."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the positive part."""
        return torch.relu(x)

    def lower(self, build: Builder, source: str, name: str) -> str:
        """Lower it as one layer."""
        return build.add(Relu(output=name, inputs=(source,), shape=build.shapes[source]))


@pytest.fixture
def genotypes(monkeypatch: pytest.MonkeyPatch) -> list[Genotype]:
    """Genotypes that have the new operation, drawn from the space."""
    # As if a package with an entry point were installed.
    monkeypatch.setattr("cars_hw.space.operations.plugin_names", lambda _group: [Own1x1.name])
    monkeypatch.setattr("cars_hw.space.operations.load_plugin", lambda _group, _name: Own1x1)
    monkeypatch.setattr(OPERATIONS, "_known", dict(OPERATIONS._known))
    monkeypatch.setattr(OPERATIONS, "_installed", {})
    space = SearchSpace(("max_pool_3x3", "skip_connect", Own1x1.name), family=FAMILY)
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(6)]
    for genotype in drawn:
        for cell in (genotype.normal, genotype.reduce):
            assert {edge.operation for node in cell for edge in node} <= set(space.operations)
    found = [genotype for genotype in drawn if Own1x1.name in str(genotype.to_dict())]
    assert len(found) >= 3
    return found


def test_the_order_is_that_of_darts() -> None:
    assert tuple(OPERATIONS)[: len(ORDER)] == FAMILIES["darts"].operations == SearchSpace().operations == ORDER


def test_the_table_loads_no_torch() -> None:
    code = "import sys, cars_hw.space.operations; print('torch' in sys.modules or 'numpy' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_prediction_cost_and_keys_load_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; "
        "from cars_hw.latency.keys import genotype_keys; from cars_hw.nn.cost import network_cost; "
        "from cars_hw.latency.predictor import Predictor; "
        "from cars_hw.space.network_spec import NETWORKS; from cars_hw.space.zoo import zoo; "
        "spec, genotype = NETWORKS['quick'], zoo()['CARS_A'].genotype; "
        "print(len(genotype_keys(spec, genotype)), network_cost(spec, genotype).parameters)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    keys, parameters = map(int, done.stdout.split())
    assert keys > 30
    assert parameters > 10_000


def test_it_is_encoded_behind_the_others(genotypes: list[Genotype]) -> None:
    code = SearchSpace(family=FAMILY).encode(genotypes[0])
    assert code.shape == (2, 14, 9)
    edges = [edge for cell in (genotypes[0].normal, genotypes[0].reduce) for node in cell for edge in node]
    assert code[:, :, 8].sum() == sum(edge.operation == Own1x1.name for edge in edges) > 0


def test_its_cost_is_counted_as_the_network_has_it(genotypes: list[Genotype]) -> None:
    for genotype in genotypes:
        cost = published_cost(spec(), genotype)
        network = Network(spec(), genotype)
        assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())
    shape = Shape(6, 7, 8)
    for stride, pixels in ((1, 56), (2, 16)):
        module = make_operation(Own1x1.name, 6, stride, Normalization())
        weights = [weight.numel() for weight in module.parameters()]
        # The weights, and scale and shift of the normalisation: an export folds the scale.
        assert weights == [36, 6, 6]
        assert OPERATIONS[Own1x1.name].cost(shape, stride) == Cost(42, 36 * pixels, 6)
        assert lower_module(module.eval(), shape).multiply_adds == weights[0] * pixels


def test_the_supernet_shares_it(genotypes: list[Genotype]) -> None:
    torch.manual_seed(0)
    supernet = SuperNet(spec())
    images = torch.randn(4, *SMALL.input_shape).contiguous(memory_format=torch.channels_last)
    network = Network(spec(), genotypes[0])
    supernet.hand_over(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    with torch.no_grad():
        torch.testing.assert_close(supernet(images, genotypes[0]), network.eval()(images), rtol=1e-4, atol=1e-4)


def test_its_keys_are_measured_and_predicted_on_the_fake_device(genotypes: list[Genotype]) -> None:
    names = {str(key) for key in spec_keys(spec())}
    assert {"own_1x1/c4/8x8/s1", "own_1x1/c8/8x8/s2"} <= names
    keys = [str(placed.key) for placed in genotype_keys(spec(), genotypes[0])]
    assert any(key.startswith("own_1x1/") for key in keys)
    plan = MeasurePlan(sessions=1, patience_seconds=0)
    table = profile_device(FakeDevice(), spec(), calibration=6, plan=plan, space=SearchSpace.of(spec()))
    assert names == set(table.entries)
    predictor = Predictor(table)
    for genotype in genotypes:
        assert predictor.predict(genotype).ms > 0
    assert kind_of(Own1x1.name) == ("convolution 1x1", "conv 1x1", "separable")


@pytest.mark.parametrize("export_format", FORMATS.values(), ids=FORMATS)
def test_it_is_exported_with_parity(
    genotypes: list[Genotype],
    export_format: ExportFormat,
    seasoned: Callable[[nn.Module, Tensor], nn.Module],
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    network = seasoned(Network(spec(), genotypes[0]), torch.randn(8, *SMALL.input_shape))
    assert isinstance(network, Network)
    path = tmp_path / f"net{export_format.suffix}"
    path.write_bytes(export_format.write(lower_network(network)))
    assert 0 < check_parity(network, path, export_format) <= PARITY_BOUND


class Twice(PositivePart):
    """A module that gives two layers the same name."""

    def lower(self, build: Builder, source: str, name: str) -> str:
        """Lower it as two layers."""
        return super().lower(build, super().lower(build, source, name), name)


def test_two_layers_of_the_same_name_are_an_error() -> None:
    with pytest.raises(ExportError, match="two layers are called 'Sequential'"):
        lower_module(nn.Sequential(nn.Identity(), Twice()), Shape(3, 4, 5))
    with pytest.raises(ExportError, match="two layers are called 'image'"):
        Builder((("image", Shape(1, 2, 2)),)).add(Relu(output="image", inputs=("image",), shape=Shape(1, 2, 2)))


@pytest.mark.parametrize("export_format", FORMATS.values(), ids=FORMATS)
def test_a_module_of_its_own_lowers_itself(export_format: ExportFormat, tmp_path: Path) -> None:
    shape = Shape(3, 4, 5)
    graph = lower_module(nn.Sequential(nn.Identity(), PositivePart()), shape)
    (tmp_path / "net").write_bytes(export_format.write(graph))
    images = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    (found,) = export_format.values(tmp_path / "net", images, lambda _name: False).values()
    np.testing.assert_array_equal(found, np.maximum(images, 0))
