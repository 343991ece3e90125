"""The table of truth: which networks it has, how it is continued, and how far two orders agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scripts import script

from cars_hw.errors import InputError
from cars_hw.latency.validation import kendall_tau

ARGUMENTS = ("--data", "fashion-mini", "--images", "64", "20", "20", "--count", "4", "--batch", "32")


@pytest.fixture
def table_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("benchmarks/truth_table", monkeypatch)


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("benchmarks/truth", monkeypatch)
    monkeypatch.setattr(module.truth_table, "CHANNELS", (4, 6))
    monkeypatch.setattr(module.truth_table, "CELLS", (3,))
    return module


def test_networks_span_the_sizes_and_have_wirings_of_their_own(table_module: ModuleType) -> None:
    rows = table_module.rows(40, (8, 5), seed=1)
    sizes = [(row.channels, row.cells) for row in rows]
    assert set(sizes[:20]) == {(channels, cells) for channels in (4, 6, 8, 12, 16) for cells in (5, 8, 11)}
    assert set(sizes[20:]) == {(8, 5)}
    assert len({row.genotype for row in rows}) == 40
    assert rows == table_module.rows(40, (8, 5), seed=1) != table_module.rows(40, (8, 5), seed=2)
    halves = table_module.halves([row.name for row in rows])
    assert {half: len(names) for half, names in halves.items()} == {"all": 40, "size": 20, "wiring": 20}
    assert table_module.halves(halves["wiring"]) == {"wiring": halves["wiring"]}


def test_the_standard_error_of_tau_is_that_of_drawing_networks(table_module: ModuleType) -> None:
    rng = np.random.default_rng(0)
    draws = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=(300, 40))
    taus = [kendall_tau(*pairs.T.tolist()) for pairs in draws]
    found = [table_module.agreement(*pairs.T.tolist()) for pairs in draws[:20]]
    assert [one.tau for one in found] == pytest.approx(taus[:20], abs=1e-4)
    assert np.mean([one.error for one in found]) == pytest.approx(np.std(np.array(taus, float)), rel=0.15)


def test_agreement_of_orders_with_ties_and_without_any(table_module: ModuleType) -> None:
    assert table_module.agreement([1, 2, 3, 4], [2, 4, 6, 8]).tau == 1
    assert table_module.agreement([1, 2, 3, 4], [4, 3, 2, 1]).tau == -1
    tied = table_module.agreement([1, 1, 2, 3], [1, 2, 2, 3])
    assert tied.tau == pytest.approx(kendall_tau([1, 1, 2, 3], [1, 2, 2, 3]), abs=1e-4)
    assert table_module.agreement([1, 1, 1], [1, 2, 3]).tau is None


def run(truth: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, *more: str) -> None:
    monkeypatch.setattr("sys.argv", ["truth.py", *ARGUMENTS, "--epochs", "2", "--out", str(out), *more])
    args = truth.arguments()
    args.one_size = (4, 3)
    truth.make(args)


def test_a_table_that_was_interrupted_goes_on_where_it_was(
    truth: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    began: list[tuple[str, int]] = []
    train_one = truth.train_one

    def interrupted(*arguments: object, after: int) -> object:
        if len(began) == after:
            raise KeyboardInterrupt
        row, seed, *_ = arguments
        began.append((row.name, seed))
        return train_one(*arguments)

    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    run(truth, monkeypatch, whole)
    with monkeypatch.context() as patched:
        patched.setattr(truth, "train_one", lambda *a: interrupted(*a, after=5))
        with pytest.raises(KeyboardInterrupt):
            run(truth, monkeypatch, parts)
        assert len(truth.Table.read(parts).curves) == 5
        patched.setattr(truth, "train_one", lambda *a: interrupted(*a, after=8))
        run(truth, monkeypatch, parts)
    names = ["size-00", "size-01", "wiring-02", "wiring-03"]
    assert began == [(name, seed) for half in (names[2:], names[:2]) for seed in (0, 1) for name in half]

    a, b = (truth.Table.read(path) for path in (whole, parts))
    for figure in truth.FIGURES:
        assert [a.values(figure, seed, names) for seed in (0, 1)] == [
            b.values(figure, seed, names) for seed in (0, 1)
        ]
    assert a.complete() == names
    losses = [[curve.training_loss for curve in table.curves.values()] for table in (a, b)]
    assert losses[0] == losses[1]
    # Held-out images after every epoch; the images that score only after the last.
    evaluations = a.curves["size-00", 0].evaluations
    assert [sorted(one) for one in evaluations] == [
        ["epoch", "held_out_accuracy", "held_out_loss"],
        ["epoch", "held_out_accuracy", "held_out_loss", "score_accuracy", "score_loss"],
    ]


def test_other_settings_are_refused(truth: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(truth, monkeypatch, tmp_path / "table.json")
    with pytest.raises(InputError, match="other settings"):
        run(truth, monkeypatch, tmp_path / "table.json", "--rate", "0.1")
    with pytest.raises(InputError, match="other architectures"):
        run(truth, monkeypatch, tmp_path / "table.json", "--count", "6")


def test_the_spread_of_networks_is_told_from_that_of_trainings(table_module: ModuleType) -> None:
    rng = np.random.default_rng(0)
    rows = table_module.rows(4000, (8, 5), seed=0)
    networks, trainings = rng.normal(1, 0.3, len(rows)), rng.normal(0, 0.4, (2, len(rows)))
    curves = {
        (row.name, seed): table_module.Curve(row.name, seed, [], [{"epoch": 1, "score_loss": value}])
        for seed in (0, 1)
        for row, value in zip(rows, networks + trainings[seed] + 5 * seed, strict=True)
    }
    table = table_module.Table({"settings": {}, "architectures": [], "trainings": []})
    table.curves = curves
    among, between = table.spreads("score_loss", [row.name for row in rows])
    assert among == pytest.approx(0.3, rel=0.05)
    assert between == pytest.approx(0.4, rel=0.05)


def test_ceiling_and_truth_of_known_trainings(table_module: ModuleType) -> None:
    def curve(name: str, seed: int, losses: Sequence[float]) -> dict[str, object]:
        evaluations = [{"epoch": number + 1, "score_loss": loss} for number, loss in enumerate(losses)]
        return {"name": name, "seed": seed, "training_loss": list(losses), "evaluations": evaluations}

    rows = table_module.rows(4, (8, 5), seed=0)
    first, second = ([4, 1], [3, 2], [2, 3], [1, 4]), ([1, 1], [2, 2], [3, 4], [4, 3])
    trainings = [
        curve(row.name, seed, losses)
        for seed, of in ((0, first), (1, second))
        for row, losses in zip(rows, of, strict=True)
    ]
    architectures = [
        {
            "name": row.name,
            "channels": row.channels,
            "cells": row.cells,
            **table_module.costs(row, (16, 16), 3, 10),
            "genotype": row.genotype.to_darts(),
        }
        for row in rows
    ]
    table = table_module.Table({"settings": {}, "architectures": architectures, "trainings": trainings})
    names = table.complete()
    assert table.rows == rows
    assert table.ceiling("score_loss", names, 1).tau == -1
    # One of six pairs is the other way round.
    assert table.ceiling("score_loss", names).tau == pytest.approx(2 / 3, abs=1e-4)
    assert table.truth("score_loss", names) == [1, 2, 3.5, 3.5]
