"""An error of a device says which network it was, and not a file in a folder that has gone."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice, Sample
from cars_hw.devices.load import Spell
from cars_hw.devices.protocol import SessionCounter
from cars_hw.errors import RunnerError
from cars_hw.latency import find_size_range
from cars_hw.latency.measure import measure_architectures, sustained_architectures
from cars_hw.progress import silent
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.wanted_sizes import WantedSizes
from cars_hw.space.zoo import whole_zoo, zoo

SPEC = NetworkSpec(channels=4, layers=3, resolution=(8, 8), in_channels=1)
NASNET = replace(SPEC, family="nasnet")
KNOWN = zoo()["CARS_A"].genotype
UNKNOWN = Genotype(zoo()["CARS_A"].genotype.normal, zoo()["CARS_B"].genotype.reduce)


class Refusing(FakeDevice):
    """A device that cannot run any model."""

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        del plan, seed, on_session
        raise RunnerError(f"the tool cannot run {models[-1]}: exit status 1", remedy="get-runner")

    def load(self, model: Path, sessions: int, seconds: float, *, rested: bool) -> list[Spell]:
        raise RunnerError(f"the tool cannot run {model}: exit status 1", remedy="get-runner")


DEVICE = Refusing()
WAYS: dict[str, tuple[Callable[[], object], str]] = {
    "measure": (
        lambda: measure_architectures(DEVICE, [Architecture(KNOWN, SPEC)], progress=silent),
        "the network CARS_A (4 channels, 3 cells)",
    ),
    "measure, a genotype without a name": (
        lambda: measure_architectures(DEVICE, [Architecture(UNKNOWN, SPEC)], progress=silent),
        f"the network {UNKNOWN.to_darts()} (4 channels, 3 cells)",
    ),
    "measure, a genotype of another family": (
        lambda: measure_architectures(
            DEVICE, [Architecture(whole_zoo()["NASNet_A"].genotype, NASNET)], progress=silent
        ),
        "the network NASNet_A (4 channels, 3 cells)",
    ),
    "measure --sustained": (
        lambda: sustained_architectures(DEVICE, [Architecture(KNOWN, SPEC)], progress=silent),
        "the network CARS_A (4 channels, 3 cells)",
    ),
    "profile --latency": (
        lambda: find_size_range(DEVICE, SPEC, WantedSizes((1.0,)), progress=silent),
        "the network CARS_A (",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_error_names_the_network(way: str) -> None:
    call, named = WAYS[way]
    with pytest.raises(RunnerError, match=re.escape(f"the tool cannot run {named}")) as raised:
        call()
    assert tempfile.gettempdir() not in str(raised.value)
    assert raised.value.remedy == "get-runner"
