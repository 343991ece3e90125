"""Recorded passes against plain ones, on emulated CUDA graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from emulated_graphs import EmulatedRecorder
from torch import Tensor

from cars_hw.config.training import SharedTraining
from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.device_kind import as_on
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.progress import Log, no_log
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training import recorded_passes as passes
from cars_hw.training.recorder import RecordingRefusedError
from cars_hw.training.shared_weights import SuperNetWeights
from cars_hw.training.threads import torch_threads

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=4)


def data(count: int = 90) -> DataBundle:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    part = Dataset(images, torch.arange(count) % 4)
    return DataBundle("toy", part, part, ("a", "b", "c", "d"), (0.5,), (0.25,))


def weights(recorder: EmulatedRecorder | None, architectures: int = 1, log: Log = no_log) -> SuperNetWeights:
    torch.manual_seed(0)
    settings = SharedTraining(batch_size=16, architectures=architectures, validation_fraction=0.25)
    # In double precision a difference is one of method, not of the order of sums.
    supernet = SuperNet(SPEC).double()
    made = SuperNetWeights(supernet, data(), settings, epochs=10, seed=0, recorder=recorder, log=log)
    made.batches._normalise.dtype = torch.float64
    return made


class Refusing(EmulatedRecorder):
    """Runs the work and refuses the recording, as CUDA does with an operation that waits."""

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        self.recorded += 1
        raise RecordingRefusedError("operation not permitted")


def genotypes(count: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [Architecture(SearchSpace().sample(rng), SPEC) for _ in range(count)]


@pytest.mark.parametrize("architectures", [1, 2])
def test_replayed_passes_train_the_same_weights_as_plain_ones(architectures: int) -> None:
    recorder = EmulatedRecorder()
    plain, graphed = weights(None, architectures), weights(recorder, architectures)
    for one in (plain, graphed):
        people = genotypes(3)
        rng = np.random.default_rng(1)
        losses = []
        for _ in range(3):
            losses.append(one.train(lambda count: [people[int(i)] for i in rng.choice(3, count, replace=False)]))  # noqa: B023
    # An epoch is 68 images: four batches of 16, and one of 4 that is not recorded.
    assert recorder.recorded == 3
    assert recorder.replayed == 3 * 4 * architectures - 2 * 3
    assert losses[-1] > 0
    moved = 0
    for mine, theirs in zip(plain.parameters, graphed.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
        mine_momentum, theirs_momentum = (
            made.optimizer.state[one]["momentum_buffer"] for made, one in ((plain, mine), (graphed, theirs))
        )
        torch.testing.assert_close(mine_momentum, theirs_momentum, rtol=1e-8, atol=1e-12)
        moved += int(mine_momentum.abs().sum() > 0)
    assert 20 < moved < len(plain.parameters)


def test_passes_that_cannot_be_recorded_train_as_recorded_ones_and_one_line_says_so() -> None:
    said: list[str] = []
    recorder = Refusing()
    recorded, refused = weights(EmulatedRecorder()), weights(recorder, log=said.append)
    people = genotypes(2)
    for one in (recorded, refused):
        for number in (0, 1, 0, 1, 0, 1):
            one.train(lambda count, number=number: people[number:][:count])
    # The first refusal is enough.
    assert recorder.recorded == 1
    assert recorded.records
    assert not refused.records
    for mine, theirs in zip(recorded.parameters, refused.parameters, strict=True):
        assert torch.equal(mine, theirs)
    assert said == [
        "a pass of an architecture cannot be recorded (operation not permitted): the operations of each pass are "
        "launched one by one, which is slower"
    ]


def test_who_has_no_gradient_is_the_same_whichever_way() -> None:
    # A reduction cell that reads one input only makes the cell before it irrelevant to half of what follows.
    plain, graphed = weights(None), weights(EmulatedRecorder())
    cell = tuple((Edge("sep_conv_3x3", 0), Edge("none", 1)) for _ in range(4))
    dead = Genotype(normal=cell, reduce=cell)
    images: Tensor = torch.randn(16, 1, 8, 8, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(16) % 4
    for _ in range(3):
        for one in (plain, graphed):
            one.step(images, labels, [Architecture(dead, SPEC)])
        used = [[parameter.grad is not None for parameter in one.parameters] for one in (plain, graphed)]
        assert used[0] == used[1]
    assert any(used[0])
    reachable = {id(one) for one in graphed.supernet.parameters_of(dead)}
    idle = [one for one, has in zip(graphed.parameters, used[1], strict=True) if not has]
    assert any(id(one) in reachable for one in idle), "the example leads everywhere"


def test_a_recording_that_was_dropped_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "MOST", 1)
    recorder = EmulatedRecorder()
    plain, graphed = weights(None), weights(recorder)
    first, second = genotypes(2)
    images = torch.randn(16, 1, 8, 8, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    for genotype in (first, first, second, second, first, first, first):
        for one in (plain, graphed):
            one.step(images, torch.arange(16) % 4, [genotype])
    assert (recorder.recorded, recorder.replayed) == (3, 1)
    for mine, theirs in zip(plain.parameters, graphed.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_checkpoints_of_either_way_are_taken_up_by_the_other() -> None:
    plain, graphed = weights(None), weights(EmulatedRecorder())
    people = genotypes(2)
    plain.train(lambda count: people[:count])
    graphed.restore(copy.deepcopy(plain.state()))
    assert graphed.optimizer.param_groups[0]["fused"]
    for one in (plain, graphed):
        for _ in range(2):
            one.train(lambda count: people[:count])
    for mine, theirs in zip(plain.parameters, graphed.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_in_bfloat16_a_replay_is_bit_identical_to_a_pass_that_is_not_recorded() -> None:
    def low() -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    torch.manual_seed(0)
    supernet = SuperNet(SPEC)
    slices, parameters = Slices(supernet), list(supernet.parameters())
    recorder = EmulatedRecorder()
    layers = passes.PlainPasses(supernet, low)
    plain, graphed = (passes.GraphedPasses(slices, parameters, low, recorder) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    compared = 0
    with as_on("cuda"), torch_threads(1):
        # Batches of another size than the first are not recorded.
        plain.run(torch.zeros(3, 1, 8, 8), torch.arange(3), *genotypes(1), 0.5)
        # An architecture is passed once, recorded, and replayed. The weights change in between.
        for architecture in [*genotypes(2)] * 3:
            images = torch.randn(16, 1, 8, 8, generator=generator).contiguous(memory_format=torch.channels_last)
            found = []
            for one in (layers, plain, graphed):
                one.clear()
                loss = one.run(images, torch.arange(16) % 4, architecture, 0.5)
                gradients = [None if of.grad is None else of.grad.clone() for of in parameters]
                found.append((loss, one.logits.clone(), gradients))
            (of_layers, _, _), (loss, logits, wanted), (graphed_loss, graphed_logits, gradients) = found
            # The layers themselves round to bfloat16 more often.
            assert abs(of_layers - loss) < 0.01
            assert torch.equal(loss, graphed_loss)
            assert torch.equal(logits, graphed_logits)
            for mine, theirs in zip(gradients, wanted, strict=True):
                assert (mine is None) == (theirs is None)
                if mine is not None and theirs is not None:
                    assert mine.dtype == torch.float32
                    assert torch.equal(mine, theirs)
                    compared += 1
            with torch.no_grad():
                torch._foreach_mul_(parameters, 0.95)
    assert recorder.replayed == 2
    assert compared > 150
