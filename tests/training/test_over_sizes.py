"""Shared weights over sizes: what a step moves, what an evaluation counts, and that recordings change nothing."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from emulated_graphs import EmulatedRecorder
from long_runs import amount
from torch import Tensor

from cars_hw.config.training import SharedTraining, WeightSharing
from cars_hw.data import DataBundle, Dataset
from cars_hw.errors import SpecError
from cars_hw.nn.network import Network
from cars_hw.nn.paths import SHARED
from cars_hw.nn.reduced_images import reduced_images
from cars_hw.nn.slices import Slices
from cars_hw.nn.supernet import SuperNet
from cars_hw.space.architecture import Architecture
from cars_hw.space.genotype import Edge, Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.shared_evaluation import evaluate
from cars_hw.training.shared_weights import SuperNetWeights

SPEC = NetworkSpec(6, 5, (8, 8), 1, classes=4, depths=(2, 2, 1))
SIZES = [(2, (1, 1, 1)), (4, (1, 2, 1)), (4, (2, 1, 1)), (6, (1, 1, 1)), (2, (2, 2, 1)), (6, (2, 2, 1))]
SETTINGS = SharedTraining(
    batch_size=16, architectures=2, weight_decay=0.01, validation_fraction=0.25, evaluation_batch=20
)


def data(count: int = 56) -> DataBundle:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    part = Dataset(images, torch.arange(count) % 4)
    return DataBundle("toy", part, part, ("a", "b", "c", "d"), (0.5,), (0.25,))


def weights(
    recorder: EmulatedRecorder | None = None,
    *,
    spec: NetworkSpec = SPEC,
    settings: SharedTraining = SETTINGS,
    over_sizes: bool = True,
    over_resolutions: bool = False,
    smallest: NetworkSpec | None = None,
) -> SuperNetWeights:
    torch.manual_seed(0)
    # In double precision a difference is one of method, not of the order of sums.
    made = SuperNetWeights(
        SuperNet(spec, settings.share).double(),
        data(),
        settings,
        epochs=10,
        seed=0,
        recorder=recorder,
        over_sizes=over_sizes,
        over_resolutions=over_resolutions,
        smallest=smallest,
    )
    for batches in (made.batches, made._subset, made._full):
        batches._normalise.dtype = torch.float64
    return made


def drawn(
    count: int, seed: int = 0, sizes: Sequence[tuple[int, tuple[int, int, int]]] = SIZES
) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        channels, depths = sizes[number % len(sizes)]
        spec = replace(SPEC, channels=channels, layers=sum(depths), depths=depths)
        found.append(Architecture(SearchSpace().sample(rng), spec))
    return found


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images.contiguous(memory_format=torch.channels_last), torch.arange(8) % 4


def everything(made: SuperNetWeights) -> Tensor:
    """All weights, one after the other."""
    return torch.cat([one.detach().flatten() for one in made.parameters])


def momenta(made: SuperNetWeights) -> Tensor:
    return torch.cat([made.optimizer.state[one]["momentum_buffer"].flatten() for one in made.parameters])


class Reference:
    """Gradients by networks of their own, whose weights are numbered as the elements of the SuperNet."""

    def __init__(self, spec: NetworkSpec = SPEC, share: WeightSharing = "edges") -> None:
        numbered = SuperNet(spec, share).double()
        begin = 0
        with torch.no_grad():
            for one in numbered.parameters():
                one.copy_(torch.arange(begin, begin + one.numel()).view(one.shape))
                begin += one.numel()
        self.numbers = Slices(numbered)
        self.elements = begin

    def gradient(
        self,
        made: SuperNetWeights,
        chosen: Sequence[Architecture],
        given: tuple[Tensor, Tensor],
        *,
        distil: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The mean gradient of the loss on the images and labels ``given``, and which elements have one.

        With ``distil`` all but the first learn what the first answers.
        """
        images, labels = given
        total, touched = (
            torch.zeros(self.elements, dtype=torch.float64),
            torch.zeros(self.elements, dtype=torch.bool),
        )
        for architecture in chosen:
            network = Network(architecture.network, architecture.genotype, norm=SHARED).double()
            network.load_state_dict(made.slices.weights_of(architecture))
            logits = network(reduced_images(images, architecture.network.resolution))
            if labels.is_floating_point():
                (-(labels * logits.log_softmax(1)).sum(1).mean()).backward()
            else:
                F.cross_entropy(logits, labels).backward()
            if distil and architecture is chosen[0]:
                labels = logits.detach().softmax(1)
            where = self.numbers.weights_of(architecture)
            for name, one in network.named_parameters():
                if one.grad is not None:
                    numbers = where[name].long().flatten()
                    total[numbers] += one.grad.flatten() / len(chosen)
                    touched[numbers] = True
        return total, touched


