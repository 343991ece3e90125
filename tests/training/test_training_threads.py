"""How many threads a training has: by its network, kept when it resumes, and the same for the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cars_hw.callbacks import EpochFigures, TrainingCallback
from cars_hw.config.training import Recipe, SharedTraining
from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.network import Network
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.block_space import uniform
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training import threads as rules
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.standalone import TrainingResult, train_network
from cars_hw.training.threads import LEAST_VALUES, step_threads, training_threads

SPEC = NetworkSpec(8, 3, (16, 16), 1, classes=3)
GENOTYPE = SearchSpace().sample(np.random.default_rng(4))
RECIPE = Recipe(epochs=2, batch_size=48, learning_rate=0.05, hold_out=0.2)


def noise(count: int, seed: int) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 16, 16), dtype=torch.uint8, generator=generator)
    return Dataset(images, torch.arange(count) % 3)


DATA = DataBundle("noise", noise(120, 0), noise(30, 1), ("a", "b", "c"), (0.5,), (0.3,))


@contextmanager
def available(number: int) -> Iterator[None]:
    """Let torch have ``number`` threads of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
        assert torch.get_num_threads() == number, "a training leaves torch's number as it is"
    finally:
        torch.set_num_threads(before)


class Seen(TrainingCallback):
    """Notes the threads of each epoch, and can stand for a kill in the second."""

    def __init__(self, *, dies: bool = False) -> None:
        self.threads: list[int] = []
        self._dies = dies

    def on_epoch(self, figures: EpochFigures) -> None:
        self.threads.append(torch.get_num_threads())
        if self._dies and figures.epoch > 1:
            raise KeyboardInterrupt


def train(
    seen: Seen, threads: int = 0, checkpoint: TrainingCheckpoint | None = None, said: list[str] | None = None
) -> tuple[TrainingResult, dict[str, Tensor]]:
    torch.manual_seed(0)
    network = Network(SPEC, GENOTYPE)
    log = (said if said is not None else []).append
    result = train_network(
        network,
        DATA,
        RECIPE,
        seed=0,
        threads=threads,
        checkpoint=checkpoint,
        callbacks=[seen],
        progress=lambda *_: None,
        log=log,
    )
    return result, network.state_dict()


def made(spec: NetworkSpec) -> Network:
    with torch.device("meta"):
        return Network(spec, GENOTYPE if spec.blocks is None else uniform(spec, "k3_e3"))


def test_activations_decide_whether_a_step_has_more_than_one_thread() -> None:
    small, large = NetworkSpec(8, 5, (14, 14), 1), NetworkSpec(16, 8, (32, 32), 3)
    # The networks of benchmarks/results/threads.json: 50 thousand values, and 1.6 million.
    cases = [(made(small), 32, 1), (made(large), 96, 4)]
    # 16 channels of 32x32 are 2^14 values: 2^5 images are enough, by hand.
    assert LEAST_VALUES == 1 << 19
    cases += [(made(large), 31, 1), (made(large), 32, 4)]
    # The stem for large images halves them three times, whatever follows: 28x28 values for each of 48 channels.
    for family in ("darts", "mobile"):
        photos = made(NetworkSpec(48, 14, (224, 224), 3, stem="imagenet", family=family))
        cases += [(photos, 13, 1), (photos, 14, 4)]
    cases += [(nn.Linear(2, 2), 1, 4)]
    with available(4):
        assert [step_threads(network, batch) for network, batch, _ in cases] == [threads for *_, threads in cases]
    with available(1):
        assert {step_threads(network, batch) for network, batch, _ in cases} == {1}


def test_a_setting_wins_over_a_checkpoint_and_this_over_the_rule() -> None:
    small, large = made(SPEC), made(NetworkSpec(16, 8, (64, 64), 3))
    said: list[str] = []
    with available(3):
        assert training_threads(small, 48, 0, None, said.append) == 1
        assert said.pop().startswith("has 1 of 3 threads: its activations are small")
        assert training_threads(large, 48, 0, None, said.append) == 3
        assert training_threads(small, 48, 2, None, said.append) == 2
        assert training_threads(small, 48, 0, {"threads": 5}, said.append) == 5
        assert training_threads(large, 48, 0, {"threads": 1}, said.append) == 1
        assert training_threads(small, 48, 5, {"threads": 5}, said.append) == 5
        # An earlier version had torch's number, and did not keep it.
        assert training_threads(small, 48, 0, {}, said.append) == 3
        # It began on a GPU.
        assert training_threads(large, 48, 0, {"threads": 0}, said.append) == 3
        assert training_threads(large, 48, 2, {"threads": 0}, said.append) == 2
        assert not said
        assert training_threads(small, 48, 2, {"threads": 5}, said.append) == 2
    assert said == ["goes on with 2 of 5 threads: it is rounded otherwise from here on"]


def test_a_small_network_has_one_thread_and_the_same_weights_on_any_machine() -> None:
    outcomes = []
    for threads in (1, 2):
        seen, said = Seen(), list[str]()
        with available(threads):
            outcomes.append(train(seen, said=said))
        assert seen.threads == [1, 1]
        assert len(said) == threads - 1
    (first, weights), (second, others) = outcomes
    assert (first, first.threads) == (second, 1)
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_training_that_resumes_has_the_threads_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By the rule, it would have both threads. Two threads that really compute take long on a busy machine.
    monkeypatch.setattr(rules, "LEAST_VALUES", 0)
    checkpoint = TrainingCheckpoint(tmp_path / "c.pt", {}, lambda _line: None)
    with available(2), pytest.raises(KeyboardInterrupt):
        train(Seen(dies=True), threads=1, checkpoint=checkpoint)
    seen = Seen()
    with available(2):
        result, weights = train(seen, checkpoint=checkpoint)
    assert (seen.threads, result.threads) == ([1], 1)
    with available(1):
        _, whole = train(Seen())
    assert all(torch.equal(weights[name], whole[name]) for name in weights)


@pytest.mark.parametrize(
    ("given", "batch_size", "threads"),
    # 8 channels of 16x16 are 2^11 values: 2^8 images have as many as the rule says.
    [(0, 32, 1), (0, 256, 2), (1, 256, 1), (2, 32, 2)],
)
def test_a_step_of_shared_weights_has_the_threads_of_the_rule(given: int, batch_size: int, threads: int) -> None:
    settings = SharedTraining(batch_size=batch_size, threads=given)
    weights = SuperNetWeights(SuperNet(SPEC), DATA, settings, epochs=1, seed=0)
    seen: list[int] = []

    def step(*_: object) -> Tensor:
        seen.append(torch.get_num_threads())
        return torch.zeros(())

    weights.step = step  # type: ignore[method-assign]
    with available(2):
        weights.train(lambda _count: [Architecture(GENOTYPE, SPEC)])
    assert set(seen) == {threads}
