"""Whole steps of a final training: replayed ones are those that are launched one operation after the other."""

from __future__ import annotations

import copy
import gc
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from emulated_graphs import EmulatedRecorder
from long_runs import amount
from torch import Tensor, nn

from cars_hw.config.training import Recipe
from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.network import Network
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.network_step import NetworkStep, Stepping
from cars_hw.training.process_group import ProcessGroup
from cars_hw.training.standalone import NetworkTraining

SPEC = NetworkSpec(4, 3, (12, 12), 1, classes=3)
GENOTYPE = SearchSpace().sample(np.random.default_rng(4))
RECIPE = Recipe(
    epochs=3, batch_size=24, learning_rate=0.05, drop_path=0.3, cutout=4, crop_padding=1, auxiliary=0.4, ema=0.9
)


def images(count: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 12, 12), dtype=torch.uint8, generator=generator)
    return Dataset(pixels, torch.arange(count) % 3)


# Four steps an epoch, the last with fewer images.
DATA = DataBundle("random", images(82), images(12), ("a", "b", "c"), (0.5,), (0.25,))


class Eager:
    """Records nothing: a replay is the work itself, as PyTorch runs it."""

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        return work


def training(recorder: Any, recipe: Recipe = RECIPE, **given: Any) -> NetworkTraining:  # noqa: ANN401
    torch.manual_seed(0)
    network = Network(SPEC, GENOTYPE, auxiliary=recipe.auxiliary > 0)
    return NetworkTraining(
        network, DATA, recipe, seed=1, new_recorder=None if recorder is None else lambda: recorder, **given
    )


def tensors(of: NetworkTraining) -> list[Tensor]:
    """Return all that a training has changed: weights, averages, momenta, and the state of the random numbers."""
    networks: list[nn.Module] = [of.network, *([of.averaged] if of.averaged else [])]
    weights = [one for network in networks for one in network.state_dict().values()]
    momenta = [of.step.optimizer.state[one]["momentum_buffer"] for one in of.network.parameters()]
    return [*weights, *momenta, torch.get_rng_state()]


def assert_equal(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second) > 100
    for mine, theirs in zip(first, second, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, ema=0.0, mixup=0.4, class_weights="balanced", label_smoothing=0.1),
        replace(RECIPE, precision="bf16"),
    ],
)
def test_replayed_steps_train_bit_by_bit_what_launched_steps_train(recipe: Recipe) -> None:
    recorder = EmulatedRecorder()
    replayed, launched = training(recorder, recipe), training(Eager(), recipe)
    for epoch in range(3):
        found = []
        for one in (replayed, launched):
            one.run_epoch()
            found.append((one.loss, one.figures, tensors(one)))
        assert found[0][:2] == found[1][:2]
        assert_equal(found[0][2], found[1][2])
        # Drop-path and the learning rate are others in each epoch, and nothing is recorded again.
        assert recorder.recorded == 1
        # The first step is launched, the second recorded, and the last of an epoch has another size.
        assert recorder.replayed == 1 + 3 * epoch
    # Not as the device rounds it.
    assert replayed.step.rate == replayed.figures.learning_rate == recipe.rate(2 + 3 / 4)


def test_recorded_steps_are_those_of_a_training_that_records_nothing() -> None:
    recorded, plain = training(EmulatedRecorder()), training(None)
    for one in (recorded, plain):
        one.run_epoch()
    assert not plain.step.records
    for mine, theirs in zip(tensors(recorded), tensors(plain), strict=True):
        # A fused optimiser rounds once where another rounds twice.
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_a_resumed_training_records_again_and_ends_with_the_same_weights() -> None:
    whole = training(EmulatedRecorder())
    whole.run_epoch()
    state = copy.deepcopy(whole.state())
    assert isinstance(state["optimizer"]["param_groups"][0]["lr"], float)
    whole.run_epoch()
    expected = tensors(whole)
    recorder = EmulatedRecorder()
    again = training(recorder)
    # One that has a recording already, of tensors that are replaced.
    again.run_epoch()
    again.restore(state)
    again.run_epoch()
    assert recorder.recorded == 2
    assert_equal(tensors(again), expected)
    # A training that records nothing takes it up, too.
    plain = training(None)
    plain.restore(state)
    assert plain.step.rate == pytest.approx(whole.recipe.rate(0.75))
    assert not isinstance(plain.step.optimizer.param_groups[0]["lr"], Tensor)
    plain.run_epoch()


class Refusing(EmulatedRecorder):
    """Takes the step and refuses the recording, as CUDA does with an operation that waits."""

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        raise RuntimeError("operation not permitted\nwhen stream is capturing")


def test_a_step_that_cannot_be_recorded_is_launched_and_one_line_says_so() -> None:
    said: list[str] = []
    refused, launched = training(Refusing(), log=said.append), training(Eager())
    found = []
    for one in (refused, launched):
        for _ in range(2):
            one.run_epoch()
        found.append(tensors(one))
    # Later steps are those of a training that never records.
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    assert said == [
        "a step of the training cannot be recorded (operation not permitted when stream is capturing): each of its "
        "operations is launched, which is slower"
    ]
    assert not refused.step.records


def test_an_error_of_the_step_itself_is_not_taken_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    made = training(EmulatedRecorder())
    batches = list(made.batches.epoch(made.generator))
    made.step(*batches[0])

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("cars_hw.training.network_step.cross_entropy", full)
    with pytest.raises(torch.OutOfMemoryError):
        made.step(*batches[1])