# A SuperNet of its own takes a tenth of a second, and the numbers of its elements do not change.
reference_of = cache(Reference)


def step_and_check(made: SuperNetWeights, reference: Reference, chosen: Sequence[Architecture]) -> Tensor:
    """Take a step, and check what it changes; return which elements it touches."""
    settings = made.settings
    gradient, touched = reference.gradient(made, chosen, batch())
    before, momentum = everything(made).clone(), momenta(made).clone()
    if momentum.any():
        assert (momentum[~touched] != 0).any(), "a momentum could move nothing"
    made.step(*batch(), chosen)
    gradient *= min(1.0, settings.gradient_clip / (float(gradient.norm()) + 1e-6))
    expected = settings.momentum * momentum + gradient + settings.weight_decay * before
    after, now = everything(made), momenta(made)
    assert torch.equal(after[~touched], before[~touched])
    assert torch.equal(now[~touched], momentum[~touched])
    torch.testing.assert_close(now[touched], expected[touched], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        after[touched], (before - settings.learning_rate * expected)[touched], rtol=1e-7, atol=1e-10
    )
    assert (after[touched] != before[touched]).all()
    return touched


# Each way to share weights, and passes that are recorded and those that are not.
CASES: list[tuple[WeightSharing, bool]] = [
    *(("edges", False), ("nodes", True), ("kernels", True)),
    *(("edges", True), ("nodes", False), ("kernels", False)),
]
CASES = CASES[: amount(3, 6)]
assert {share for share, _ in CASES} == set(get_args(WeightSharing))


@pytest.mark.parametrize(("share", "recorded"), CASES)
def test_a_step_over_sizes_moves_the_touched_elements_and_no_other(share: WeightSharing, recorded: bool) -> None:
    recorder = EmulatedRecorder() if recorded else None
    made, reference = weights(recorder, settings=replace(SETTINGS, share=share)), reference_of(SPEC, share)
    people = drawn(6)
    # In turn one size, two sizes of which neither contains the other, and two of which one is the largest.
    for chosen in (people[1:2], people[2:4], [people[5], people[0]]):
        touched = step_and_check(made, reference, chosen)
        assert 500 < touched.sum() < len(touched) * (0.5 if share == "edges" else 0.95)


@pytest.mark.parametrize(("share", "recorded"), CASES)
def test_a_step_of_one_size_moves_the_touched_elements_and_no_other(share: WeightSharing, recorded: bool) -> None:
    recorder = EmulatedRecorder() if recorded else None
    settings = replace(SETTINGS, share=share)
    made, reference = weights(recorder, settings=settings, over_sizes=False), reference_of(SPEC, share)
    small = tuple((Edge("sep_conv_3x3", 0), Edge("dil_conv_3x3", 1)) for _ in range(4))
    large = tuple((Edge("sep_conv_5x5", 1), Edge("dil_conv_5x5", 0)) for _ in range(4))
    # The recorder records the second step of an architecture, and replays the third.
    mixed = Genotype(small, large)
    again = [] if recorder is None else [[mixed], [mixed]]
    for genotypes in ([Genotype(large, large)], [Genotype(small, small), mixed], [mixed], *again):
        step_and_check(made, reference, [Architecture(one, SPEC) for one in genotypes])
    assert recorder is None or recorder.replayed >= 2


def test_the_average_of_an_element_is_over_the_steps_that_trained_it() -> None:
    decay = 0.7
    made = weights(settings=replace(SETTINGS, share="kernels", average=decay))
    people = drawn(6)
    fresh = everything(made).clone()
    with made.averaged():
        assert torch.equal(everything(made), fresh)
    sums, factors = torch.zeros_like(fresh), torch.zeros_like(fresh)
    for chosen in ([people[5]], people[:2], [people[5]], people[2:4], [people[1]]):
        before = everything(made).clone()
        made.step(*batch(), chosen)
        after = everything(made)
        touched = after != before
        for total, value in ((sums, after), (factors, torch.ones_like(after))):
            total[touched] = decay * total[touched] + (1 - decay) * value[touched]
    present, trained = everything(made).clone(), factors > 0
    expected = torch.where(trained, sums / factors.clamp(min=1e-9), present)
    with made.averaged():
        torch.testing.assert_close(everything(made), expected, rtol=1e-9, atol=1e-12)
        average = everything(made).clone()
    assert torch.equal(everything(made), present)
    assert ((average != present).sum() > 500) and torch.equal(average[~trained], fresh[~trained])
    assert (~trained).sum() > 500


