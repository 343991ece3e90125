from __future__ import annotations

import json
import sys
from datetime import datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from machines import needs_two_cores

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device, FakeDevice, LitertDevice, OrtDevice, available, open_device
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.host import litert_runtime
from cars_hw.errors import DeviceError
from cars_hw.export.graph import Conv, Graph, Identity
from cars_hw.export.onnx import ONNX
from cars_hw.export.write import write_graph
from cars_hw.measurement.schedule import measure
from cars_hw.space.shape import Shape

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


class DeviceContract:
    """What every backend must do; a backend's tests subclass this."""

    def device(self) -> Device:
        raise NotImplementedError

    def conv(self, folder: Path, channels: int) -> Path:
        return write_conv(folder / f"{channels}.{self.device().model_format}", channels)

    def test_every_model_gets_a_positive_time_from_every_session(self, tmp_path: Path) -> None:
        models = [self.conv(tmp_path, channels) for channels in (1, 2, 4)]
        measured = measure(self.device(), models, PLAN).models
        assert len(measured) == 3
        for measurement in measured:
            assert measurement.sessions == len(measurement.samples) == 2
            assert measurement.ms > 0
            # The quiet latency lies among the samples, each brought to the quiet state by its rounded factor.
            times = [
                sample.ms / (sample.factor or 1.0) ** measurement.sensitivity for sample in measurement.samples
            ]
            assert min(times) * 0.9998 <= measurement.ms <= max(times) * 1.0002
            assert 0 <= measurement.spread < 1

    def test_a_much_larger_model_is_slower_wherever_it_stands_in_the_list(self, tmp_path: Path) -> None:
        # 160 squared is 1600 times 4 squared: no noise hides that.
        small, large = self.conv(tmp_path, 4), self.conv(tmp_path, 160)
        for models in ([small, large], [large, small]):
            times = dict(zip(models, measure(self.device(), models, PLAN).models, strict=True))
            assert times[large].ms > 3 * times[small].ms

    def test_a_run_gives_a_sample_each_in_order_however_often_a_model_comes(self, tmp_path: Path) -> None:
        small, large = self.conv(tmp_path, 4), self.conv(tmp_path, 160)
        seen: list[tuple[str, int, int]] = []
        first, second, third = self.device().run([small, large, small], PLAN, 0, seen.append)
        assert second.ms > 3 * max(first.ms, third.ms)
        assert seen == [1, 2, 3]
        assert first.factor is None

    def test_nothing_to_measure_is_nothing_measured(self) -> None:
        assert measure(self.device(), [], PLAN).models == []

    def test_progress_counts_the_sessions_up_to_their_number(self, tmp_path: Path) -> None:
        models = [self.conv(tmp_path, channels) for channels in (1, 2)]
        seen: list[tuple[str, int, int]] = []
        measure(self.device(), models, PLAN, progress=lambda *step: seen.append(step))
        assert seen == sorted(seen)
        assert seen[-1] == ("measuring", 4, 4)

    def test_a_missing_file_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(DeviceError, match=r"nowhere\.onnx"):
            measure(self.device(), [tmp_path / "nowhere.onnx"], PLAN)

    def test_a_file_that_is_no_model_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        good, bad = self.conv(tmp_path, 1), tmp_path / "bad.onnx"
        bad.write_bytes(b"this is no model")
        with pytest.raises(DeviceError, match=r"bad\.onnx") as raised:
            measure(self.device(), [good, bad], PLAN)
        assert "\n" not in str(raised.value)

    def test_the_conditions_are_complete_and_json(self) -> None:
        conditions = self.device().conditions()
        named = {"processor", "cores", "platform", "runtime", "threads", "pinned", "load", "time"}
        assert named <= set(conditions)
        assert conditions["threads"] == 1
        assert json.loads(json.dumps(conditions)) == conditions


