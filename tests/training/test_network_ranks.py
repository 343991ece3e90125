"""Two processes that share every batch: one network, and the steps that one process would take."""

from __future__ import annotations

from pathlib import Path

import torch
from processes import run_by_two
from two_processes_network import main, trained

from cars_hw.training.process_group import SINGLE_PROCESS


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    first, second = run_by_two(main, tmp_path)
    assert first["world"] == 2
    for case in ("plain", "normalised", "varied"):
        assert first[case].keys() == second[case].keys()
        for name, value in first[case].items():
            assert torch.equal(value, second[case][name]), f"{case}: {name}"
    # Without batch normalisation, which sees the images of its own process, they are those of one process.
    for name, value in trained(SINGLE_PROCESS, normalised=False).items():
        torch.testing.assert_close(first["plain"][name], value, rtol=1e-4, atol=1e-6)
    assert not torch.equal(first["normalised"]["classifier.weight"], first["plain"]["classifier.weight"])