def test_averaged_weights_evaluate_and_are_restored() -> None:
    settings = replace(SETTINGS, average=0.9)
    people = drawn(3)
    made, plain, other = weights(settings=settings), weights(), weights(settings=settings)
    for one in (made, plain):
        one.train(lambda _count: people[:2])
    assert torch.equal(everything(made), everything(plain)), "an average changes no training"
    made.remember()
    evaluated = made.counts(people, full=True)
    assert evaluated == made.counts(people, before=True, full=True) != plain.counts(people, full=True)
    # What is read from a checkpoint for other purposes evaluates alike.
    plain.supernet.load_state_dict(made.state()["evaluated"])
    assert plain.counts(people, full=True) == evaluated
    assert "evaluated" not in plain.state()
    other.restore(copy.deepcopy(made.state()))
    for one in (made, other):
        one.step(*batch(), people[1:])
    assert torch.equal(everything(other), everything(made))
    assert other.counts(people, full=True) == made.counts(people, full=True) != evaluated
    assert other.counts(people, before=True, full=True) == evaluated


@pytest.mark.parametrize("recorder", [None, EmulatedRecorder()])
def test_a_sandwich_has_the_largest_and_the_smallest_size_and_the_others_learn_from_the_largest(
    recorder: EmulatedRecorder | None,
) -> None:
    settings = replace(SETTINGS, size_sampling="sandwich", momentum=0.0, weight_decay=0.0, gradient_clip=1e9)
    smallest = drawn(1)[0].network
    made, reference = weights(recorder, settings=settings, smallest=smallest), reference_of()
    chosen = drawn(6)[1:3]
    genotype = chosen[0].genotype
    together = [Architecture(genotype, SPEC), *chosen, Architecture(genotype, smallest)]
    # The recorder runs the first step, records the second and replays the third.
    for _ in range(1 if recorder is None else 3):
        gradient, touched = reference.gradient(made, together, batch(), distil=True)
        before = everything(made).clone()
        made.step(*batch(), chosen)
        after = everything(made)
        assert torch.equal(after[~touched], before[~touched])
        torch.testing.assert_close(
            (before - after)[touched] / settings.learning_rate, gradient[touched], rtol=1e-5, atol=1e-8
        )
    assert recorder is None or (recorder.recorded, recorder.replayed) == (4, 4)


def test_one_size_has_no_sandwich() -> None:
    settings = replace(SETTINGS, size_sampling="sandwich")
    one, other = (weights(settings=given, over_sizes=False) for given in (settings, SETTINGS))
    for made in (one, other):
        made.step(*batch(), drawn(2))
    assert torch.equal(everything(one), everything(other))


def test_a_small_gradient_norm_is_that_of_the_touched_elements() -> None:
    settings = replace(SETTINGS, momentum=0.0, weight_decay=0.0, gradient_clip=1e-3, learning_rate=1.0)
    made = weights(settings=settings)
    before = everything(made).clone()
    made.step(*batch(), drawn(2))
    assert float((everything(made) - before).norm()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("size", [(4, (1, 2, 1)), (6, (2, 2, 1))][: amount(1, 2)])
def test_one_size_is_trained_as_by_a_supernet_of_that_size(size: tuple[int, tuple[int, int, int]]) -> None:
    chosen = drawn(3, sizes=[size])
    spec = chosen[0].network
    large, small = weights(), weights(spec=spec, over_sizes=False)
    for architecture in chosen:
        ours, theirs = large.slices.path(architecture).leaves, small.slices.path(architecture).leaves
        with torch.no_grad():
            for one, other in zip(ours, theirs, strict=True):
                other.copy_(one)
    for made in (large, small):
        rng = np.random.default_rng(1)
        for _ in range(2):
            made.train(lambda count: [chosen[int(i)] for i in rng.choice(3, count, replace=False)])  # noqa: B023
    moved = 0
    for architecture in chosen:
        ours, theirs = large.slices.path(architecture).leaves, small.slices.path(architecture).leaves
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)
            moved += one.numel()
    assert moved > 1000
    assert large.counts(chosen, full=True) == small.counts(chosen, full=True)