class TestFakeDevice(DeviceContract):
    def device(self) -> Device:
        return FakeDevice()

    def test_the_same_file_gives_the_same_samples_and_another_seed_gives_others(self, tmp_path: Path) -> None:
        model = write_conv(tmp_path / "model.onnx", 4)
        first, again = (measure(FakeDevice(noise=0.1, seed=1), [model], PLAN).models for _ in range(2))
        assert first == again
        assert first[0].samples[0] != first[0].samples[1]
        assert measure(FakeDevice(noise=0.1, seed=2), [model], PLAN).models != first

    def test_the_price_is_overhead_nodes_multiply_adds_and_elements(self, tmp_path: Path) -> None:
        model = write_conv(tmp_path / "model.onnx", 4)
        nodes, multiply_adds, elements = 1, 4 * 4 * 9 * 256, 2 * 4 * 256
        expected = 0.5 + 0.002 * nodes + multiply_adds / 4e6 + elements / 1e6
        assert measure(FakeDevice(overhead_ms=0.5), [model], PLAN).models[0].ms == pytest.approx(expected, abs=1e-6)
        half = measure(FakeDevice(overhead_ms=0.5, speed=2), [model], PLAN).models[0].ms
        assert half == pytest.approx(expected / 2, abs=1e-6)


class TestLitertDevice(DeviceContract):
    def device(self) -> Device:
        return LitertDevice()

    def test_its_runtime_is_among_the_conditions(self) -> None:
        assert LitertDevice().conditions()["runtime"].startswith("ai-edge-litert ")

    @needs_two_cores
    def test_several_threads_run(self, tmp_path: Path) -> None:
        device = LitertDevice(threads=2)
        assert device.conditions()["threads"] == 2
        assert measure(device, [write_conv(tmp_path / "model.tflite", 4)], PLAN).models[0].ms > 0

    def test_without_a_runtime_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cars_hw.devices.host.litert_runtime.RUNTIMES", ())
        with pytest.raises(DeviceError, match="pip install ai-edge-litert"):
            open_device("litert")
        status = next(status for status in available() if status.name == "litert")
        assert not status.usable
        assert "pip install ai-edge-litert" in status.detail

    def test_the_old_runtime_is_used_where_there_is_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[dict[str, Any]] = []

        class Interpreter:
            def __init__(self, **options: Any) -> None:  # noqa: ANN401
                made.append(options)

            def allocate_tensors(self) -> None:
                made.append({"allocated": True})

        old = ModuleType("tflite_runtime")
        module = ModuleType("tflite_runtime.interpreter")
        module.Interpreter = Interpreter  # type: ignore[attr-defined]
        old.__spec__ = ModuleSpec("tflite_runtime", None)
        monkeypatch.setitem(sys.modules, "tflite_runtime", old)
        monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", module)
        monkeypatch.setattr("cars_hw.devices.host.litert_runtime.RUNTIMES", litert_runtime.RUNTIMES[1:])
        litert_runtime.interpreter("model.tflite", 3)
        assert made == [{"model_path": "model.tflite", "num_threads": 3}, {"allocated": True}]


class TestAndroidDevice(DeviceContract):
    """Against the simulated phone, which runs models for real."""

    @pytest.fixture(autouse=True)
    def connected(self, device: AndroidDevice) -> None:
        self._device = device

    def device(self) -> Device:
        return self._device


class TestOrtDevice(DeviceContract):
    def device(self) -> Device:
        return OrtDevice()

    def test_its_runtime_and_its_core_are_among_the_conditions(self) -> None:
        conditions = OrtDevice().conditions()
        assert conditions["runtime"].startswith("onnxruntime ")
        assert conditions["pinned"] == "not possible here" or len(conditions["pinned"]) == 1

    def test_every_sample_is_kept_with_what_it_was_taken_under(self, tmp_path: Path) -> None:
        (sample,) = OrtDevice().run([write_conv(tmp_path / "model.onnx", 2)], PLAN, 0)
        assert sample.time is not None
        assert datetime.fromisoformat(sample.time).tzinfo is not None
        if sys.platform == "linux":
            assert sample.load is not None
            assert sample.other_load is not None
            assert sample.other_load >= 0

    @needs_two_cores
    def test_several_inputs_and_threads_run(self, tmp_path: Path) -> None:
        shape = Shape(1, 2, 2)
        layers = tuple(Identity(output=f"out{n}", inputs=(f"in{n}",), shape=shape) for n in range(2))
        (tmp_path / "two.onnx").write_bytes(
            ONNX.write(Graph((("in0", shape), ("in1", shape)), layers, ("out0", "out1")))
        )
        device = OrtDevice(threads=2)
        assert device.conditions()["threads"] == 2
        assert measure(device, [tmp_path / "two.onnx"], PLAN).models[0].ms > 0
