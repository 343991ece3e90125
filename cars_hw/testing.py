"""Tests for packages that extend cars-hw, run by pytest.

Every device must pass :class:`DeviceContract`, every export format :class:`FormatContract`, every cost
:class:`CostContract`, every function that returns a data set :class:`DataContract`, every recipe
:class:`RecipeContract`, and every operation :class:`OperationContract`. Make a subclass with a name that begins
with ``Test``, with the method that returns what is tested.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device
from cars_hw.errors import DeviceError, ExportError
from cars_hw.export.graph import Conv, Graph, Relu
from cars_hw.export.write import write_graph
from cars_hw.measurement.schedule import measure
from cars_hw.space.architecture import Architecture
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape

if TYPE_CHECKING:
    from cars_hw.config.training import Recipe
    from cars_hw.export.format import ExportFormat
    from cars_hw.pipeline.costs import NetworkCost
    from cars_hw.space.operations import Operation

SPEC: Final = NetworkSpec(4, 3, (9, 8), 3, classes=3)
"""A small network, for tests of costs and formats."""

PLAN = MeasurePlan(sessions=2, min_runs=5, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0, patience_seconds=0)


def write_conv(path: Path, channels: int) -> Path:
    """Write a convolution in the format that the path's name ends in."""
    shape = Shape(channels, 16, 16)
    weight = np.ones((channels, channels, 3, 3), np.float32)
    conv = Conv(
        output="out",
        inputs=("in",),
        shape=shape,
        weight=weight,
        bias=None,
        stride=1,
        padding=1,
        dilation=1,
        groups=1,
    )
    write_graph(Graph((("in", shape),), (conv,), ("out",)), path, path.suffix.removeprefix("."))
    return path


def _refused(call: Callable[[], object]) -> str:
    """Return the message of the DeviceError that ``call`` raises."""
    try:
        call()
    except DeviceError as error:
        return str(error)
    raise AssertionError("no DeviceError was raised")


class DeviceContract:
    """The tests that every device must pass. Make a subclass with a name that begins with ``Test``, for pytest."""

    def device(self) -> Device:
        """Return the device that is tested."""
        raise NotImplementedError

    def conv(self, folder: Path, channels: int) -> Path:
        """Write a convolution of so many channels in the format of the device, and return its path."""
        return write_conv(folder / f"{channels}.{self.device().model_format}", channels)

    def test_every_model_gets_a_positive_time_from_every_session(self, tmp_path: Path) -> None:
        """Every model gets a positive time from every session."""
        models = [self.conv(tmp_path, channels) for channels in (1, 2, 4)]
        measured = measure(self.device(), models, PLAN).models
        assert len(measured) == 3
        # On a restless machine, sessions of the quiet state differ, although the factor of all of them is 1. The
        # fit moves them by at most the difference of two sessions of a model.
        apart = max(
            max(sample.ms for sample in one.samples) / min(sample.ms for sample in one.samples) for one in measured
        )
        for measurement in measured:
            assert measurement.sessions == len(measurement.samples) == 2
            assert measurement.ms > 0
            # The quiet latency lies among the samples, each brought to the quiet state by its rounded factor.
            times = [
                sample.ms / (sample.factor or 1.0) ** measurement.sensitivity for sample in measurement.samples
            ]
            assert min(times) * 0.9998 / apart <= measurement.ms <= max(times) * 1.0002 * apart
            assert 0 <= measurement.spread < 1

    def test_a_much_larger_model_is_slower_wherever_it_stands_in_the_list(self, tmp_path: Path) -> None:
        """A much larger model is slower wherever it stands in the list."""
        # 160 squared is 1600 times 4 squared: no noise hides that.
        small, large = self.conv(tmp_path, 4), self.conv(tmp_path, 160)
        for models in ([small, large], [large, small]):
            times = dict(zip(models, measure(self.device(), models, PLAN).models, strict=True))
            assert times[large].ms > 3 * times[small].ms

    def test_a_run_gives_a_sample_each_in_order_however_often_a_model_comes(self, tmp_path: Path) -> None:
        """A run gives a sample each in order however often a model comes."""
        small, large = self.conv(tmp_path, 4), self.conv(tmp_path, 160)
        seen: list[int] = []
        first, second, third = self.device().run([small, large, small], PLAN, 0, seen.append)
        assert second.ms > 3 * max(first.ms, third.ms)
        assert seen == [1, 2, 3]
        assert first.factor is None

    def test_nothing_to_measure_is_nothing_measured(self) -> None:
        """Nothing to measure is nothing measured."""
        assert measure(self.device(), [], PLAN).models == []

    def test_progress_counts_the_sessions_up_to_their_number(self, tmp_path: Path) -> None:
        """Progress counts the sessions up to their number."""
        models = [self.conv(tmp_path, channels) for channels in (1, 2)]
        seen: list[tuple[str, int, int]] = []
        measure(self.device(), models, PLAN, progress=lambda *step: seen.append(step))
        assert seen == sorted(seen)
        assert seen[-1] == ("measuring", 4, 4)

    def test_a_missing_file_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        """A missing file is an error that names it."""
        missing = tmp_path / f"nowhere.{self.device().model_format}"
        assert missing.name in _refused(lambda: measure(self.device(), [missing], PLAN))

    def test_a_file_that_is_no_model_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        """A file that is no model is an error that names it."""
        good, bad = self.conv(tmp_path, 1), tmp_path / f"bad.{self.device().model_format}"
        bad.write_bytes(b"this is no model")
        message = _refused(lambda: measure(self.device(), [good, bad], PLAN))
        assert bad.name in message
        assert "\n" not in message

    def test_the_conditions_are_complete_and_json(self) -> None:
        """The conditions are complete and json."""
        conditions = self.device().conditions()
        named = {"processor", "cores", "platform", "runtime", "threads", "pinned", "load", "time"}
        assert named <= set(conditions)
        assert conditions["threads"] == 1
        assert json.loads(json.dumps(conditions)) == conditions


