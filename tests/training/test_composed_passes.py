"""Passes that are put together from recorded blocks against passes that are launched, on emulated CUDA graphs."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from emulated_graphs import EmulatedRecorder
from long_runs import amount
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from cars_hw.config.training import EvaluatedClassifier, PassReplay, SharedPrecision, SharedTraining, WeightSharing
from cars_hw.data import DataBundle, Dataset
from cars_hw.nn.composed import can_compose, most_blocks, most_bytes
from cars_hw.nn.device_kind import as_on
from cars_hw.nn.supernet import SuperNet
from cars_hw.progress import Log, no_log
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.block_recordings import BLOCK_BYTES
from cars_hw.training.recorded_passes import GraphedPasses
from cars_hw.training.recorder import RecordingRefusedError
from cars_hw.training.shared_weights import SuperNetWeights

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=4)


def data(count: int = 32) -> DataBundle:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    part = Dataset(images, torch.arange(count) % 4)
    return DataBundle("toy", part, part, ("a", "b", "c", "d"), (0.5,), (0.25,))


def weights(
    replay: PassReplay,
    share: WeightSharing = "edges",
    *,
    recorder: EmulatedRecorder | None = None,
    spec: NetworkSpec = SPEC,
    precision: SharedPrecision = "bf16",
    log: Log = no_log,
    **given: Any,  # noqa: ANN401
) -> SuperNetWeights:
    torch.manual_seed(0)
    settings = SharedTraining(
        batch_size=8, architectures=2, validation_fraction=0.25, share=share, precision=precision, threads=1
    )
    return SuperNetWeights(
        SuperNet(spec, share),
        data(),
        settings,
        epochs=10,
        seed=0,
        recorder=recorder or EmulatedRecorder(),
        replay=replay,
        log=log,
        **given,
    )


def relatives(count: int) -> list[Architecture]:
    """Return different architectures of which each has its nodes from two others."""
    rng = np.random.default_rng(0)
    first, second = (SearchSpace().sample(rng) for _ in range(2))
    found = []
    for number in range(count):
        cells = [
            tuple(two[number >> (node + 4 * place) & 1] for node, two in enumerate(zip(*cells, strict=True)))
            for place, cells in enumerate([(first.normal, second.normal), (first.reduce, second.reduce)])
        ]
        found.append(Architecture(Genotype(*cells), SPEC))
    # In an order in which both are wanted everywhere from the beginning.
    return [found[int(place)] for place in np.random.default_rng(1).permutation(count)]


def train(made: SuperNetWeights, people: list[Architecture], start: int = 0) -> list[Tensor]:
    """Take a step on two architectures after the other, and return all that it changes, and the losses."""
    generator = torch.Generator().manual_seed(start)
    losses = []
    with as_on("cuda"):
        for place in range(start, len(people), 2):
            images = torch.randn(8, 1, 8, 8, generator=generator).contiguous(memory_format=torch.channels_last)
            labels = torch.randint(0, 4, (8,), generator=generator)
            losses.append(made.step(images, labels, people[place : place + 2]).clone())
    momenta = [made.optimizer.state[one]["momentum_buffer"] for one in made.parameters]
    return [*losses, *made.parameters, *momenta]


def assert_equal(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second) > 100
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(first, second, strict=True))


@pytest.mark.parametrize("share", ["edges", *["nodes", "kernels"][: amount(0, 2)]])
def test_passes_of_blocks_train_bit_by_bit_what_launched_passes_train(share: WeightSharing) -> None:
    recorder = EmulatedRecorder()
    people = relatives(256)[: amount(8, 40)]
    composed, launched = weights("blocks", share, recorder=recorder), weights("auto", share)
    assert composed.composes
    assert not launched.composes
    assert_equal(train(composed, people), train(launched, people))
    # No architecture comes back, so no whole pass is recorded.
    assert isinstance(composed.passes, GraphedPasses)
    assert not composed.passes._recorded
    assert recorder.recorded == len(composed.passes.blocks or ()) > 60
    assert recorder.replayed > 100


def test_random_architectures_of_the_warm_up_train_the_same() -> None:
    rng = np.random.default_rng(3)
    people = [Architecture(SearchSpace().sample(rng), SPEC) for _ in range(amount(4, 40))]
    assert_equal(train(weights("blocks", "kernels"), people), train(weights("auto", "kernels"), people))


def test_who_has_no_gradient_is_the_same() -> None:
    # A reduction cell that reads one input only makes the cell before it irrelevant to half of what follows.
    cell = tuple((Edge("sep_conv_3x3", 0), Edge("none", 1)) for _ in range(4))
    rare = (
        (Edge("skip_connect", 0), Edge("skip_connect", 1)),
        (Edge("max_pool_3x3", 2), Edge("none", 0)),
        (Edge("none", 0), Edge("none", 1)),
        (Edge("skip_connect", 2), Edge("skip_connect", 3)),
    )
    kinds = [Genotype(cell, cell), Genotype(rare, cell), Genotype(cell, rare), Genotype(rare, rare)]
    people = [Architecture(one, SPEC) for one in kinds for _ in range(2)]
    composed, launched = weights("blocks"), weights("auto")
    # Passes of the same architecture would be recorded whole.
    for one in (composed, launched):
        one.passes.record = None  # type: ignore[attr-defined]
    assert_equal(train(composed, people * 2), train(launched, people * 2))
    used = [[one.grad is not None for one in made.parameters] for made in (composed, launched)]
    assert used[0] == used[1]
    assert not all(used[0])


def test_a_resumed_training_goes_on_with_other_recordings() -> None:
    people = relatives(256)[:8]
    whole = weights("blocks")
    train(whole, people[:4])
    state = copy.deepcopy(whole.state())
    expected = train(whole, people, 4)
    resumed = weights("blocks")
    train(resumed, people[2:4])
    resumed.restore(state)
    assert_equal(train(resumed, people, 4), expected)


class Forgetful(EmulatedRecorder):
    """Records as CUDA does in a pool of memory: what a recording allocates is overwritten by the next ones."""

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        with Allocations() as made:
            replay = super().__call__(work)

        def forget() -> None:
            replay()
            made.overwrite()

        return forget


class Allocations(TorchDispatchMode):
    """The floating-point tensors that operations make since a tape began, without views and what they change."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[Tensor] = []

    # Its types are torch's own.
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        if not func.is_view and not func._schema.is_mutable:
            found = (one for one in pytree.tree_leaves(out) if isinstance(one, Tensor))
            given = {one.data_ptr() for one in pytree.tree_leaves(args) if isinstance(one, Tensor)}
            self._made += [one for one in found if one.is_floating_point() and one.data_ptr() not in given]
        return out

    def overwrite(self) -> None:
        """Overwrite them with what no result may have."""
        with torch.no_grad():
            for one in self._made:
                one.detach().fill_(torch.nan)


