"""Tables 1 and 2 of the paper: its figures beside those that can be computed and measured here."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from cars_hw.config.checksummed import ChecksummedFormat
from cars_hw.errors import InputError
from cars_hw.nn.cost import both_costs
from cars_hw.progress import Progress, counted, prefixed, silent
from cars_hw.space.mobile import mobile_zoo
from cars_hw.space.network_spec import NETWORKS, NetworkSpec
from cars_hw.space.zoo import whole_zoo
from cars_hw.studies.measurement_noise import unsteady_remark

if TYPE_CHECKING:
    from cars_hw.config.measurement import MeasurePlan
    from cars_hw.devices import Device, Measurement

TABLES: Final = ChecksummedFormat("cars-hw paper tables", 1, "remake-study", InputError)
"""What ``cars-hw experiment tables --out`` writes."""

NOT_AVAILABLE: Final = "not available"
NOT_PRINTED: Final = "not printed"

COUNTING: Final = (
    "Multiply-adds here count convolutions and linear layers; the counting rule of the paper is unknown. "
    "Figures marked (here) follow the published rule: all modules count, with the scales of normalisations. Those "
    "marked (file) are of the exported file, which has only what its output depends on."
)


class Figure(NamedTuple):
    """A kind of figure that the paper prints: what it is called, and how many digits it is printed with."""

    title: str
    digits: str


FIGURES: Final = {
    "error": Figure("error, %", ".2f"),
    "top1": Figure("top-1, %", ".1f"),
    "top5": Figure("top-5, %", ".1f"),
    "parameters": Figure("parameters, M", ".1f"),
    "multiply_adds": Figure("multiply-adds, M", ".0f"),
    "gpu_days": Figure("GPU days", "g"),
    "p30pro_ms": Figure("P30 Pro, ms", "g"),
}


@dataclass(frozen=True)
class PaperRow:
    """A network in a table of the paper.

    ``printed`` has its figures by their names in :data:`FIGURES`; None is one that is not printed. It can be
    computed if it has a ``genotype`` of the zoo (with ``channels``, where those are not those of its network) or is
    a ``model`` of torchvision or of MobileNet-like blocks; ``note`` says what is to be said of that, or why it
    cannot.
    """

    name: str
    printed: Mapping[str, float | None]
    genotype: str | None = None
    channels: int | None = None
    model: str | None = None
    note: str | None = None

    def spec(self, network: str) -> NetworkSpec:
        """Return the network that the row's genotype ships as, for the images of the one called ``network``."""
        assert self.genotype is not None
        return whole_zoo()[self.genotype].network(network).with_changes(channels=self.channels)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: the networks that it lists, for which of :data:`NETWORKS`."""

    title: str
    network: str
    rows: tuple[PaperRow, ...]


@dataclass(frozen=True)
class ComputedRow(PaperRow):
    """A row with what was computed: its parameters, multiply-adds, and latency; None is what could not be.

    ``parameters`` and ``multiply_adds`` are those of the exported file; ``published_parameters`` and
    ``published_multiply_adds`` follow the rule of published tables and are compared with the printed figures.
    ``latency_ms`` is in milliseconds, and ``spread`` how far its sessions lie from it, a fraction.
    """

    parameters: int | None = None
    multiply_adds: int | None = None
    latency_ms: float | None = None
    spread: float | None = None
    published_parameters: int | None = None
    published_multiply_adds: int | None = None

    PLAIN_NAMES: ClassVar = {"model": "torchvision"}
    DERIVED: ClassVar = ("parameters_agree",)

    @property
    def parameters_agree(self) -> bool | None:
        """Whether the published parameters are those printed, to the printed digit; None where one is missing."""
        printed = self.printed.get("parameters")
        if printed is None or self.published_parameters is None:
            return None
        return f"{self.published_parameters / 1e6:.1f}" == f"{printed:.1f}"


@dataclass(frozen=True)
class ComputedTable:
    """A table of the paper with what was computed; ``device`` is what its latencies were measured on, if any."""

    title: str
    network: NetworkSpec
    rows: tuple[ComputedRow, ...]
    device: str | None = None
    conditions: Mapping[str, Any] | None = None
    counting: str = COUNTING

    @property
    def figures(self) -> list[str]:
        """The figures that the paper prints of any row, by their names in :data:`FIGURES`."""
        return [name for name in FIGURES if any(name in row.printed for row in self.rows)]

    @property
    def columns(self) -> list[str]:
        """The titles of the columns of :meth:`cells`."""
        titles = ["network"]
        for name in self.figures:
            titles.append(FIGURES[name].title + (" (paper)" if name in ("parameters", "multiply_adds") else ""))
        for rule in ("here", "file"):
            titles += [f"parameters, M ({rule})", f"multiply-adds, M ({rule})"]
        return titles + ([f"{self.device}, ms (here)"] if self.device else [])

    def cells(self) -> list[list[str]]:
        """Return a line of text a row; what is missing is said to be missing."""
        lines = []
        for computed in self.rows:
            line = [computed.name]
            for name in self.figures:
                printed = computed.printed.get(name)
                line.append(NOT_PRINTED if printed is None else f"{printed:{FIGURES[name].digits}}")
            for count in (
                computed.published_parameters,
                computed.published_multiply_adds,
                computed.parameters,
                computed.multiply_adds,
            ):
                line.append(NOT_AVAILABLE if count is None else _millions(count))
            if self.device:
                known = computed.latency_ms
                line.append(NOT_AVAILABLE if known is None else f"{known:.4g}")
            lines.append(line)
        return lines

    def notes(self) -> list[str]:
        """Return what is to be said of single rows, rows of which the same is said together."""
        said: dict[str, list[str]] = {}
        for computed in self.rows:
            if computed.note:
                said.setdefault(computed.note, []).append(computed.name)
        if self.device and any(_of_torchvision(one) and one.latency_ms is None for one in self.rows):
            note = f"torchvision's networks are only measured from ONNX files: on ort, not on {self.device}"
            said[note] = [one.name for one in self.rows if _of_torchvision(one)]
        notes = [f"{', '.join(names)}: {note}." for note, names in said.items()]
        unsteady = unsteady_remark([(one.name, one.spread) for one in self.rows])
        return [*notes, unsteady] if unsteady else notes

    def verdict(self) -> str:
        """Return one sentence on whether the parameters are those that are printed."""
        known = [computed for computed in self.rows if computed.parameters_agree is not None]
        if not known:
            return "The paper prints no parameters here."
        differing = [
            f"{one.name} ({_millions(one.published_parameters)} M, printed {one.printed['parameters']:.1f})"
            for one in known
            if one.published_parameters and not one.parameters_agree
        ]
        text = f"Computed parameters equal the printed ones in {len(known) - len(differing)} of {len(known)} rows"
        return f"{text}; they differ in {', '.join(differing)}." if differing else f"{text}."


@cache
def paper_tables() -> Mapping[str, PaperTable]:
    """Return the tables of the paper by name: ``cifar10``, ``imagenet``, and what Figure 1 has besides."""
    text = resources.files("cars_hw.studies").joinpath("paper.json").read_text(encoding="utf-8")
    tables = {}
    for name, table in json.loads(text)["tables"].items():
        rows = tuple(PaperRow(**{**row, "printed": MappingProxyType(row["printed"])}) for row in table["rows"])
        tables[name] = PaperTable(table["title"], table["network"], rows)
    return MappingProxyType(tables)


def compute_table(
    table: PaperTable,
    device: Device | None = None,
    plan: MeasurePlan | None = None,
    progress: Progress = silent,
) -> ComputedTable:
    """Return ``table`` with what its networks cost, and with what they take on ``device`` if there is one.

    Networks are measured with fresh weights, all of a table in the same rounds of sessions. torchvision's are
    measured where ONNX files run, and nowhere else.

    Raises:
        DeviceError: the device fails.
    """
    network = table.network
    rows = tuple(ComputedRow(**vars(row), **_cost(row, network)) for row in table.rows)
    computed = ComputedTable(table.title, NETWORKS[network], rows)
    if device is None:
        return computed
    latencies = _measure(table.rows, network, device, plan, prefixed(progress, table.title))
    measured = []
    for one in rows:
        found = latencies.get(one.name)
        measured.append(one if found is None else replace(one, latency_ms=found.ms, spread=found.spread))
    return replace(computed, rows=tuple(measured), device=device.name, conditions=device.conditions())


def _cost(row: PaperRow, network: str) -> dict[str, Any]:
    """Return parameters and multiply-adds by both rules, nothing where they cannot be computed."""
    if row.genotype is not None:
        return dict(both_costs(row.spec(network), whole_zoo()[row.genotype].genotype))
    if row.model is not None:
        from cars_hw.studies.references import count

        found = count(row.model)
        return {
            "parameters": found.parameters,
            "multiply_adds": found.multiply_adds,
            "published_parameters": found.trained_parameters,
            "published_multiply_adds": found.multiply_adds,
        }
    return {}


def _measure(
    rows: Sequence[PaperRow],
    network: str,
    device: Device,
    plan: MeasurePlan | None,
    progress: Progress,
) -> dict[str, Measurement]:
    """Return latencies by the rows' names, of those that ``device`` can run."""
    from cars_hw.measurement.naming import naming
    from cars_hw.measurement.schedule import measure
    from cars_hw.studies.references import MODEL_FORMAT

    any_format = device.model_format == MODEL_FORMAT
    possible = [row for row in rows if row.genotype or (row.model and (any_format or row.model in mobile_zoo()))]
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        paths = [Path(folder) / f"{index}.{device.model_format}" for index in range(len(possible))]
        for row, path in counted(list(zip(possible, paths, strict=True)), progress, "writing models"):
            _build(row, network, device, path)
        with naming({path: row.name for row, path in zip(possible, paths, strict=True)}):
            measured = measure(device, paths, plan, progress=progress).models
    return {row.name: found for row, found in zip(possible, measured, strict=True)}


def _build(row: PaperRow, table: str, device: Device, path: Path) -> None:
    from cars_hw.export.lower_mobile import lower_mobile
    from cars_hw.export.write import build_network, write_graph
    from cars_hw.nn.fresh_weights import seeded
    from cars_hw.nn.mobile import MobileNetwork
    from cars_hw.studies.references import IMAGENET, make, write_onnx

    if row.genotype is not None:
        build_network(row.spec(table), whole_zoo()[row.genotype].genotype, path, device.model_format)
        return
    assert row.model is not None
    model = row.model
    if model in mobile_zoo():
        network = seeded(lambda: make(model), model)
        assert isinstance(network, MobileNetwork)
        write_graph(lower_mobile(network, IMAGENET[0]), path, device.model_format)
        return
    write_onnx(seeded(lambda: make(model), model), IMAGENET[0], path)


def _of_torchvision(row: PaperRow) -> bool:
    return row.model is not None and row.model not in mobile_zoo()


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f}" if count < 100e6 else f"{count / 1e6:,.0f}"