class FormatContract:
    """The tests that every export format must pass. Make a subclass with a name that begins with ``Test``."""

    def export_format(self) -> ExportFormat:
        """Return the format that is tested."""
        raise NotImplementedError

    def test_its_name_and_the_end_of_its_files_are_its_own(self) -> None:
        """Its name and the end of its files are its own."""
        from cars_hw.export.formats import FORMATS

        tested = self.export_format()
        others = [one for one in FORMATS.values() if one is not tested]
        assert tested.name not in [one.name for one in others]
        assert tested.suffix not in [one.suffix for one in others]
        # Files are told apart by what Path.suffix returns.
        assert Path(f"net{tested.suffix}").suffix == tested.suffix
        assert tested.layout in ("NCHW", "NHWC")
        assert "fp32" in tested.precisions

    def test_values_are_the_outputs_and_what_is_wanted_in_the_layout_of_torch(self, tmp_path: Path) -> None:
        """Values are the outputs and what is wanted in the layout of torch."""
        shape = Shape(2, 3, 4)
        layers = tuple(
            Relu(output=name, inputs=(source,), shape=shape)
            for source, name in (("image", "first"), ("first", "second"))
        )
        graph = Graph((("image", shape),), layers, ("second",))
        tested = self.export_format()
        path = tmp_path / f"net{tested.suffix}"
        path.write_bytes(tested.write(graph))
        images = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
        found = tested.values(path, images, lambda name: name == "first")
        assert sorted(found) == ["first", "second"]
        for value in found.values():
            np.testing.assert_array_equal(value, np.maximum(images, 0))

    def test_every_operation_computes_what_the_network_computes(self, tmp_path: Path) -> None:
        """Every operation computes what the network computes, with images of an odd height."""
        from cars_hw.export.lower import lower_network
        from cars_hw.export.parity import check_parity
        from cars_hw.nn.fresh_weights import seeded
        from cars_hw.nn.network import Network
        from cars_hw.space.zoo import resolve_genotype

        tested = self.export_format()
        # Together they have every operation twice.
        for name in ("CARS_D", "PDARTS"):
            network = seeded(partial(Network, SPEC, resolve_genotype(name)), name)
            path = tmp_path / f"{name}{tested.suffix}"
            graph = lower_network(network)
            path.write_bytes(tested.write(graph, metadata={"genotype": name}))
            check_parity(network, path, tested)
            assert tested.write(graph, metadata={"genotype": name}) == path.read_bytes()
            image = np.random.default_rng(0).standard_normal((1, *SPEC.input_shape), np.float32)
            logits = tested.values(path, image, lambda _name: False)["logits"]
            batch = image if tested.layout == "NCHW" else np.ascontiguousarray(image.transpose(0, 2, 3, 1))
            np.testing.assert_allclose(tested.open(path)(batch), logits, rtol=1e-5, atol=1e-6)

    def test_a_file_that_is_no_model_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        """A file that is no model is an error that names it."""
        tested = self.export_format()
        path = tmp_path / f"bad{tested.suffix}"
        path.write_bytes(b"this is no model")
        try:
            tested.values(path, np.zeros((1, *SPEC.input_shape), np.float32), lambda _name: False)
        except ExportError as error:
            assert path.name in str(error)
        else:
            raise AssertionError("no ExportError was raised")


