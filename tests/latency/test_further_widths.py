"""Operations that are estimated badly are measured at further numbers of channels, within a stated time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from long_runs import amount

from cars_hw.cli.profile import estimates_hint, further_text
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice, Sample, fake
from cars_hw.devices.protocol import SessionCounter
from cars_hw.latency import LatencyTable, OpKey, profile_device
from cars_hw.latency.further_widths import LARGE_ERROR, estimated_kinds, further_channels, further_operations
from cars_hw.latency.operation_costs import kind_name
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import SizeGrid

NETWORK = NetworkSpec(channels=8, layers=3, resolution=(8, 8), in_channels=1)
SIZES = SizeGrid(tuple(range(8, 42, 2)), (3,))
ONCE = MeasurePlan(sessions=1)
SLOW = 19
"""From so many channels on, depthwise convolutions take sixty times as long."""


@pytest.fixture(scope="module", autouse=True)
def stepped() -> Iterator[None]:
    """A runtime with another algorithm for depthwise convolutions of many channels."""
    counted = fake._multiply_adds

    def multiply_adds(node: Any, shapes: Any, weights: Any) -> int:  # noqa: ANN401 -- as in the module
        weight = weights.get(node.input[1], []) if node.op_type == "Conv" else []
        depthwise = len(weight) == 4 and weight[1] == 1 and weight[2] > 1
        return counted(node, shapes, weights) * (60 if depthwise and weight[0] >= SLOW else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "_multiply_adds", multiply_adds)
        yield


def profiled(patience: float, device: FakeDevice | None = None, **options: Any) -> LatencyTable:  # noqa: ANN401
    plan = replace(ONCE, patience_seconds=patience)
    return profile_device(device or FakeDevice(), NETWORK, sizes=SIZES, calibration=8, plan=plan, **options)


@pytest.fixture(scope="module")
def without() -> LatencyTable:
    return profiled(0.0)


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return profiled(60.0)


def bad_kinds(table: LatencyTable) -> set[str]:
    return {kind for kind, error in estimated_kinds(table).items() if error > LARGE_ERROR}


def test_further_numbers_bring_the_error_below_the_bound(without: LatencyTable, table: LatencyTable) -> None:
    bad = bad_kinds(without)
    assert bad == {"sep_conv_3x3/s1", "dil_conv_3x3/s1", "sep_conv_5x5/s1", "dil_conv_5x5/s1"}
    assert further_channels(without) == {}
    assert bad_kinds(table) == set()
    # Only operations of these kinds were added, and the others are measured as before.
    added = {kind_name(OpKey.parse(key)) for key in table.entries.keys() - without.entries.keys()}
    assert added == set(further_channels(table)) == bad
    assert without.entries.keys() < table.entries.keys()
    before, after = (one.operation_costs.left_out_errors()["dil_conv_3x3/s1"] for one in (without, table))
    assert after < LARGE_ERROR < before


def test_the_command_line_says_what_was_measured_further(without: LatencyTable, table: LatencyTable) -> None:
    told = further_text(table)
    assert told is not None
    numbers = sorted({one for channels in further_channels(table).values() for one in channels})
    assert told == (
        "The estimates of 4 kinds of operations between the measured numbers of channels had a large error: they "
        f"were measured at {', '.join(map(str, numbers))} channels, too."
    )
    assert estimates_hint(table) is None
    assert further_text(without) is None
    hint = estimates_hint(without)
    assert hint is not None
    assert "With more --patience, they are measured at further numbers. For a table without such" in hint


def test_a_step_chooses_the_middle_of_gaps_of_the_worst_kind_first(without: LatencyTable) -> None:
    assert further_operations(without, 0) == []
    worst, second, *_ = estimated_kinds(without)
    measured = SIZES.measured_channels
    everything = further_operations(without, 1000)
    names = list(dict.fromkeys(map(kind_name, everything)))
    assert names[:2] == [worst, second]
    # The three stages of a network have an operation of each kind.
    first = [one.channels for one in everything if kind_name(one) == worst and one.source.height == 8]
    gaps = [(low, high) for low, high in pairwise(measured) if high - low > 2]
    assert len(first) == len(gaps)
    assert all(sum(low < channels < high for channels in first) == 1 for low, high in gaps)
    assert first[0] in range(*max(gaps, key=lambda gap: gap[1] / gap[0]))
    some = further_operations(without, 4)
    assert some == everything[: len(some)]
    assert 0 < len(some) <= 4
    assert {kind_name(one) for one in some} == {worst}


class Dated(FakeDevice):
    """A device whose sessions take a second each."""

    sessions = 0

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        taken = []
        for sample in super().run(models, plan, seed, on_session):
            self.sessions += 1
            time = datetime.fromtimestamp(self.sessions, UTC).isoformat()
            taken.append(sample._replace(time=time))
        return taken


def test_further_operations_take_half_of_the_patience(without: LatencyTable) -> None:
    # Two rounds of a second each: 15 operations in 30 s.
    limited = profiled(60.0, Dated())
    added = limited.entries.keys() - without.entries.keys()
    assert 10 <= len(added) <= 15


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
def test_an_interrupted_profile_resumes_with_its_further_operations(table: LatencyTable, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    out = tmp_path / "table.json"
    stages: list[str] = []

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "further operations: measuring" and done == total:
            stages.append(stage)
        if len(stages) == 2 or (stage == "networks: measuring" and done > total // 2):
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            profiled(60.0, out=out, resume=True, progress=stop)
    assert profiled(60.0, out=out, resume=True) == table
    assert LatencyTable.read(out) == table
