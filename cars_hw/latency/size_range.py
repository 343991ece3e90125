"""The range of sizes for given latency budgets, found by measuring a few networks.

One genotype is measured at several sizes. With the fewest cells, its number of channels doubles until it takes
longer than the budget. With the most cells, it is measured at the first and the last of these numbers. Between the
measurements, the logarithm of the latency is interpolated over the logarithms of the channels and of the cells. The
error is some tens of percent. This suffices, because the latencies of a range differ by a factor of ten or more.

If the resolution varies, these networks have the largest one. Two of them are measured at the smallest resolution,
too: the ratio of both latencies is that of the smallest networks.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from cars_hw.config.measurement import MeasurePlan, Precision
from cars_hw.config.setting import Settings, count, milliseconds, setting
from cars_hw.config.units import format_latency
from cars_hw.devices.protocol import Device
from cars_hw.errors import BudgetError
from cars_hw.export.write import build_network
from cars_hw.latency.arithmetic import key_cost
from cars_hw.latency.fastest import fastest_genotype
from cars_hw.latency.keys import OpKey, spec_keys
from cars_hw.latency.measure import name_of
from cars_hw.latency.sums import OperationSums
from cars_hw.measurement.naming import naming
from cars_hw.progress import Progress
from cars_hw.progress_line import show
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Genotype
from cars_hw.space.genotype_space import GenotypeSpace
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.size_grid import Resolution, SizeGrid
from cars_hw.space.space_of import space_of
from cars_hw.space.typical import TYPICAL, typical_genotype
from cars_hw.space.wanted_sizes import WantedSizes

BELOW: Final = 4.0
"""The smallest size takes at most the smallest budget divided by this, where that is possible."""

ABOVE: Final = 2.0
"""The largest size takes at least the largest budget times this, where that is possible."""

NEAR: Final = 0.5
"""If the largest size takes less than this part of the budget, no genotype of this size uses most of it."""

LONGEST_MS: Final = 1000.0
"""Networks that would take longer, in milliseconds, are not measured."""

STEEPEST: Final = 2.0
"""The latency grows with at most this power of the channels."""

SHALLOW: Final = 0.7
"""The fewest cells at the largest number of channels take at least this part of the largest budget."""

LEAST_CHANNELS: Final = 3
"""A range that is found has at least so many numbers of channels, also where the allowed sizes end."""

ONCE: Final = MeasurePlan(
    sessions=2,
    patience_seconds=0.0,
    warmup_seconds=0.05,
    warmup_runs=1,
    min_runs=5,
    min_seconds=0.02,
    max_seconds=0.5,
)
"""How a network is measured: its latency is the shorter one of two sessions."""

Latency = Callable[[int, int], float]
"""From numbers of channels and of cells to milliseconds."""

PROGRESS: Final = "range of sizes: measuring"


@dataclass(frozen=True)
class SizedLatency(Settings):
    """The latency of the measured genotype at one size, in milliseconds.

    ``resolution`` is the height and width of the images in pixels, None if it does not vary.
    """

    channels: int = count(minimum=1)
    layers: int = count(minimum=1)
    ms: float = milliseconds()
    resolution: Resolution | None = setting(None, metavar="HxW")

    OPTIONAL: ClassVar = frozenset({"resolution"})


@dataclass(frozen=True)
class SizeRange(Settings):
    """The sizes that were found on a device for the latencies that are ``wanted``.

    ``smallest_ms`` and ``largest_ms`` are the estimated latencies of the smallest and the largest of ``sizes`` with
    the genotype called ``genotype``, in milliseconds. ``measured`` has the measurements. ``fastest_ms`` is the
    latency of the fastest genotype at the smallest size. It is measured only if the smallest budget is below twice
    ``smallest_ms``.
    """

    wanted: WantedSizes
    sizes: SizeGrid
    smallest_ms: float = milliseconds()
    largest_ms: float = milliseconds()
    measured: tuple[SizedLatency, ...] = ()
    fastest_ms: float | None = milliseconds(None)
    genotype: str = TYPICAL

    def describe(self, device: str, parts: str = "cells") -> str:
        """Return a sentence for people: what networks of these sizes take on ``device``.

        ``parts`` are what the networks are made of, see :attr:`NetworkSpec.parts`.
        """
        budgets = " and ".join(format_latency(one) for one in self.wanted.latencies_ms)
        ends = " to ".join(format_latency(_rounded(one)) for one in (self.smallest_ms, self.largest_ms))
        return (
            f"{budgets} on {device}: networks of {self.sizes.describe(parts)} take about {ends} with the {parts} "
            f"of {self.genotype}{self._remark(parts)}."
        )

    def _remark(self, parts: str) -> str:
        """Return what else is to be said where the sizes end near the budgets."""
        if self.fastest_ms is not None:
            fastest = format_latency(_rounded(self.fastest_ms))
            return f", and {fastest} with the fastest {parts} at the smallest size"
        if self.largest_ms < max(self.wanted.latencies_ms):
            return "; larger sizes are not allowed"
        return ""


def _rounded(milliseconds: float) -> float:
    """Return an estimate with two significant digits."""
    return float(f"{milliseconds:.2g}")


def find_size_range(
    device: Device,
    network: NetworkSpec,
    wanted: WantedSizes,
    *,
    precision: Precision = "fp32",
    space: GenotypeSpace | None = None,
    progress: Progress = show,
) -> SizeRange:
    """Measure a few networks on ``device``; return a range of sizes in which the ``wanted`` latencies lie.

    ``network`` gives the resolution, the classes and the stem. If ``wanted`` does not give the channels, they are
    chosen from 4 to 256; if it does not give the cells, they are chosen from 5 to 20. Its resolutions are used as
    they are. Three conditions decide:

    - The smallest size takes at most a quarter of the smallest budget.
    - The largest size takes at least twice the largest budget.
    - At the largest number of channels and resolution, the fewest cells take at least 0.7 of the largest budget.

    Where the allowed sizes end, the range comes as near to these conditions as they allow. The measurements take
    less than a minute for budgets up to a second.

    Raises:
        BudgetError: the fastest network of ``space`` (everything, if None) at the smallest size takes longer than a
            budget, or the largest size less than half of it.
        DeviceError: the device fails.
    """
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        largest = network.with_changes(resolution=wanted.resolutions[-1] if wanted.resolutions else None)
        probe = _Probe(device, largest, precision, Path(folder), progress)
        try:
            found = _Finder(wanted, probe).found()
            if min(wanted.latencies_ms) < 2 * found.smallest_ms:
                smallest = found.sizes.smallest(network)
                found = replace(found, fastest_ms=_fastest_ms(probe, found.sizes, space or space_of(smallest)))
        finally:
            device.release()
    _require_within(found, device.name, network.parts)
    return found


def _require_within(found: SizeRange, device: str, parts: str) -> None:
    """Check that the budgets are within what the sizes allow.

    Raises:
        BudgetError: one is not.
    """
    least, most = min(found.wanted.latencies_ms), max(found.wanted.latencies_ms)
    sizes = found.sizes
    first, last = (
        replace(sizes, channels=sizes.channels[end], layers=sizes.layers[end], resolutions=sizes.resolutions[end])
        for end in (slice(1), slice(-1, None))
    )
    if found.fastest_ms is not None and found.fastest_ms > least:
        raise BudgetError(
            f"{format_latency(least)} on {device}: the fastest network of the smallest size, "
            f"{first.describe(parts)}, takes {format_latency(found.fastest_ms)}",
            (found.fastest_ms,),
            remedy="smaller-network",
        )
    if found.largest_ms < NEAR * most:
        raise BudgetError(
            f"{format_latency(most)} on {device}: the largest networks that are allowed, {last.describe(parts)}, "
            f"take about {format_latency(_rounded(found.largest_ms))}",
            remedy="larger-sizes",
        )


def _fastest_ms(probe: _Probe, sizes: SizeGrid, space: GenotypeSpace) -> float:
    """Measure the genotype of ``space`` that is probably the fastest, at the smallest of ``sizes``."""
    network = next(sizes.networks(probe.network))
    sums = OperationSums(network, {str(key): _guessed_ms(key) for key in spec_keys(network)})
    return probe.measure(fastest_genotype(space, sums.total, np.random.default_rng(0), starts=1), network)


def _guessed_ms(key: OpKey) -> float:
    """Return a rough latency of an operation on any processor. It only serves to choose a genotype."""
    elements = math.prod(key.source) + math.prod(key.output)
    return 0.002 + key_cost(key).multiply_adds / 4e6 + elements / 1e6


class _Probe:
    """Measures ``network``, whose resolution is the largest, at several sizes.

    ``measured`` has the latencies by channels and cells, ``small`` those at the smallest resolution.
    """

    def __init__(
        self, device: Device, network: NetworkSpec, precision: Precision, folder: Path, progress: Progress
    ) -> None:
        self.network = network
        self._device = device
        self._precision = precision
        self._folder = folder
        self._progress = progress
        self.measured: dict[tuple[int, int], float] = {}
        self.small: dict[tuple[int, int], float] = {}

    def at(self, channels: int, layers: int, resolution: Resolution | None = None) -> float:
        """Return the latency of the typical genotype at this size, in milliseconds.

        ``resolution`` is the smallest one; None for the largest.
        """
        known = self.measured if resolution is None else self.small
        if (channels, layers) not in known:
            network = self.network.with_changes(channels=channels, layers=layers, resolution=resolution)
            known[channels, layers] = self.measure(typical_genotype(network)[1], network)
        return known[channels, layers]

    def measure(self, genotype: Genotype, network: NetworkSpec) -> float:
        """Return the latency of one network, in milliseconds."""
        path = self._folder / f"network.{self._device.model_format}"
        build_network(network, genotype, path, self._device.model_format, self._precision)
        with naming({path: name_of(Architecture(genotype, network))}):
            taken = self._device.run([path] * ONCE.sessions, ONCE, ONCE.seed)
        return min(sample.ms for sample in taken)

    def tell(self, done: int, total: int) -> None:
        """Report that ``done`` of at most ``total`` sizes are measured."""
        self._progress(PROGRESS, done, total)


class _Finder:
    """Measures until the range is known."""

    def __init__(self, wanted: WantedSizes, probe: _Probe) -> None:
        self._wanted = wanted
        self._probe = probe
        self._allowed = wanted.allowed
        self._least, self._most = min(wanted.latencies_ms), max(wanted.latencies_ms)

    def found(self) -> SizeRange:
        """Return the range."""
        self._measure()
        probe = self._probe
        latency = _interpolation(probe.measured)
        small = _scaled(latency, {size[0]: ms / probe.measured[size] for size, ms in probe.small.items()})
        sizes = self._layers(latency, small) if self._wanted.channels else self._channels(latency, small)
        ends = self._allowed.resolutions
        return SizeRange(
            self._wanted,
            sizes,
            small(sizes.channels[0], sizes.layers[0]),
            latency(sizes.channels[-1], sizes.layers[-1]),
            (
                *(SizedLatency(*size, ms, ends[0]) for size, ms in probe.small.items()),
                *(SizedLatency(*size, ms, ends[-1] if ends else None) for size, ms in probe.measured.items()),
            ),
            genotype=typical_genotype(probe.network)[0],
        )

    def _measure(self) -> None:
        """Measure the fewest cells at doubled channels up to the budget, and the most cells at two of them.

        If the resolution varies, the fewest cells are also measured at the smallest one, at the first and the last
        of these numbers of channels.
        """
        probe, layers, resolutions = self._probe, self._allowed.layers, self._allowed.resolutions
        widths = _doubled(self._allowed.channels)
        total, reached = len(widths) + (4 if resolutions else 2), []
        for number, channels in enumerate(widths):
            probe.tell(number, total)
            ms = probe.at(channels, layers[0])
            reached.append(channels)
            enough = ms >= self._most and channels >= self._allowed.channels[:LEAST_CHANNELS][-1]
            if enough or ms * 2**STEEPEST > LONGEST_MS:
                break
        # So deep a network takes as many times as long, at most.
        deep = [one for one in reached if probe.at(one, layers[0]) * layers[-1] / layers[0] <= LONGEST_MS]
        deep = deep or reached[:1]
        for channels in (deep[0], deep[-1]):
            probe.at(channels, layers[-1])
        for channels in (reached[0], reached[-1]) if resolutions else ():
            probe.at(channels, layers[0], resolutions[0])
        probe.tell(total, total)

    def _channels(self, latency: Latency, smallest: Latency) -> SizeGrid:
        """Return the grid with the numbers of channels that the budgets need.

        ``smallest`` gives the latencies at the smallest resolution, ``latency`` those at the largest.
        """
        grid = self._allowed
        few, many = grid.layers[0], grid.layers[-1]
        small = [one for one in grid.channels if smallest(one, few) <= self._least / BELOW]
        large = [
            one
            for one in grid.channels
            if latency(one, few) >= SHALLOW * self._most and latency(one, many) >= ABOVE * self._most
        ]
        first = grid.channels.index(small[-1]) if small else 0
        last = grid.channels.index(large[0]) if large else len(grid.channels) - 1
        if grid.resolutions:
            # Small resolutions make small networks of many channels, too: the largest networks decide.
            first = min(first, max(last - LEAST_CHANNELS + 1, 0))
        # Where the sizes end, a range keeps some numbers of channels on the other side.
        last = max(last, min(first + LEAST_CHANNELS, len(grid.channels)) - 1)
        first = min(first, max(last - LEAST_CHANNELS + 1, 0))
        return replace(grid, channels=grid.channels[first : last + 1])

    def _layers(self, latency: Latency, smallest: Latency) -> SizeGrid:
        """Return the grid with the numbers of cells that the budgets need; all of them if they were given."""
        grid = self._allowed
        if self._wanted.layers:
            return grid
        narrow, wide = grid.channels[0], grid.channels[-1]
        small = [one for one in grid.layers if smallest(narrow, one) <= self._least / BELOW]
        large = [one for one in grid.layers if latency(wide, one) >= ABOVE * self._most]
        first = small[-1] if small else grid.layers[0]
        last = max(large[0] if large else grid.layers[-1], first)
        return replace(grid, layers=tuple(one for one in grid.layers if first <= one <= last))


def _doubled(channels: tuple[int, ...]) -> list[int]:
    """Return the first of ``channels``, each time the next that is at least twice as many, and the last."""
    chosen = [channels[0]]
    for one in channels:
        if one >= 2 * chosen[-1]:
            chosen.append(one)
    return chosen if chosen[-1] == channels[-1] else [*chosen, channels[-1]]


def _interpolation(measured: dict[tuple[int, int], float]) -> Latency:
    """Return the interpolation of ``measured`` by channels and cells."""
    few, many = min(layers for _, layers in measured), max(layers for _, layers in measured)
    shallow = {math.log(channels): math.log(ms) for (channels, layers), ms in measured.items() if layers == few}
    powers = {
        math.log(channels): math.log(ms / measured[channels, few]) / math.log(many / few)
        for (channels, layers), ms in measured.items()
        if layers == many > few
    }

    def latency(channels: int, layers: int) -> float:
        x = math.log(channels)
        power = float(np.interp(x, list(powers), list(powers.values()))) if powers else 1.0
        return math.exp(_along(shallow, x) + power * math.log(layers / few))

    return latency


def _scaled(latency: Latency, ratios: dict[int, float]) -> Latency:
    """Return ``latency`` times ``ratios``, which are interpolated by channels; without ratios, ``latency``."""
    if not ratios:
        return latency
    logs = [math.log(channels) for channels in ratios]

    def scaled(channels: int, layers: int) -> float:
        ratio = math.exp(float(np.interp(math.log(channels), logs, np.log(list(ratios.values())))))
        return ratio * latency(channels, layers)

    return scaled


def _along(points: dict[float, float], x: float) -> float:
    """Return ``points``, in ascending order, interpolated at ``x``; beyond the last, the last slope is extended."""
    xs, ys = list(points), list(points.values())
    if x > xs[-1]:
        slope = STEEPEST if len(xs) == 1 else np.clip((ys[-1] - ys[-2]) / (xs[-1] - xs[-2]), 0.0, STEEPEST)
        return ys[-1] + float(slope) * (x - xs[-1])
    return float(np.interp(x, xs, ys))
