from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cars_hw.devices import Device, FakeDevice, MeasurePlan, OrtDevice
from cars_hw.errors import DeviceError
from cars_hw.export.graph import Conv, Graph, Identity
from cars_hw.export.onnx import write_onnx
from cars_hw.spec import Shape

PLAN = MeasurePlan(sessions=2, min_runs=5, min_seconds=0.0, warmup_runs=1, max_extra_sessions=0)


def write_conv(path: Path, channels: int) -> Path:
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
    write_onnx(Graph((("in", shape),), (conv,), ("out",)), path)
    return path


class DeviceContract:
    """What every backend must do; a backend's tests subclass this."""

    def device(self) -> Device:
        raise NotImplementedError

    def test_every_model_gets_a_positive_time_from_every_session(self, tmp_path: Path) -> None:
        models = [write_conv(tmp_path / f"{channels}.onnx", channels) for channels in (1, 2, 4)]
        measured = self.device().measure(models, PLAN)
        assert len(measured) == 3
        for measurement in measured:
            assert measurement.sessions == len(measurement.samples) == 2
            assert measurement.ms > 0
            assert min(measurement.samples) <= measurement.ms <= max(measurement.samples)
            assert 0 <= measurement.spread < 1

    def test_a_much_larger_model_is_slower_wherever_it_stands_in_the_list(self, tmp_path: Path) -> None:
        # 160 squared is 1600 times 4 squared: no noise hides that.
        small, large = write_conv(tmp_path / "small.onnx", 4), write_conv(tmp_path / "large.onnx", 160)
        for models in ([small, large], [large, small]):
            times = dict(zip(models, self.device().measure(models, PLAN), strict=True))
            assert times[large].ms > 3 * times[small].ms

    def test_nothing_to_measure_is_nothing_measured(self) -> None:
        assert self.device().measure([], PLAN) == []

    def test_progress_counts_the_sessions_up_to_their_number(self, tmp_path: Path) -> None:
        models = [write_conv(tmp_path / f"{channels}.onnx", channels) for channels in (1, 2)]
        seen: list[int] = []
        self.device().measure(models, PLAN, seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == 4

    def test_a_missing_file_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(DeviceError, match=r"nowhere\.onnx"):
            self.device().measure([tmp_path / "nowhere.onnx"], PLAN)

    def test_a_file_that_is_no_model_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        good, bad = write_conv(tmp_path / "good.onnx", 1), tmp_path / "bad.onnx"
        bad.write_bytes(b"this is no model")
        with pytest.raises(DeviceError, match=r"bad\.onnx") as raised:
            self.device().measure([good, bad], PLAN)
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
        first, again = (FakeDevice(noise=0.1, seed=1).measure([model], PLAN) for _ in range(2))
        assert first == again
        assert first[0].samples[0] != first[0].samples[1]
        assert FakeDevice(noise=0.1, seed=2).measure([model], PLAN) != first

    def test_the_price_is_overhead_nodes_multiply_adds_and_elements(self, tmp_path: Path) -> None:
        model = write_conv(tmp_path / "model.onnx", 4)
        nodes, multiply_adds, elements = 1, 4 * 4 * 9 * 256, 2 * 4 * 256
        expected = 0.5 + 0.002 * nodes + multiply_adds / 4e6 + elements / 1e6
        assert FakeDevice(overhead_ms=0.5).measure([model], PLAN)[0].ms == pytest.approx(expected, abs=1e-6)
        half = FakeDevice(overhead_ms=0.5, speed=2).measure([model], PLAN)[0].ms
        assert half == pytest.approx(expected / 2, abs=1e-6)


class TestOrtDevice(DeviceContract):
    def device(self) -> Device:
        return OrtDevice()

    def test_its_runtime_and_its_core_are_among_the_conditions(self) -> None:
        conditions = OrtDevice().conditions()
        assert conditions["runtime"].startswith("onnxruntime ")
        assert conditions["pinned"] == "not possible here" or len(conditions["pinned"]) == 1

    def test_several_inputs_and_threads_run(self, tmp_path: Path) -> None:
        shape = Shape(1, 2, 2)
        layers = tuple(Identity(output=f"out{n}", inputs=(f"in{n}",), shape=shape) for n in range(2))
        write_onnx(Graph((("in0", shape), ("in1", shape)), layers, ("out0", "out1")), tmp_path / "two.onnx")
        device = OrtDevice(threads=2)
        assert device.conditions()["threads"] == 2
        assert device.measure([tmp_path / "two.onnx"], PLAN)[0].ms > 0
