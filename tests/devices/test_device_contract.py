from __future__ import annotations

import sys
from datetime import datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from machines import needs_two_cores

from cars_hw.devices import Device, FakeDevice, LitertDevice, OrtDevice, available, open_device
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.host import litert_runtime
from cars_hw.errors import DeviceError
from cars_hw.export.graph import Graph, Identity
from cars_hw.export.onnx import ONNX
from cars_hw.measurement.schedule import measure
from cars_hw.space.shape import Shape
from cars_hw.testing import PLAN, DeviceContract, write_conv


class TestFakeDevice(DeviceContract):
    def device(self) -> Device:
        return FakeDevice()

    def test_the_same_file_gives_the_same_samples_and_another_seed_gives_others(self, tmp_path: Path) -> None:
        model = write_conv(tmp_path / "model.onnx", 4)
        first, again = (measure(FakeDevice(noise=0.1, seed=1), [model], PLAN).models for _ in range(2))
        assert first == again
        assert first[0].samples[0] != first[0].samples[1]
        assert measure(FakeDevice(noise=0.1, seed=2), [model], PLAN).models != first

    def test_without_noise_the_latency_is_that_of_every_sample(self, tmp_path: Path) -> None:
        models = [self.conv(tmp_path, channels) for channels in (1, 2, 4)]
        for found in measure(FakeDevice(), models, PLAN).models:
            assert [sample.ms for sample in found.samples] == pytest.approx([found.ms] * 2, rel=2e-4)
            assert [sample.factor for sample in found.samples] == [1.0, 1.0]
            assert found.spread == pytest.approx(0, abs=1e-4)

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
