"""Tests for packages that extend cars-hw, run by pytest: :class:`DeviceContract` is what every device must pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device
from cars_hw.errors import DeviceError
from cars_hw.export.graph import Conv, Graph
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