@pytest.mark.parametrize("architectures", [3, 1][: amount(1, 2)])
def test_replayed_passes_over_sizes_train_the_same_weights_as_plain_ones(architectures: int) -> None:
    # The recorder's optimiser is fused, the other one is not.
    recorder = EmulatedRecorder()
    settings = replace(SETTINGS, architectures=architectures)
    plain, graphed = weights(settings=settings), weights(recorder, settings=settings)
    assert graphed.optimizer.param_groups[0]["fused"]
    people = drawn(2 * architectures)
    # The same cells at another size are another recording.
    people[0] = Architecture(people[1].genotype, people[0].network)
    for made in (plain, graphed):
        turn = itertools.cycle(people)
        for _ in range(3):
            made.train(lambda count: list(itertools.islice(turn, count)))  # noqa: B023
    # An epoch is two batches of 16 and one of 10, which is not recorded.
    assert recorder.recorded == len(people)
    assert recorder.replayed == 3 * 2 * architectures - 2 * len(people)
    torch.testing.assert_close(everything(graphed), everything(plain), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(momenta(graphed), momenta(plain), rtol=1e-8, atol=1e-12)


def test_a_restored_training_over_sizes_goes_on_to_the_last_bit() -> None:
    people = drawn(6)
    # On a GPU, only these algorithms add in a fixed order.
    first, second, whole = (weights(settings=replace(SETTINGS, deterministic=True)) for _ in range(3))
    draws = [people[:2], people[2:4], people[3:5]]
    for chosen in draws[:2]:
        first.train(lambda _count: chosen)  # noqa: B023
    first.remember()
    second.restore(copy.deepcopy(first.state()))
    for chosen in draws[2:]:
        second.train(lambda _count: chosen)  # noqa: B023
    for number, chosen in enumerate(draws):
        if number == 2:
            whole.remember()
        whole.train(lambda _count: chosen)  # noqa: B023
    assert torch.equal(everything(second), everything(whole))
    assert torch.equal(momenta(second), momenta(whole))
    for before in (False, True):
        assert second.counts(people, before=before) == whole.counts(people, before=before)


class Judged(NamedTuple):
    """Trained weights, and what networks of their own get right of each class with them, and their losses."""

    made: SuperNetWeights
    people: list[Architecture]
    batches: list[tuple[Tensor, Tensor]]
    alone: list[list[int]]
    losses: list[float]


@pytest.fixture(scope="module")
def judged() -> Judged:
    made = weights()
    people = drawn(17)
    made.train(lambda _count: people[:3])
    batches = list(made._full)
    alone, losses = [], []
    for architecture in people:
        network = Network(architecture.network, architecture.genotype, norm=SHARED).double()
        network.load_state_dict(made.slices.weights_of(architecture))
        right, loss = torch.zeros(4, dtype=torch.int64), 0.0
        for images, labels in batches:
            with torch.no_grad():
                logits = network(images)
            right += torch.bincount(labels[logits.argmax(1) == labels], minlength=4)
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        alone.append(right.tolist())
        losses.append(loss)
    return Judged(made, people, batches, alone, losses)


@pytest.mark.parametrize(("threads", "room"), [(1, 1 << 20), (2, 0), (1, 0), (2, 1 << 20)][: amount(2, 4)])
def test_architectures_are_counted_together_as_one_by_one(threads: int, room: int, judged: Judged) -> None:
    made, people, batches, alone, losses = judged
    torch.set_num_threads(threads)
    try:
        found = evaluate(made.slices, people, batches, made._autocast, room)
        assert [row[:-1] for row in found] == alone
        assert [1e-6 * row[-1] for row in found] == pytest.approx(losses, abs=1e-6)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    assert len({tuple(one) for one in alone}) > 5
    counted = made.counts(people, full=True)
    assert [list(one.right) for one in counted] == alone
    images = len(made._full.labels)
    assert [one.loss for one in counted] == pytest.approx([loss / images for loss in losses], abs=1e-6)
    assert len(set(losses)) == len(losses)


def test_what_architectures_of_one_width_have_in_common_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = weights()
    people = drawn(12)
    calls: list[int] = []
    forward = torch.nn.Conv2d.forward

    def counted(self: torch.nn.Conv2d, x: Tensor) -> Tensor:
        if self.in_channels == 1 and self.groups == 1:
            calls.append(self.out_channels)
        return forward(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", counted)
    evaluate(made.slices, people, [batch()], made._autocast)
    # The stem has three times the channels. Whether the second cell is a reduction changes what it makes of it.
    assert sorted(calls) == [6, 6, 12, 12, 18, 18]


def test_without_over_sizes_every_genotype_runs_at_the_size_of_the_supernet() -> None:
    chosen = drawn(4)
    at_own = [Architecture(one.genotype, SPEC) for one in chosen]
    one, other, over = weights(over_sizes=False), weights(over_sizes=False), weights()
    one.step(*batch(), chosen)
    other.step(*batch(), at_own)
    over.step(*batch(), at_own)
    assert torch.equal(everything(one), everything(other))
    assert one.counts(chosen) == other.counts(at_own) == over.counts(at_own)
    torch.testing.assert_close(everything(over), everything(one), rtol=1e-9, atol=1e-12)


def test_images_may_have_another_resolution_than_the_networks() -> None:
    made = weights()
    chosen = drawn(2)
    larger = [
        Architecture(one.genotype, replace(one.network, resolution=(32, 32), in_channels=3, classes=10))
        for one in chosen
    ]
    assert made.counts(larger) == made.counts(chosen)


def test_a_network_that_is_larger_than_the_supernet_is_refused() -> None:
    wide = Architecture(drawn(1)[0].genotype, SPEC.with_changes(channels=10))
    with pytest.raises(SpecError, match=r"10 channels, 5 cells.* does not lie within 6 channels, 5 cells"):
        weights().step(*batch(), [wide])


def test_a_rehearsal_over_sizes_runs_the_largest_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, other = (weights(settings=replace(SETTINGS, deterministic=True)) for _ in range(2))
    seen = []
    path = made.slices.path
    monkeypatch.setattr(made.slices, "path", lambda one: seen.append(one.network) or path(one))
    made.rehearse(drawn(1)[0].genotype)
    assert set(seen) == {SPEC}
    monkeypatch.undo()
    people = drawn(2)
    for one in (made, other):
        one.train(lambda _count: people)
    assert torch.equal(everything(made), everything(other))


LARGE = replace(SPEC, resolution=(12, 12))


def at_resolutions(people: Sequence[Architecture]) -> list[Architecture]:
    """Return ``people`` in turn at 12x12, 8x8 and 10x8 pixels."""
    sizes = itertools.cycle([(12, 12), (8, 8), (10, 8)])
    return [Architecture(one.genotype, replace(one.network, resolution=next(sizes))) for one in people]


def large_batch() -> tuple[Tensor, Tensor]:
    images = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return images.contiguous(memory_format=torch.channels_last), torch.arange(8) % 4


@pytest.mark.parametrize("recorder", [None, EmulatedRecorder()])
def test_over_resolutions_every_architecture_learns_from_images_of_its_own(
    recorder: EmulatedRecorder | None,
) -> None:
    settings = replace(SETTINGS, momentum=0.0, weight_decay=0.0, gradient_clip=1e9)
    made = weights(recorder, spec=LARGE, settings=settings, over_resolutions=True)
    people = at_resolutions(drawn(6))
    reference = reference_of(LARGE)
    # The recorder runs the first step, records the second and replays the third.
    for _ in range(1 if recorder is None else 3):
        total, _touched = reference.gradient(made, people, large_batch())
        before = everything(made).clone()
        made.step(*large_batch(), people)
        moved = (before - everything(made)) / settings.learning_rate
        torch.testing.assert_close(moved, total, rtol=1e-5, atol=1e-8)
    assert recorder is None or recorder.recorded == len(people)


@pytest.mark.parametrize("threads", [2, 1][: amount(1, 2)])
def test_over_resolutions_every_architecture_is_counted_on_images_of_its_own(threads: int) -> None:
    made = weights(spec=LARGE, over_resolutions=True)
    people = at_resolutions(drawn(17))
    batches = [large_batch()]
    alone = []
    for architecture in people:
        network = Network(architecture.network, architecture.genotype, norm=SHARED).double()
        network.load_state_dict(made.slices.weights_of(architecture))
        ((images, labels),) = batches
        with torch.no_grad():
            right = network(reduced_images(images, architecture.network.resolution)).argmax(1) == labels
        alone.append(torch.bincount(labels[right], minlength=4).tolist())
    torch.set_num_threads(threads)
    try:
        found = evaluate(made.slices, people, batches, made._autocast)
    finally:
        torch.set_num_threads(1)
    # The last number of a row is the loss.
    assert [row[:-1] for row in found] == alone
    assert len({tuple(one) for one in alone}) > 5


def test_a_sandwich_over_resolutions_ends_at_the_smallest_one() -> None:
    settings = replace(SETTINGS, size_sampling="sandwich")
    smallest = replace(drawn(1)[0].network, resolution=(8, 8))
    made = weights(spec=LARGE, settings=settings, over_resolutions=True, smallest=smallest)
    seen = []
    path = made.slices.path
    made.slices.path = lambda one: seen.append(one.network) or path(one)  # type: ignore[method-assign]
    (one,) = at_resolutions(drawn(2))[1:]
    made.step(*large_batch(), [one])
    assert seen == [LARGE, one.network, smallest]