@pytest.mark.parametrize("share", ["edges", *["nodes", "kernels"][: amount(0, 2)]])
@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_no_block_reads_memory_of_the_pool_that_another_recording_may_have_overwritten(
    share: WeightSharing, precision: SharedPrecision
) -> None:
    recorder = Forgetful()
    people = relatives(256)[: amount(8, 40)]
    composed = weights("blocks", share, recorder=recorder, precision=precision)
    assert_equal(train(composed, people), train(weights("auto", share, precision=precision), people))
    assert recorder.recorded > 60


class Refusing(EmulatedRecorder):
    """Records a few blocks, and then refuses, as CUDA does with an operation that waits."""

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.recorded < 7:
            return super().__call__(work)
        work()
        # A capture runs nothing, but makes tensors.
        with torch.random.fork_rng():
            raise RecordingRefusedError("operation not permitted")


def test_blocks_that_cannot_be_recorded_are_launched_and_one_line_says_so() -> None:
    said: list[str] = []
    people = relatives(256)[:6]
    refused = weights("blocks", recorder=Refusing(), log=said.append)
    assert_equal(train(refused, people), train(weights("auto"), people))
    assert said == [
        "a block of a pass cannot be recorded (operation not permitted): the operations of blocks are launched one "
        "by one, which is slower"
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"over_sizes": True},
        {"spec": NetworkSpec(4, 3, (8, 8), 1, classes=4, family="nasnet")},
        {"spec": NetworkSpec(40, 3, (8, 8), 1, classes=4)},
    ],
    ids=["sizes", "family", "width"],
)
def test_where_blocks_do_not_apply_one_line_says_so(given: dict[str, Any]) -> None:
    said: list[str] = []
    assert not weights("blocks", log=said.append, **given).composes
    assert said == [
        "the first passes of architectures are not put together from blocks, but launched one operation after the "
        "other: blocks are for DARTS cells of one size with at most 128 channels"
    ]


