from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cars_hw.config.checksummed import checksum, readable_json
from cars_hw.errors import TableError
from cars_hw.latency import LatencyTable, Predictor, spec_keys
from cars_hw.space.network_spec import NETWORKS

MakeTable = Callable[..., LatencyTable]


def rewrite(path: Path, **changes: object) -> None:
    """Change fields and seal the file again, as another version might have written it."""
    content = json.loads(path.read_text())
    content.update(changes)
    content.pop("checksum")
    path.write_text(json.dumps({**content, "checksum": checksum(content)}))


@pytest.fixture
def written(make_table: MakeTable, tmp_path: Path) -> tuple[LatencyTable, Path]:
    table = make_table(networks=4)
    table.write(tmp_path / "table.json")
    return table, tmp_path / "table.json"


def test_what_is_written_is_read(written: tuple[LatencyTable, Path]) -> None:
    table, path = written
    assert LatencyTable.read(path) == table
    unfinished = replace(table, calibration=(), predictor=None)
    unfinished.write(path)
    assert LatencyTable.read(path) == unfinished


def test_the_other_load_is_the_column_others_of_the_file(written: tuple[LatencyTable, Path]) -> None:
    table, path = written
    overhead = json.loads(path.read_text())["overhead"]
    count = len(overhead["samples"]["ms"])
    rewrite(path, overhead={**overhead, "samples": {**overhead["samples"], "others": [0.25] * count}})
    assert [one.other_load for one in LatencyTable.read(path).overhead.samples] == [0.25] * count
    assert LatencyTable.read(path).overhead.ms == table.overhead.ms
    LatencyTable.read(path).write(path)
    assert json.loads(path.read_text())["overhead"]["samples"]["others"] == [0.25] * count


def test_an_entry_is_a_line(written: tuple[LatencyTable, Path]) -> None:
    lines = [line for line in written[1].read_text().splitlines() if "sep_conv_3x3/c4/9x8/s1" in line]
    assert len(lines) == 1
    assert '"samples": {"ms": [' in lines[0]


def test_readable_json_is_json() -> None:
    value = {"a": [{"b": "x" * 150, "c": [1, 2.5, None]}, {}, [], "ä"], "d": {"e" * 120: ["f" * 120]}}
    text = readable_json(value)
    assert json.loads(text) == value
    assert len(text.splitlines()) > 3


def test_every_changed_byte_is_noticed_or_changes_nothing(written: tuple[LatencyTable, Path]) -> None:
    table, path = written
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    noticed = 0
    for position in rng.choice(len(good), size=250, replace=False):
        damaged = bytearray(good)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read = LatencyTable.read(path)
        except TableError as error:
            assert "\n" not in str(error)
            noticed += 1
        else:
            # A capital E in a number, or another kind of white space.
            assert read == table
    assert noticed > 240


@pytest.mark.parametrize("kept", [0, 1, 100, -2])
def test_a_truncated_file_is_noticed(kept: int, written: tuple[LatencyTable, Path]) -> None:
    path = written[1]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TableError, match="not JSON"):
        LatencyTable.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a cars-hw latency table"),
        ("{}", "not a cars-hw latency table"),
        ('{"format": "cars-hw latency table", "version": NaN}', "not JSON"),
        ('{"format": "cars-hw latency table", "version": true}', "not a cars-hw latency table"),
        ('{"format": "cars-hw latency table", "version": 3}', "checksum"),
        (
            '{"format": "cars-hw latency table", "version": 2}',
            "older cars-hw .schema 2, this one reads 3.$",
        ),
        ('{"format": "cars-hw latency table", "version": 4}', "newer cars-hw"),
        ('{"format": "cars-hw partial profile", "version": 1}', "not a cars-hw latency table"),
        ('"\\ud800"', "not a cars-hw latency table"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_table_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(TableError, match=message) as raised:
        LatencyTable.read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TableError, match="not JSON"):
        LatencyTable.read(tmp_path / "bytes")
    with pytest.raises(TableError, match=r"No such file") as raised:
        LatencyTable.read(tmp_path / "nowhere")
    assert raised.value.remedy == "profile"
    with pytest.raises(TableError, match="cannot read"):
        LatencyTable.read(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"entries": 3},
        {"entries": {"x": {"ms": 1.0}}},
        {"overhead": None},
        {"network": {}},
        {"calibration": [{"genotype": {}, "ms": 1.0, "spread": 0.0, "samples": []}]},
        {"predictor": {"slope": 1.0}},
    ],
)
def test_a_sealed_file_with_something_else_in_it_is_refused(
    changes: dict[str, object], written: tuple[LatencyTable, Path]
) -> None:
    rewrite(written[1], **changes)
    with pytest.raises(TableError, match="no complete latency table") as raised:
        LatencyTable.read(written[1])
    assert "\n" not in str(raised.value)


def test_a_newer_schema_is_refused_even_if_it_reads_like_this_one(written: tuple[LatencyTable, Path]) -> None:
    rewrite(written[1], version=4)
    with pytest.raises(TableError, match="written by a newer cars-hw"):
        LatencyTable.read(written[1])


def test_another_network_or_precision_is_refused_with_both(written: tuple[LatencyTable, Path]) -> None:
    table = written[0]
    table.require(table.spec, "fp32")
    with pytest.raises(TableError) as raised:
        table.require(NETWORKS["cifar"])
    assert table.spec.describe() in str(raised.value)
    assert NETWORKS["cifar"].describe() in str(raised.value)
    with pytest.raises(TableError, match="fp32, not int8"):
        table.require(table.spec, "int8")


def test_missing_entries_are_an_error_and_not_nothing(written: tuple[LatencyTable, Path]) -> None:
    table = written[0]
    keys = spec_keys(table.spec)
    gone = {str(keys[3]), str(keys[7])}
    holey = replace(table, entries={key: entry for key, entry in table.entries.items() if key not in gone})
    with pytest.raises(TableError, match=rf"no entry for {keys[3]} \(2 missing in all\)"):
        holey.require_keys(keys)
    with pytest.raises(TableError, match="2 missing"):
        Predictor(holey)


def test_an_operation_faster_than_nothing_costs_nothing(written: tuple[LatencyTable, Path]) -> None:
    table = written[0]
    key = next(iter(table.entries))
    fast = replace(table, entries={**table.entries, key: replace(table.overhead, ms=table.overhead_ms / 2)})
    assert fast.costs()[key] == 0.0
    other = next(reversed(table.entries))
    assert fast.costs()[other] == pytest.approx(table.entries[other].ms - table.overhead_ms)