class CostContract:
    """The tests that every cost must pass. Make a subclass with a name that begins with ``Test``."""

    def cost(self) -> NetworkCost:
        """Return the cost that is tested."""
        raise NotImplementedError

    def architectures(self) -> list[Architecture]:
        """Return the architectures whose costs are taken: random ones of two sizes."""
        rng, space = np.random.default_rng(0), SearchSpace()
        return [Architecture(space.sample(rng), replace(SPEC, channels=size)) for size in (4, 8) for _ in range(8)]

    def test_it_is_a_cost_with_a_unit(self) -> None:
        """It is a cost with a unit and a summary."""
        from cars_hw.pipeline.costs import NetworkCost

        tested = self.cost()
        assert isinstance(tested, NetworkCost)
        assert tested.unit
        assert tested.summary

    def test_every_architecture_has_a_value_that_stays_the_same(self) -> None:
        """Every architecture has a value that stays the same: a number that is not negative."""
        tested, architectures = self.cost(), self.architectures()
        values = [float(tested.value(one, "fp32")) for one in architectures]
        assert all(0 <= value < float("inf") for value in values)
        assert [float(tested.value(one, "fp32")) for one in reversed(architectures)] == values[::-1]

    def test_architectures_differ_by_more_than_a_thousandth_of_the_unit(self) -> None:
        """Architectures differ by more than a thousandth of the unit: less is shown as the same."""
        values = [float(self.cost().value(one, "fp32")) for one in self.architectures()]
        assert max(values) - min(values) > 1e-3


class DataContract:
    """The tests that every function that returns a data set must pass. Make a subclass named ``Test...``."""

    def source(self) -> str:
        """Return the name of the function that is tested: ``package.module:function``."""
        raise NotImplementedError

    def test_it_gives_the_same_images_each_time(self) -> None:
        """It gives the same images each time."""
        from cars_hw.data.factories import call_factory, read_made

        first, again = (read_made(self.source(), call_factory(self.source()), None, 0) for _ in range(2))
        assert first.digest == again.digest
        assert len(first.class_names) > 1

    def test_every_class_is_in_the_training_part(self) -> None:
        """Every class is in the training part, and its images can be resized."""
        from cars_hw.data.factories import call_factory, read_made

        made = read_made(self.source(), call_factory(self.source()), (8, 8), 0)
        train = made.parts["train"]
        assert train.shape[1:] == (8, 8)
        assert set(train.labels.tolist()) == set(range(len(made.class_names)))


class RecipeContract:
    """The tests that every recipe must pass. Make a subclass with a name that begins with ``Test``."""

    def recipe(self) -> Recipe:
        """Return the recipe that is tested."""
        raise NotImplementedError

    def test_a_run_keeps_it_as_it_is(self) -> None:
        """A run keeps it as it is."""
        from cars_hw.config.codec import structure, unstructure
        from cars_hw.config.training import Recipe

        tested = self.recipe()
        assert isinstance(tested, Recipe)
        assert structure(json.loads(json.dumps(unstructure(tested))), Recipe) == tested

    def test_its_learning_rate_is_positive_until_the_end(self) -> None:
        """Its learning rate is positive until the end."""
        tested = self.recipe()
        rates = [tested.rate(tested.epochs * share / 100) for share in range(100)]
        assert all(0 < rate <= tested.learning_rate for rate in rates)