@pytest.mark.parametrize(
    "given", [{"stepping": Stepping(replay="off")}, {"process_group": ProcessGroup(0, 2)}], ids=["off", "processes"]
)
def test_nothing_is_recorded_if_it_is_off_or_several_processes_share_steps(given: dict[str, Any]) -> None:
    made = training(EmulatedRecorder(), **given)
    assert not made.step.records
    assert not made.step.optimizer.param_groups[0]["fused"]


def test_gradients_get_the_layout_of_their_weights() -> None:
    network = nn.Conv2d(4, 6, 1)
    step = NetworkStep(network, RECIPE, torch.device("cpu"))
    # The second has strides as cuDNN may choose them; the third has another order of pixels.
    weight, like = network.weight, torch.arange(24.0)
    for gradient in (
        like.reshape(6, 4, 1, 1),
        like.as_strided((6, 4, 1, 1), (4, 1, 4, 4)),
        like.reshape(4, 6, 1, 1).transpose(0, 1),
    ):
        values = gradient.clone()
        weight.grad, network.bias.grad = gradient, torch.zeros(6)  # type: ignore[union-attr]
        before = weight.detach().clone()
        step._update()
        assert weight.grad.stride() == weight.stride()
        clipped = values * (RECIPE.gradient_clip / values.norm())
        moved = (before - weight.detach()) / step.rate - RECIPE.weight_decay * before
        # The momentum of a gradient before is added.
        step.optimizer.state.clear()
        torch.testing.assert_close(moved, clipped, rtol=1e-3, atol=1e-3)


def test_a_network_that_cannot_be_compiled_runs_as_it_is_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise TorchDynamoException("no C++ compiler\nfound")

    monkeypatch.setattr(torch, "compile", lambda _, **__: Broken())
    said: list[str] = []
    broken, plain = training(None, stepping=Stepping(compiled=True), log=said.append), training(None)
    for one in (broken, plain):
        one.run_epoch()
    assert_equal(tensors(broken), tensors(plain))
    assert said == ["PyTorch cannot compile the network (no C++ compiler found): it runs as it is, which is slower"]


class FailsBackward(torch.autograd.Function):
    """Fails when PyTorch compiles the backward pass, which it may do at the first one."""

    @staticmethod
    def forward(_: Any, logits: Tensor) -> Tensor:  # noqa: ANN401
        return logits.clone()

    @staticmethod
    def backward(_: Any, *__: Tensor) -> Tensor:  # noqa: ANN401
        from torch._inductor.exc import CppCompileError

        raise CppCompileError(["g++"], "no\nheaders")


@pytest.mark.parametrize("recorder", [None, Eager()])
def test_a_backward_pass_that_cannot_be_compiled_is_as_if_it_had_not_been_tried(
    recorder: Eager | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(nn.Module):
        def __init__(self, passes: nn.Module) -> None:
            super().__init__()
            self.network = passes.network

        def forward(self, images: Tensor) -> Any:  # noqa: ANN401
            # It drops paths, and moves the running averages.
            logits, auxiliary = self.network.forward_with_auxiliary(images)
            return FailsBackward.apply(logits), auxiliary

    monkeypatch.setattr(torch, "compile", lambda passes, **__: Broken(passes))
    said: list[str] = []
    broken = training(recorder, stepping=Stepping(compiled=True), log=said.append)
    plain = training(recorder)
    found = []
    for one in (broken, plain):
        one.run_epoch()
        found.append(tensors(one))
    assert_equal(*found)
    assert len(said) == 1
    assert said[0].startswith("PyTorch cannot compile the network (C++ compile error Command: g++")
    assert said[0].endswith("): it runs as it is, which is slower")
    assert "\n" not in said[0]


def test_an_error_of_the_network_itself_is_not_one_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise ValueError("wrong")

    monkeypatch.setattr(torch, "compile", lambda _, **__: Broken())
    with pytest.raises(ValueError, match="wrong"):
        training(None, stepping=Stepping(compiled=True)).run_epoch()


class Dropping(nn.Module):
    """Drops samples by the random numbers of PyTorch, as drop-path does."""

    def forward(self, images: Tensor) -> Tensor:
        kept = torch.rand(len(images), 1, 1, 1) >= 0.5
        return images * kept.to(images.dtype) if self.training else images


@pytest.mark.skipif(not amount(0, 1), reason="long: run with --long")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("recorder", [None, Eager()])
def test_a_compiled_network_trains_as_one_that_is_not(recorder: Eager | None) -> None:
    said: list[str] = []
    trainings = []
    for stepping in (Stepping(compiled=True), Stepping()):
        torch.manual_seed(0)
        # A network of cells takes minutes to compile.
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), Dropping(), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3)
        )
        new = None if recorder is None else lambda: recorder
        made = NetworkTraining(network, DATA, RECIPE, seed=1, stepping=stepping, new_recorder=new, log=said.append)
        made.run_epoch()
        assert made.step._compiled is not None or not stepping.compiled
        trainings.append(made)
    for mine, theirs in zip(*(one.network.state_dict().values() for one in trainings), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    assert not said


def test_a_finished_network_drops_no_path_on_any_device() -> None:
    made = training(EmulatedRecorder())
    made.run_epoch()
    assert isinstance(made.network, Network)
    assert isinstance(made.network.drop_path, Tensor)
    made.finish()
    assert made.network.drop_path == 0
    assert not isinstance(made.network.drop_path, Tensor)


def test_nothing_keeps_a_finished_training_alive() -> None:
    made = training(EmulatedRecorder())
    made.run_epoch()
    alive = [weakref.ref(one) for one in (made, made.step, made.network, made.step._recorded)]
    gc.collect()
    gc.disable()
    try:
        del made
        assert [one() for one in alive] == [None] * len(alive)
    finally:
        gc.enable()