def test_a_cpu_and_a_search_that_trains_nothing_say_that_there_are_no_blocks() -> None:
    supernet, said = SuperNet(SPEC), list[str]()
    classifiers: tuple[EvaluatedClassifier, ...] = ("shared", "untrained-probe")
    replays: tuple[PassReplay, ...] = ("off", "auto", "blocks")
    for classifier, replay in itertools.product(classifiers, replays):
        settings = SharedTraining(batch_size=8, classifier=classifier)
        SuperNetWeights(supernet, data(), settings, epochs=1, seed=0, replay=replay, log=said.append)
    assert [line.rpartition(": ")[2] for line in said] == [
        "a CPU records nothing",
        "no shared weights are trained",
    ]
    assert all(line.startswith("the first passes of architectures are not put together") for line in said)


def test_another_size_and_a_cpu_are_left_out() -> None:
    shared, images = SuperNet(SPEC), torch.zeros(2, 1, 8, 8)
    (usual,) = relatives(1)
    assert not can_compose(shared, images, usual)
    with as_on("cuda"):
        assert can_compose(shared, images, usual)
        assert not can_compose(shared, images, usual._replace(network=SPEC.with_changes(channels=2)))


def test_the_memory_of_blocks_is_bounded() -> None:
    recorder = EmulatedRecorder()
    made = weights("blocks", recorder=recorder)
    rng = np.random.default_rng(0)
    train(made, [Architecture(SearchSpace().sample(rng), SPEC) for _ in range(amount(6, 200))])
    assert isinstance(made.passes, GraphedPasses)
    composed = made.passes._composed
    assert composed is not None
    assert recorder.recorded <= most_blocks(SPEC)
    assert not any(block.tape.weights._rows for block in composed._blocks.values())
    # A cell: 14 places of an edge with 7 operations, forward and back, and its inputs; and the ends of the network.
    assert most_blocks(SPEC) == 3 * (2 * 14 * 7 + 4) + 6
    states = [one for one in composed._kept.values() if one.dim() == 4] + composed._zeroed
    outputs = [cell.output.x for cell in composed._cells if cell.output is not None]
    kept = sum(one.numel() * one.element_size() for one in [*states, *outputs])
    # The stem is not counted.
    stem = sum(2 * one.x.numel() * one.x.element_size() for one in composed._begun)
    assert kept - stem <= most_bytes(SPEC, 8, 2)
    assert made._bytes_of_blocks() == most_blocks(SPEC) * BLOCK_BYTES + most_bytes(SPEC, 8, 2)
    assert weights("auto")._bytes_of_blocks() == 0
    # By hand, in numbers: inputs of 4 channels at 8x8, 8 at 8x8 and 16 at 4x4; nodes of 4, 8 and 16.
    read, nodes = 8 * (4 * 64 + 8 * 64 + 16 * 16), 8 * (4 * 64 + 8 * 16 + 16 * 4)
    assert most_bytes(SPEC, 8, 2) == 2 * 4 * read + nodes * (2 * (8 + 28) + 14)


def test_nothing_keeps_closed_blocks_alive() -> None:
    made, people = weights("blocks"), relatives(256)[:4]
    train(made, people)
    assert isinstance(made.passes, GraphedPasses)
    composed = made.passes._composed
    assert composed is not None
    alive = [weakref.ref(one) for one in (made, composed, *composed._kept.values(), *composed._zeroed)]
    gc.collect()
    gc.disable()
    try:
        del made, composed
        assert [one() for one in alive] == [None] * len(alive)
    finally:
        gc.enable()
