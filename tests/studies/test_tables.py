"""The paper's tables beside what is computed here: nothing is left out, and nothing is blank."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from file_counts import count_onnx
from long_runs import amount
from published_schemas import require_file
from torch import nn

from cars_hw.cli.main import main
from cars_hw.config.codec import unstructure
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import FakeDevice
from cars_hw.errors import InputError
from cars_hw.nn.cost import network_cost
from cars_hw.nn.fresh_weights import seeded
from cars_hw.space.network_spec import NETWORKS
from cars_hw.space.shape import Shape
from cars_hw.space.zoo import whole_zoo, zoo
from cars_hw.studies.paper_tables import (
    NOT_AVAILABLE,
    NOT_PRINTED,
    TABLES,
    ComputedTable,
    compute_table,
    paper_tables,
)
from cars_hw.studies.references import count, make, write_onnx

CARS = [f"CARS-{letter}" for letter in "ABCDEFGHI"]
# Typed from the paper once more, and not read from the file that is tested.
TABLE_1 = [
    "DenseNet-BC", "PNAS", "ENAS", "NASNet-A", "AmoebaNet-A", "Hierarchical evolution", "SNAS mild",
    "SNAS moderate", "SNAS aggressive", "DARTS first order", "DARTS second order", "Random search", "RENA",
    "NSGANet", "LEMONADE", *CARS,
]  # fmt: skip
TABLE_2 = [
    "ResNet50", "MorphNet", "InceptionV1", "MobileNetV2 1x", "ShuffleNetV2 2x", "PNAS", "AutoSlim", "SNAS mild",
    "DARTS", "PDARTS", "PARSEC", "ProxylessNAS GPU", "FBNet-C", "RCNet", "GDAS", "NASNet-A", "MNASNet-A1",
    "AmoebaNet-A", *CARS,
]  # fmt: skip
PARAMETERS = {
    "cifar10": ["2.4", "2.7", "2.8", "2.9", "3.0", "3.1", "3.2", "3.3", "3.6"],
    "imagenet": ["3.7", "4.0", "4.2", "4.3", "4.4", "4.5", "4.7", "4.8", "5.1"],
}


@pytest.fixture(scope="module")
def computed() -> Mapping[str, ComputedTable]:
    return {name: compute_table(table) for name, table in paper_tables().items()}


def test_every_row_is_printed_and_no_cell_is_blank(computed: Mapping[str, ComputedTable]) -> None:
    result = CliRunner().invoke(main, ["experiment", "tables"])
    assert result.exit_code == 0, result.output
    for name, names in (("cifar10", TABLE_1), ("imagenet", TABLE_2)):
        table = computed[name]
        assert [row.name for row in table.rows] == names
        for line in table.cells():
            assert len(line) == len(table.columns)
            assert all(cell.strip() not in ("", "-", "None") for cell in line)
            printed = [text for text in result.output.splitlines() if text.startswith(f"  {line[0]} ")]
            assert any(text.split() == " ".join(line).split() for text in printed), line
    assert "the counting rule of the paper is unknown" in result.output


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_the_parameters_of_cars_are_those_printed(computed: Mapping[str, ComputedTable], name: str) -> None:
    rows = {row.name: row for row in computed[name].rows}
    for network, printed in zip(CARS, PARAMETERS[name], strict=True):
        row = rows[network]
        assert row.published_parameters is not None
        assert f"{row.published_parameters / 1e6:.1f}" == printed == f"{row.printed['parameters']:.1f}"
        assert row.parameters_agree is True


def test_a_row_that_cannot_be_computed_says_why(computed: Mapping[str, ComputedTable]) -> None:
    for table in computed.values():
        notes = "\n".join(table.notes())
        for row in table.rows:
            if row.genotype is not None:
                assert row.genotype in whole_zoo()
            if row.parameters is None:
                assert row.name in notes
                assert unstructure(row)["parameters"] is None
    cells = {line[0]: line for line in computed["imagenet"].cells()}
    assert cells["MorphNet"][-4:] == [NOT_AVAILABLE] * 4
    assert cells["AutoSlim"][2] == NOT_PRINTED


def test_the_row_of_gdas_is_that_of_its_channels(computed: Mapping[str, ComputedTable]) -> None:
    row = next(row for row in computed["imagenet"].rows if row.name == "GDAS")
    assert row.published_parameters is not None
    assert (round(row.published_parameters / 1e6, 1), round(row.published_multiply_adds / 1e6)) == (5.3, 581)


def test_the_verdict_names_the_rows_that_differ(computed: Mapping[str, ComputedTable]) -> None:
    assert computed["cifar10"].verdict() == (
        "Computed parameters equal the printed ones in 14 of 18 rows; "
        "they differ in ENAS (3.73 M, printed 4.2), "
        "AmoebaNet-A (3.21 M, printed 3.1), "
        "SNAS mild (2.66 M, printed 2.9), "
        "DARTS first order (3.17 M, printed 3.3)."
    )


def test_what_can_be_measured_is_measured() -> None:
    small = paper_tables()["imagenet"]
    rows = {row.name: row for row in small.rows}
    table = replace(small, rows=tuple(rows[name] for name in ("CARS-A", "MNASNet-A1", "MorphNet")))
    device = FakeDevice()
    found = compute_table(table, device, MeasurePlan(sessions=1))
    latencies = {row.name: row.latency_ms for row in found.rows}
    assert latencies["MorphNet"] is None
    # The fake device takes a millisecond for 4 million multiply-adds, and something for each operation.
    for row in found.rows:
        if row.parameters is not None:
            assert row.latency_ms is not None
            assert row.latency_ms > row.multiply_adds / 4e6
    assert found.columns[-1] == "fake, ms (here)"
    # What is measured once does not differ from itself.
    assert {row.spread for row in found.rows} == {0.0, None}
    assert not any("sessions differ" in line for line in found.notes())
    first, second = (
        replace(row, latency_ms=10.0, spread=spread)
        for row, spread in zip(found.rows[:2], (0.05, 0.34), strict=True)
    )
    unsteady = replace(found, rows=(first, second)).notes()
    assert unsteady[-1].startswith(f"{second.name} (by 34%): sessions differ")
    assert not any(first.name in line for line in unsteady if "sessions differ" in line)
    torchvision = replace(small, rows=(rows["ShuffleNetV2 2x"],))
    unmeasured = replace(compute_table(torchvision), device="litert").notes()
    assert any(line.startswith("ShuffleNetV2 2x: torchvision's networks are only measured") for line in unmeasured)


def test_the_json_is_written_and_printed(tmp_path: Path) -> None:
    out = tmp_path / "tables.json"
    arguments = ["experiment", "tables", "--paper-table", "cifar10", "--json", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content == TABLES.read(out)
    assert require_file(out) == "paper-tables"
    assert list(content) == ["cifar10"]
    first = content["cifar10"]["rows"][-9]
    assert (first["name"], first["published_parameters"], first["printed"]["error"]) == ("CARS-A", 2_432_206, 3.0)
    spec, genotype = NETWORKS["cifar"], zoo()["CARS_A"].genotype
    assert first["parameters"] == network_cost(spec, genotype).parameters < 2_432_206


def test_torchvision_is_counted_as_the_closed_form_counts() -> None:
    # ResNet-50: 25,557,032 parameters and 4.09 billion multiply-adds are what torchvision says of it itself. Each
    # of its 26,560 normalised channels has a scale, which is folded.
    assert count("resnet50") == (25_557_032 - 26_560, 4_089_184_256, 26_560)
    assert count("resnet50").trained_parameters == 25_557_032
    # One grey channel less twice: 7x7 weights of 64 filters, at 14x14 pixels; classes: 990 rows of 512 and a bias.
    grey, colour = count("resnet18", Shape(1, 28, 28), 10), count("resnet18", Shape(3, 28, 28), 1000)
    assert colour.parameters - grey.parameters == 2 * 64 * 49 + 990 * 513
    assert colour.multiply_adds - grey.multiply_adds == 2 * 64 * 49 * 14 * 14 + 990 * 512


@pytest.mark.parametrize("model", ["mobilenet_v2", "mnasnet1_0", *["googlenet"][: amount(0, 1)]])
def test_torchvision_is_counted_as_its_file_has_it(model: str, tmp_path: Path) -> None:
    shape = Shape(1, 64, 64)
    network = seeded(lambda: make(model, shape, 10), model)
    write_onnx(network, shape, tmp_path / "model.onnx")
    found = count(model, shape, 10)
    assert count_onnx(tmp_path / "model.onnx") == found[:2]
    assert found.trained_parameters == sum(one.numel() for one in network.parameters())


def test_only_the_first_convolution_and_the_classifier_are_adapted() -> None:
    for model in ("mobilenet_v2", "mnasnet1_0", "shufflenet_v2_x1_0", "resnet18"):
        with torch.device("meta"):
            adapted = make(model, Shape(1, 28, 28), 10)
            before = dict(make(model).named_parameters())
        after = dict(adapted.named_parameters())
        assert list(before) == list(after)
        differing = [name for name in before if before[name].shape != after[name].shape]
        assert len(differing) == 3
        assert differing[0] == next(iter(before))
        assert {name.rpartition(".")[2] for name in differing[1:]} == {"weight", "bias"}
        first = next(module for module in adapted.modules() if isinstance(module, nn.Conv2d))
        assert (first.in_channels, first.stride) == (1, (2, 2))
    with pytest.raises(InputError, match="no classifier 'nonsense'"):
        make("nonsense")
