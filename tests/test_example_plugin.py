"""The example of a plug-in, installed from its wheel: all that it adds, without a change of cars-hw."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

import cars_hw
from cars_hw.cli.extensions import KINDS_OF_NAMES
from cars_hw.cli.main import main
from cars_hw.config.data import DataSource, resolved
from cars_hw.config.measurement import MeasurePlan
from cars_hw.config.presets import PRESETS
from cars_hw.config.recipes import RECIPES, named_recipe
from cars_hw.config.search import EvolutionSettings, FinalSettings
from cars_hw.config.training import Recipe
from cars_hw.devices import Device, FakeDevice, available, format_of, open_device, registry
from cars_hw.errors import DeviceError, ExportError, InputError
from cars_hw.export.export import export_genotype
from cars_hw.export.format import ExportFormat
from cars_hw.export.formats import FORMATS, format_of_file
from cars_hw.latency import LatencyTable, profile_device
from cars_hw.pipeline.costs import COSTS, NetworkCost, network_cost_of
from cars_hw.pipeline.latency_target import LatencyTarget
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.search import run_search
from cars_hw.progress import silent
from cars_hw.report.page import write_report
from cars_hw.space.cost import Cost
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.operations import OPERATIONS, Operation, OperationTable
from cars_hw.space.operations.conv_1x1 import Conv1x1
from cars_hw.space.search_space import SearchSpace
from cars_hw.space.shape import Shape
from cars_hw.testing import (
    CostContract,
    DataContract,
    DeviceContract,
    FormatContract,
    OperationContract,
    RecipeContract,
)

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "plugin"
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel of the example was unpacked to, as pip does."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-c", BUILD, folder], cwd=EXAMPLE, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as content:
        content.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def installed(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(wheel)
    monkeypatch.setattr("cars_hw.devices.android.adb.usb_phones", list)
    yield wheel
    sys.modules.pop("cars_hw_example", None)


class TestInProcess(DeviceContract):
    """The contract of devices, on the device of the example."""

    @pytest.fixture(autouse=True)
    def opened(self, installed: Path) -> None:
        self._device = open_device("in-process")

    def device(self) -> Device:
        return self._device


class TestConvolutions(CostContract):
    @pytest.fixture(autouse=True)
    def found(self, installed: Path) -> None:
        self._cost = network_cost_of("convolutions")

    def cost(self) -> NetworkCost:
        return self._cost


class TestStripes(DataContract):
    @pytest.fixture(autouse=True)
    def found(self, installed: Path) -> None:
        pass

    def source(self) -> str:
        return resolved("stripes")


class TestShort(RecipeContract):
    @pytest.fixture(autouse=True)
    def found(self, installed: Path) -> None:
        self._recipe = named_recipe("short")

    def recipe(self) -> Recipe:
        return self._recipe


class TestDepthwise3x3(OperationContract):
    """The contract of operations, on that of the example."""

    @pytest.fixture(autouse=True)
    def found(self, installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(OPERATIONS, "_known", dict(OPERATIONS._known))
        self._operation = OPERATIONS["depthwise_3x3"]

    def operation(self) -> Operation:
        return self._operation


@pytest.mark.parametrize("own", [name for name in OPERATIONS.own if name != "none"])
class TestOwnOperations(OperationContract):
    """The contract of operations, on those of cars-hw."""

    @pytest.fixture(autouse=True)
    def found(self, own: str) -> None:
        self._operation = OPERATIONS[own]

    def operation(self) -> Operation:
        return self._operation


class Wrong(Conv1x1):
    """An operation that each test of the contract refuses one part of."""

    name = "wrong"


class TestWhatTheContractRefuses:
    """Each test of the contract of operations fails for an operation that is wrong in what the test is about."""

    def refused(self, wrong: type[Operation], test: str, *arguments: Path) -> None:
        class Tested(OperationContract):
            def operation(self) -> Operation:
                return wrong()

        with pytest.raises((AssertionError, AttributeError, ExportError)):
            getattr(Tested(), test)(*arguments)

    def test_a_family_that_no_report_has(self) -> None:
        self.refused(type("A", (Wrong,), {"family": "mine"}), "test_its_names_can_be_shown_and_kept")

    def test_a_cost_that_leaves_the_scales_out(self) -> None:
        def cost(self: Operation, shape: Shape, stride: int) -> Cost:
            return Conv1x1.cost(self, shape, stride)._replace(folded=0)  # type: ignore[arg-type]

        self.refused(type("B", (Wrong,), {"cost": cost}), "test_its_cost_is_that_of_the_module_and_of_the_file")

    def test_a_module_of_stride_1_only(self) -> None:
        def module(self: Operation, layers: ModuleType, channels: int, stride: int, norm: object) -> object:
            return Conv1x1.module(self, layers, channels, 1, norm)  # type: ignore[arg-type]

        wrong = type("C", (Wrong,), {"module": module})
        self.refused(wrong, "test_its_output_has_the_shape_of_the_state_or_half_of_it")

    def test_a_relu_that_is_none(self, tmp_path: Path) -> None:
        def module(self: Operation, layers: ModuleType, channels: int, stride: int, norm: object) -> object:
            return layers.nn.Sequential(layers.nn.Softplus())

        wrong = type("D", (Wrong,), {"module": module})
        self.refused(wrong, "test_where_it_begins_with_a_relu_that_can_be_shared")
        self.refused(wrong, "test_every_format_computes_what_the_module_computes", tmp_path)

    def test_weights_that_are_copied(self) -> None:
        def narrowed(
            self: Operation, weights: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]]
        ) -> dict[str, torch.Tensor]:
            views = Conv1x1.narrowed(self, weights, shapes)  # type: ignore[arg-type]
            return {name: view.clone() for name, view in views.items()}

        self.refused(type("E", (Wrong,), {"narrowed": narrowed}), "test_fewer_channels_share_the_weights_of_more")


@pytest.mark.parametrize("own", FORMATS)
class TestFormats(FormatContract):
    """The contract of formats, on those of cars-hw."""

    @pytest.fixture(autouse=True)
    def found(self, own: str) -> None:
        self._format = FORMATS[own]

    def export_format(self) -> ExportFormat:
        return self._format


def test_a_recipe_is_found_by_its_name_or_its_module(installed: Path, tmp_path: Path) -> None:
    for name in ("short", "cars_hw_example:SHORT"):
        assert named_recipe(name).epochs == 2
    with pytest.raises(InputError, match=r"unknown recipe 'long'; known: cifar10-darts, imagenet-cars, short, and"):
        named_recipe("long")
    with pytest.raises(
        InputError, match=r"the recipe cars_hw_example:CONVOLUTIONS is a NetworkCost, not a cars_hw"
    ):
        named_recipe("cars_hw_example:CONVOLUTIONS")
    missing = CliRunner().invoke(main, ["train", str(tmp_path), "--recipe", "long"])
    assert missing.exit_code == 2
    assert "'long' is not one of 'cifar10-darts', 'imagenet-cars'" in missing.output
    # The run is missed, and not the recipe.
    known = CliRunner().invoke(main, ["train", str(tmp_path), "--recipe", "short"])
    assert known.exit_code == 1
    assert "is not a run folder" in known.output


def test_every_name_is_listed_with_the_package_it_comes_from(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Name: other\nVersion: 2.0\n")
    (other / "entry_points.txt").write_text(
        "[cars_hw.formats]\nbroken = gone:X\nconv = cars_hw_example:CONVOLUTIONS\n"
        "[cars_hw.trackers]\nnotes = cars_hw_example:stripes\ngone = gone:X\n"
        "[cars_hw.executors]\nfarm = cars_hw_example:CONVOLUTIONS\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    listed = json.loads(CliRunner().invoke(main, ["plugins", "--json"]).stdout)
    found = {(one["kind"], one["name"]): one for one in listed}
    mine = [(kind, name) for (kind, name), one in found.items() if one["package"] == "cars-hw-example 0.1.0"]
    assert mine == [
        ("device", "in-process"),
        ("data", "stripes"),
        ("cost", "convolutions"),
        ("recipe", "short"),
        ("operation", "depthwise_3x3"),
    ]
    assert found["operation", "depthwise_3x3"]["detail"] == "depthwise conv. 3x3"
    assert found["data", "stripes"]["detail"].startswith("Return images that are striped")
    assert found["recipe", "short"]["detail"] == "2 epochs, batch 32, learning rate 0.05"
    assert {one["name"] for one in listed if one["package"] == "cars-hw"} >= {"ort", "cifar10", *COSTS, *RECIPES}
    assert (found["format", "broken"]["usable"], found["format", "broken"]["package"]) == (False, "other 2.0")
    assert "cannot be imported: ModuleNotFoundError" in found["format", "broken"]["detail"]
    assert "is a NetworkCost, not a cars_hw.ExportFormat" in found["format", "conv"]["detail"]
    assert (found["tracker", "notes"]["usable"], found["tracker", "notes"]["package"]) == (True, "other 2.0")
    assert found["tracker", "notes"]["detail"].startswith("Return images that are striped")
    assert not found["tracker", "gone"]["usable"]
    assert found["executor", "farm"]["detail"] == "the executor farm is a NetworkCost, not a function or a class"
    assert found["executor", "local"] == {
        "kind": "executor",
        "name": "local",
        "package": "cars-hw",
        "usable": True,
        "detail": "processes of this machine",
    }
    assert {name for kind, name in found if kind == "tracker"} == {
        "tensorboard",
        "mlflow",
        "wandb",
        "notes",
        "gone",
    }
    # Every group that the package reads is listed.
    sources = (Path(cars_hw.__file__).parent).rglob("*.py")
    groups = {group for path in sources for group in re.findall(r'^GROUP: Final = "(.*)"', path.read_text(), re.M)}
    assert {kind.group for kind in KINDS_OF_NAMES} == groups
    # Files of others are found nevertheless.
    assert format_of_file(Path("net.onnx")) is FORMATS["onnx"]
    with pytest.raises(InputError, match=r"known: \.onnx, \.tflite$"):
        format_of_file(Path("net.caffe"))


def test_the_device_is_listed_and_opened_by_its_name(installed: Path) -> None:
    (status,) = [one for one in available() if one.name == "in-process"]
    assert status.usable
    assert "onnxruntime" in status.detail
    assert format_of("in-process") == "onnx"
    assert open_device("in-process", 2).conditions()["threads"] == 2
    with pytest.raises(DeviceError, match="takes nothing behind a colon, not 'x'"):
        open_device("in-process:x")
    with pytest.raises(InputError, match="at least one thread"):
        open_device("in-process", 0)
    with pytest.raises(InputError, match=r"unknown device 'elsewhere'; use one of: .*, in-process"):
        open_device("elsewhere")
    # In a process of its own, as a user would.
    said = subprocess.run(
        [sys.executable, "-m", "cars_hw", "devices", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"in-process"' in said.stdout


def test_the_data_set_and_the_cost_go_through_a_search(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = NetworkSpec(4, 3, (8, 8), 1, classes=2)
    preset = replace(
        PRESETS["quick"],
        evolution=EvolutionSettings(2, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection="size"),
        training=replace(PRESETS["quick"].training, batch_size=32, evaluation_images=16),
        final=FinalSettings(0),
    )
    run = run_search(SearchPlan(DataSource("stripes"), spec, preset, costs=("convolutions=8",)), tmp_path / "run")
    # The run keeps what the name stands for.
    assert run.data.source.source == "cars_hw_example:stripes"
    assert run.data.counts == {"train": (80, 80), "test": (20, 20)}
    assert all(network.costs["convolutions"] <= 8 for network in run.front())
    assert "convolutions, edges" in write_report(run).read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one != str(installed)])
    sys.modules.pop("cars_hw_example")
    failed = CliRunner().invoke(main, ["train", str(run.path), "--top", "1"])
    assert failed.exit_code == 1
    assert "there is no module cars_hw_example; install it" in failed.output


def test_the_operation_goes_through_table_search_report_and_export(installed: Path, tmp_path: Path) -> None:
    assert "depthwise_3x3" in OPERATIONS
    spec = NetworkSpec(4, 3, (8, 8), 1, classes=2, family="darts+depthwise_3x3")
    space = SearchSpace(("skip_connect", "depthwise_3x3"), family=spec.family)
    plan = MeasurePlan(sessions=1, patience_seconds=0)
    table = profile_device(FakeDevice(), spec, calibration=4, plan=plan, space=space, out=tmp_path / "table.json")
    assert {"depthwise_3x3/c4/8x8/s1", "depthwise_3x3/c8/8x8/s2"} <= set(table.entries)
    preset = replace(
        PRESETS["quick"],
        evolution=EvolutionSettings(2, epochs=2, warmup_epochs=1, epochs_per_generation=1, protection="size"),
        training=replace(PRESETS["quick"].training, batch_size=32, evaluation_images=16),
        final=FinalSettings(0),
    )
    targets = (LatencyTarget(LatencyTable.read(tmp_path / "table.json")),)
    run = run_search(SearchPlan(DataSource("stripes"), spec, preset, targets, space=space), tmp_path / "run")
    assert run.configuration.operations == ("skip_connect", "depthwise_3x3")
    found = [one.genotype for one in run.front() if "depthwise_3x3" in str(one.genotype.to_dict())]
    assert found
    page = write_report(run).read_text(encoding="utf-8")
    assert "depthwise conv. 3x3" in page
    assert "depth 3x3" in page
    # Each file is compared with the torch module when it is written.
    exported = export_genotype(found[0], spec, tmp_path, name="own", progress=silent)
    assert [one.path.suffix for one in exported] == [".onnx", ".tflite"]


def test_an_operation_of_a_package_that_is_none_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cars_hw.space.operations.plugin_names", lambda _group: ["broken", "renamed"])
    loaded = {"broken": 3, "renamed": OPERATIONS["sep_conv_3x3"]}
    monkeypatch.setattr("cars_hw.space.operations.load_plugin", lambda _group, name: loaded[name])
    table = OperationTable(())
    assert list(table) == ["broken", "renamed"]
    with pytest.raises(InputError, match=r"^the operation broken is a int, not a cars_hw\.Operation$"):
        table["broken"]
    with pytest.raises(InputError, match="sep_conv_3x3 has the name renamed in the entry points"):
        table["renamed"]
    with pytest.raises(KeyError):
        table["elsewhere"]


def test_a_device_that_raises_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(detail: str, threads: int) -> None:
        raise RuntimeError(f"no license for {threads} thread")

    monkeypatch.setattr(registry, "plugin_names", lambda _group: ["dsp"])
    monkeypatch.setattr(registry, "load_plugin", lambda _group, _name: broken)
    status = {one.name: one for one in available()}["dsp"]
    assert (status.usable, status.detail) == (
        False,
        "the plug-in dsp failed: RuntimeError: no license for 1 thread",
    )
    with pytest.raises(InputError, match="no license"):
        open_device("dsp")