class OperationContract:
    """The tests that every operation must pass. Make a subclass with a name that begins with ``Test``.

    Both strides are tested, on states of an even and of an odd size.
    """

    SHAPES: Final = (Shape(6, 8, 8), Shape(4, 7, 5))
    """The states: channels, height and width."""

    def operation(self) -> Operation:
        """Return the operation that is tested."""
        raise NotImplementedError

    def cases(self) -> list[tuple[int, Shape, Shape]]:
        """Return stride, state and output of each case in which a module computes the operation."""
        return [
            (stride, shape, shape if stride == 1 else shape.halved())
            for stride in (1, 2)
            for shape in self.SHAPES
            if self.operation().is_computed(stride)
        ]

    def module(self, channels: int, stride: int) -> Any:  # noqa: ANN401 -- torch is imported inside of functions
        """Return the torch module in eval mode, with weights and running averages that are none of the usual."""
        import torch

        from cars_hw.nn import layers
        from cars_hw.nn.layers import Normalization

        module = self.operation().module(layers, channels, stride, Normalization())
        generator = torch.Generator().manual_seed(channels)
        with torch.no_grad():
            for name, value in module.state_dict().items():
                if value.is_floating_point():
                    drawn = torch.rand(value.shape, generator=generator)
                    value.copy_(drawn + 0.5 if "var" in name or value.dim() == 1 else drawn - 0.5)
        return module.eval()

    def images(self, shape: Shape) -> Any:  # noqa: ANN401
        """Return two images of ``shape``."""
        import torch

        return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))

    def test_its_names_can_be_shown_and_kept(self) -> None:
        """Its names can be shown and kept: that of the class in a table, the others in a report."""
        from cars_hw.latency.keys import OpKey
        from cars_hw.report.kinds import FAMILIES as COLOURS
        from cars_hw.space.operations import NAME

        tested = self.operation()
        assert NAME.fullmatch(tested.name)
        assert tested.title
        assert tested.short
        assert tested.family in COLOURS
        assert tested.kept_maps >= 0
        key = OpKey(tested.name, Shape(4, 8, 8), 4, 1)
        assert OpKey.parse(str(key)) == key

    def test_it_is_computed_at_one_stride_at_least(self) -> None:
        """It is computed at one stride at least: otherwise there would be nothing to measure."""
        assert self.cases()

    def test_its_output_has_the_shape_of_the_state_or_half_of_it(self) -> None:
        """Its output has the shape of the state, or half of it, rounded up."""
        for stride, shape, output in self.cases():
            assert tuple(self.module(shape.channels, stride)(self.images(shape)).shape) == (2, *output)

    def test_each_image_is_computed_by_itself(self) -> None:
        """Each image is computed by itself in eval mode, and always in the same way."""
        import torch

        for stride, shape, _ in self.cases():
            module, images = self.module(shape.channels, stride), self.images(shape)
            both = module(images)
            torch.testing.assert_close(module(images[1:]), both[1:], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(module(images), both, rtol=0, atol=0)

    def test_where_it_begins_with_a_relu_that_can_be_shared(self) -> None:
        """Where it begins with a ReLU, that can be shared: the module takes a state whose ReLU is done."""
        import torch

        for stride, shape, _ in self.cases():
            module, images = self.module(shape.channels, stride), self.images(shape)
            if self.operation().begins_with_relu(stride):
                found = module.activated(torch.relu(images))
                torch.testing.assert_close(found, module(images), rtol=1e-4, atol=1e-5)

    def test_its_cost_is_that_of_the_module_and_of_the_file(self) -> None:
        """Its cost is that of the module, which has the scales that are folded, and of the exported file."""
        from cars_hw.export.lower import lower_module

        for stride, shape, _ in self.cases():
            module, cost = self.module(shape.channels, stride), self.operation().cost(shape, stride)
            graph = lower_module(module, shape)
            assert cost.trained_parameters == sum(weight.numel() for weight in module.parameters())
            convs = [layer for layer in graph.layers if isinstance(layer, Conv)]
            weights = [weight for conv in convs for weight in (conv.weight, conv.bias) if weight is not None]
            assert cost.parameters == sum(weight.size for weight in weights)
            assert cost.multiply_adds == graph.multiply_adds

    def test_every_format_computes_what_the_module_computes(self, tmp_path: Path) -> None:
        """Every format of cars-hw computes what the module computes."""
        from cars_hw.export.formats import FORMATS
        from cars_hw.export.lower import lower_module

        for stride, shape, _ in self.cases():
            module, images = self.module(shape.channels, stride), self.images(shape)
            wanted = module.double()(images.double()).detach().numpy()
            graph = lower_module(module.float(), shape)
            for tested in FORMATS.values():
                path = tmp_path / f"{stride}-{shape.channels}{tested.suffix}"
                path.write_bytes(tested.write(graph))
                (found,) = tested.values(path, images.numpy(), lambda _name: False).values()
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(np.abs(wanted).max()))

    def test_fewer_channels_share_the_weights_of_more(self) -> None:
        """Fewer channels share the weights of more, as in a SuperNet: the same memory, of the right shape."""
        for stride, shape, _ in self.cases():
            large, small = self.module(2 * shape.channels, stride), self.module(shape.channels, stride)
            shapes = {name: tuple(value.shape) for name, value in small.state_dict().items() if value.dim()}
            weights = large.state_dict(keep_vars=True)
            views = self.operation().narrowed({name: weights[name] for name in shapes}, shapes)
            assert {name: tuple(view.shape) for name, view in views.items()} == shapes
            for name, view in views.items():
                assert view.untyped_storage().data_ptr() == weights[name].untyped_storage().data_ptr()
