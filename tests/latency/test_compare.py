from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from cars_hw.config.codec import unstructure
from cars_hw.devices import Measurement, Sample
from cars_hw.errors import TableError
from cars_hw.latency import LatencyTable, compare_tables
from cars_hw.space.network_spec import NETWORKS

MakeTable = Callable[..., LatencyTable]


def measured(ms: float, standard_error: float = 0.0, sessions: int = 4) -> Measurement:
    return Measurement(ms, (Sample(ms),) * sessions, 0.0, standard_error)


def test_a_table_differs_from_itself_in_nothing(make_table: MakeTable) -> None:
    table = make_table()
    found = compare_tables(table, table)
    assert (found.median_ratio, found.median_change) == (1.0, 0.0)
    assert len(found.operations) == len(table.entries)
    assert len(found.networks) == len(table.calibration)
    assert not any(moved.beyond_noise for moved in (*found.operations, *found.networks))
    assert not found.conditions
    assert not found.only_before
    assert not found.only_after


def test_what_moved_by_more_than_the_noise_by_hand(make_table: MakeTable) -> None:
    before = make_table(networks=4)
    first, second, third, *_ = before.entries
    entries = {name: measured(entry.ms, 0.02) for name, entry in before.entries.items()}
    before = replace(before, entries=entries)
    after = replace(
        before,
        entries={
            **entries,
            first: measured(entries[first].ms * 1.30, 0.02),
            second: measured(entries[second].ms * 1.05, 0.02),
            third: measured(entries[third].ms / 1.30, 0.02),
        },
    )
    found = {moved.name: moved for moved in compare_tables(before, after).operations}
    # Three standard errors of 2% each.
    noise = 3 * math.sqrt(2) * 0.02
    assert noise == pytest.approx(0.0849, abs=1e-4)
    assert found[first].noise == pytest.approx(noise)
    assert found[first].ratio == pytest.approx(1.3)
    assert [found[name].beyond_noise for name in (first, second, third)] == [True, False, True]
    assert sum(moved.beyond_noise for moved in found.values()) == 2


def test_operations_and_conditions_that_only_one_has_are_named(make_table: MakeTable) -> None:
    before = make_table(networks=4)
    first, second, *_ = before.entries
    after = replace(
        before,
        device="other",
        conditions={**before.conditions, "processor": "another", "governor": "performance", "load": [9.0]},
        entries={name: entry for name, entry in before.entries.items() if name != first},
    )
    before = replace(before, entries={name: entry for name, entry in before.entries.items() if name != second})
    found = compare_tables(before, after)
    assert (found.only_before, found.only_after) == ((first,), (second,))
    assert found.machines == (before.machine, after.machine)
    assert found.conditions == {
        "device": ("fake", "other"),
        "processor": ("none", "another"),
        "governor": (None, "performance"),
    }
    content = json.loads(json.dumps(unstructure(found)))
    assert content["operations"][0]["beyond_noise"] is False


def test_tables_of_different_networks_are_not_compared(make_table: MakeTable) -> None:
    table = make_table()
    with pytest.raises(TableError, match="different networks"):
        compare_tables(table, replace(table, spec=NETWORKS["cifar"]))
    with pytest.raises(TableError, match="no operation in common"):
        compare_tables(table, replace(table, entries={}))
