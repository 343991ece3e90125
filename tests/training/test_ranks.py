"""Two processes and one give the same weights and the same accuracies."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner
from processes import run_by_two
from two_processes import STEPS, figures, main, trained

from cars_hw.child_processes import launched
from cars_hw.cli.main import main as cars_hw
from cars_hw.config.evaluation import ClassCounts
from cars_hw.training.process_group import SINGLE_PROCESS, ProcessGroup, joined, restarted


def test_one_process_is_alone_and_exchanges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as process_group:
        assert process_group is SINGLE_PROCESS
    assert launched() == 1
    assert process_group.leads
    assert process_group.share([1, 2, 3]) == [1, 2, 3]
    assert process_group.gather([[1, 2], [3, 4]], 2, 2) == [(1, 2), (3, 4)]
    assert process_group.broadcast(b"x") == b"x"
    assert process_group.add(torch.tensor(3.0)) == 3.0


@pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_number_of_processes_without_the_rest_of_torchrun_is_one_line(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in whole.items():
        monkeypatch.setenv(name, value)
    assert launched() == 4
    monkeypatch.delenv(missing)
    for command in (["search", "--data", "fashion-mini", "--cost", "parameters", "--out", "run"], ["zoo"]):
        result = CliRunner().invoke(cars_hw, command)
        assert result.exit_code == 1
        assert f"WORLD_SIZE is 4, as for one of 4 processes, but {missing} is not set" in result.output


def test_shares_are_disjoint_and_everything() -> None:
    items = list(range(7))
    shares = [ProcessGroup(rank, 3).share(items) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 3, 6], [1, 4], [2, 5]]
    assert [ProcessGroup(rank, 3).leads for rank in range(3)] == [True, False, False]


def test_processes_wait_for_one_that_measures_for_longer_than_the_limit_of_an_exchange() -> None:
    store = dist.HashStore()
    leader, follower = (ProcessGroup(rank, 2, store=store) for rank in range(2))
    passed = [threading.Event(), threading.Event()]

    def follow() -> None:
        for event in passed:
            follower.meet()
            event.set()

    waiting = threading.Thread(target=follow, daemon=True)
    waiting.start()
    for event in passed:
        # Nothing but the leader ends the waiting, and one meeting is not taken for the next one.
        assert not event.wait(0.1)
        leader.meet()
        assert event.wait(60)
    waiting.join(60)
    SINGLE_PROCESS.meet()


def test_a_restart_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert not restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restarted()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each of two processes found."""
    return run_by_two(main, tmp_path_factory.mktemp("both"))


def assert_alike(found: dict[str, list[float]], counts: Sequence[ClassCounts]) -> None:
    """Check that ``found`` are the accuracies and losses of ``counts``; the weights differ by roundings."""
    expected = figures(counts)
    assert found["accuracies"] == pytest.approx(expected["accuracies"], abs=1e-9)
    assert found["losses"] == pytest.approx(expected["losses"], abs=1e-5)
    assert len(set(found["losses"])) > 5


def test_two_processes_train_and_judge_as_one_does(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = both
    weights, counts = trained(SINGLE_PROCESS)
    assert first["world"] == 2
    changed = 0
    for name, value in weights.supernet.state_dict().items():
        torch.testing.assert_close(first["state"][name], value, rtol=1e-6, atol=1e-7)
        assert torch.equal(first["state"][name], second["state"][name])
        changed += value.numel()
    assert changed > 10_000
    assert_alike(first["figures"], counts)
    assert first["figures"] == second["figures"]
    assert bytes(first["said"]) == bytes(second["said"]) == b"hello"
    assert first["added"].tolist() == second["added"].tolist() == [2.0, 1.0]


def test_two_processes_train_and_judge_over_sizes_as_one_does(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = both
    weights, counts = trained(SINGLE_PROCESS, STEPS // 2, over_sizes=True)
    sandwiched, sandwiched_counts = trained(SINGLE_PROCESS, STEPS // 4, over_sizes=True, sandwiched=True)
    for key, state in (("sliced", weights.supernet.state_dict()), ("sandwiched", sandwiched.state()["evaluated"])):
        for name, value in state.items():
            torch.testing.assert_close(first[key][name], value, rtol=1e-6, atol=1e-7)
            assert torch.equal(first[key][name], second[key][name])
    for key, one in (("sliced_figures", counts), ("sandwiched_figures", sandwiched_counts)):
        assert_alike(first[key], one)
        assert first[key] == second[key]
