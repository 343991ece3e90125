"""Training a chosen network: it learns, repeats itself, and measures with running averages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cars_hw.callbacks import EpochFigures, TrainingCallback
from cars_hw.config.checksummed import ChecksummedBytes
from cars_hw.config.evaluation import ClassCounts
from cars_hw.config.training import Recipe
from cars_hw.data import DataBundle, Dataset
from cars_hw.data.image_store import Item, Making, open_or_make
from cars_hw.data.streamed import StreamedDataset
from cars_hw.errors import InputError, RunError, TrainingError
from cars_hw.nn.network import Network
from cars_hw.progress import no_log, silent
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.space.search_space import SearchSpace
from cars_hw.training import checkpoints
from cars_hw.training.checkpoints import TrainingCheckpoint
from cars_hw.training.process_group import ProcessGroup
from cars_hw.training.standalone import NetworkTraining, accuracy_on, hold_out, train_network

SPEC = NetworkSpec(4, 3, (12, 12), 1, classes=3)
GENOTYPE = SearchSpace().sample(np.random.default_rng(4))


def stripes(count: int, seed: int) -> Dataset:
    """Three classes: rows, columns, or a plain image; with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 80, (count, 1, 12, 12), dtype=torch.uint8, generator=generator)
    images[labels == 0, :, ::2, :] += 150
    images[labels == 1, :, :, ::2] += 150
    return Dataset(images, labels)


DATA = DataBundle("stripes", stripes(240, 0), stripes(60, 1), ("rows", "columns", "plain"), (0.4,), (0.3,))


def train(recipe: Recipe, seed: int = 0, auxiliary: bool = False) -> tuple[Network, float]:
    torch.manual_seed(seed)
    network = Network(SPEC, GENOTYPE, auxiliary=auxiliary)
    return network, train_network(network, DATA, recipe, seed=seed).accuracy


def test_a_network_learns_what_can_be_told_apart() -> None:
    progress: list[tuple[str, int, int]] = []
    torch.manual_seed(0)
    network = Network(SPEC, GENOTYPE)
    recipe = Recipe(epochs=5, batch_size=24, learning_rate=0.1, crop_padding=0)
    result = train_network(network, DATA, recipe, seed=0, progress=lambda *step: progress.append(step))
    assert result.accuracy > 0.9
    # 240 images are 10 steps an epoch.
    assert progress == sorted(progress)
    assert set(progress) == {("training", step, 50) for step in range(51)}
    assert accuracy_on(network, DATA.test, DATA) == result.accuracy
    assert (result.best_epoch, result.held_out_accuracy, result.last) == (5, None, None)
    assert not network.training


def test_the_same_seed_gives_the_same_weights_with_drop_path_and_cutout() -> None:
    recipe = Recipe(epochs=2, batch_size=24, learning_rate=0.05, drop_path=0.3, cutout=4, crop_padding=1)
    first, second, other = train(recipe)[0], train(recipe)[0], train(recipe, seed=1)[0]
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_the_auxiliary_head_takes_part_when_it_is_weighed() -> None:
    network, _ = train(Recipe(epochs=1, batch_size=24, auxiliary=0.4), auxiliary=True)
    assert network.auxiliary is not None
    assert all(parameter.grad is not None for parameter in network.auxiliary.parameters())


def test_the_rate_warms_up_and_then_falls_to_nothing() -> None:
    recipe = Recipe(epochs=10, learning_rate=0.4, warmup_epochs=2)
    assert 0 < recipe.rate(0) < 0.001
    assert recipe.rate(1) == pytest.approx(0.2, rel=1e-2)
    assert recipe.rate(2.5) == pytest.approx(0.2 * (1 + 2**-0.5))
    assert recipe.rate(5) == pytest.approx(0.2)
    assert recipe.rate(10) == pytest.approx(0.0)


# All that has a state of its own: momentum, drop-path, cutout, both heads, the average, and the best so far.
EVERYTHING = Recipe(
    epochs=3,
    batch_size=24,
    learning_rate=0.05,
    drop_path=0.3,
    cutout=4,
    crop_padding=1,
    auxiliary=0.4,
    ema=0.9,
    hold_out=0.2,
)


def fresh(recipe: Recipe) -> Network:
    torch.manual_seed(5)
    return Network(SPEC, GENOTYPE, auxiliary=recipe.auxiliary > 0)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Killed(Exception):
    """What stands for a kill inside of one process."""


def test_killed_in_the_middle_of_any_epoch_a_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = fresh(EVERYTHING)
    expected = train_network(whole, DATA, EVERYTHING, seed=3)
    said: list[str] = []
    checkpoint = TrainingCheckpoint(tmp_path / "c.pt", {"seed": 3}, said.append)
    # Of the 192 images that are not held out there are 8 steps an epoch.
    for fatal in (3, 12, 23):

        def kill(_stage: str, done: int, _total: int, fatal: int = fatal) -> None:
            if done == fatal:
                raise Killed

        with pytest.raises(Killed):
            train_network(fresh(EVERYTHING), DATA, EVERYTHING, seed=3, checkpoint=checkpoint, progress=kill)
    broken = fresh(EVERYTHING)
    result = train_network(broken, DATA, EVERYTHING, seed=3, checkpoint=checkpoint)
    assert same(broken.state_dict(), whole.state_dict())
    assert replace(result, last=None) == replace(expected, last=None)
    assert said == [f"resumes after epoch {epoch}" for epoch in (1, 2)]
    # Killed after the last epoch, it only judges.
    again = fresh(EVERYTHING)
    train_network(again, DATA, EVERYTHING, seed=3, checkpoint=checkpoint, progress=lambda *_: pytest.fail("trains"))
    assert same(again.state_dict(), whole.state_dict())


def test_a_checkpoint_of_another_training_is_not_used_and_says_why(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "c.pt"
    training = NetworkTraining(fresh(EVERYTHING), DATA, EVERYTHING, seed=0)
    TrainingCheckpoint(path, {"seed": 0, "recipe.epochs": 3}, said.append).save(training.state())
    assert TrainingCheckpoint(path, {"seed": 0, "recipe.epochs": 5}, said.append).load() is None
    assert said == [f"{path} is of a training with recipe.epochs = 3, not 5: training starts from the beginning"]
    assert TrainingCheckpoint(path, {"seed": 0, "recipe.epochs": 3}, said.append).load() is not None


def test_a_training_does_not_go_on_with_images_in_another_order(tmp_path: Path) -> None:
    making = Making(
        tmp_path / "images.stored",
        {},
        np.arange(len(DATA.train)),
        lambda places, _told: [Item(DATA.train.images[place].permute(1, 2, 0).numpy()) for place in places],
        str,
        grey=True,
    )
    store = open_or_make(making, silent, no_log)
    train_part = StreamedDataset(store, torch.arange(len(DATA.train)), DATA.train.labels)
    stored = replace(DATA, train=train_part)
    states = [NetworkTraining(fresh(EVERYTHING), data, EVERYTHING, seed=0).state() for data in (DATA, stored)]
    for data, ours, theirs, words in (
        (DATA, 0, 1, "began with images in a store, and here they are in memory"),
        (stored, 1, 0, "began with images in memory, and here they are in a store"),
    ):
        training = NetworkTraining(fresh(EVERYTHING), data, EVERYTHING, seed=0)
        with pytest.raises(InputError, match=words) as caught:
            training.restore(states[theirs])
        assert caught.value.remedy == "same-data-memory"
        training.restore(states[ours])
        # Earlier versions did not keep it.
        training.restore({name: value for name, value in states[theirs].items() if name != "stored"})


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_an_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    checkpoint = TrainingCheckpoint(path, {}, lambda _line: None)
    if content is None:
        checkpoint.save(NetworkTraining(fresh(EVERYTHING), DATA, EVERYTHING, seed=0).state())
        content = path.read_bytes()[:-2000]
    path.write_bytes(content)
    with pytest.raises(
        RunError, match=r"cannot use the checkpoint .*c.pt: .*; remove it to train from the beginning"
    ):
        checkpoint.load()
    ChecksummedBytes(checkpoints.CHECKPOINT.name, 99).write(path, b"")
    with pytest.raises(RunError, match="has schema 99; this version reads 2"):
        checkpoint.load()


def test_the_moving_average_is_that_of_the_weights_after_every_step() -> None:
    recipe = Recipe(epochs=2, batch_size=48, learning_rate=0.1, ema=0.75)
    training = NetworkTraining(fresh(recipe), DATA, recipe, seed=0)
    watched = ("classifier.weight", "stem.1.running_mean")
    seen: list[dict[str, Tensor]] = []
    training.step.optimizer.register_step_post_hook(
        lambda *_: seen.append({name: training.network.state_dict()[name].clone() for name in watched})
    )
    training.run_epoch()
    training.run_epoch()
    assert len(seen) == 10
    training.finish()
    for name in watched:
        expected = seen[0][name]
        for weights in seen[1:]:
            expected = 0.75 * expected + 0.25 * weights[name]
        torch.testing.assert_close(training.evaluated.state_dict()[name], expected)
        # It is what training leaves behind.
        torch.testing.assert_close(training.network.state_dict()[name], expected)


def test_a_validation_part_chooses_the_epoch_and_nothing_is_held_out() -> None:
    # No image can be told from another, so that the accuracies are those of chance, and epochs differ in them.
    noise = torch.randint(0, 256, (60, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    data = replace(DATA, validation=Dataset(noise, torch.arange(60) % 3))
    figures: list[float | None] = []

    class Watch(TrainingCallback):
        def on_epoch(self, epoch: EpochFigures) -> None:
            figures.append(epoch.held_out_accuracy)

    torch.manual_seed(0)
    network = Network(SPEC, GENOTYPE)
    recipe = Recipe(epochs=4, batch_size=24, hold_out=0.25, learning_rate=0.2)
    assert NetworkTraining(network, data, recipe, seed=0).steps == 240 // 24
    result = train_network(network, data, recipe, seed=0, callbacks=[Watch()])
    assert len(set(figures)) > 1
    best = max(one for one in figures if one is not None)
    assert result.held_out_accuracy == best
    assert result.best_epoch == 4 - figures[::-1].index(best)
    assert accuracy_on(network, data.validation or DATA.test, data) == best


def test_without_mirroring_and_crops_images_are_trained_on_as_they_are() -> None:
    recipe = Recipe(epochs=1, batch_size=24, crop_padding=0, mirror=False)
    original = {tuple(image.flatten().tolist()) for image in DATA.train.images}
    changed = {}
    for name, one in (
        ("off", recipe),
        ("mirror", replace(recipe, mirror=True)),
        ("crop", replace(recipe, crop_padding=2)),
    ):
        batches = NetworkTraining(Network(SPEC, GENOTYPE), DATA, one, seed=0).batches
        images = torch.cat([images for images, _ in batches.epoch(torch.Generator().manual_seed(0))])
        pixels = (255 * (DATA.mean[0] + DATA.std[0] * images)).round().int()
        changed[name] = sum(tuple(image.flatten().tolist()) not in original for image in pixels)
    assert changed["off"] == 0
    assert 80 < changed["mirror"] < 160
    assert changed["crop"] > 200


def test_what_is_held_out_is_never_trained_on() -> None:
    # Every image is of one shade, which neither a crop without padding nor a flip changes.
    shades = torch.arange(240, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 12, 12).contiguous()
    test = Dataset(torch.full((4, 1, 12, 12), 250, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    data = DataBundle("shades", Dataset(shades, torch.arange(240) % 3), test, ("a", "b", "c"), (0.0,), (1.0,))
    network = Network(SPEC, GENOTYPE)
    trained: list[int] = []
    evaluated: list[int] = []
    forward = network.forward_with_auxiliary

    def watch(images: Tensor) -> tuple[Tensor, Tensor | None]:
        shade = (255 * images.mean(dim=(1, 2, 3))).round().int().tolist()
        (trained if network.training else evaluated).extend(shade)
        return forward(images)

    network.forward_with_auxiliary = watch  # type: ignore[method-assign]
    recipe = Recipe(epochs=3, batch_size=24, crop_padding=0, hold_out=0.25)
    train_network(network, data, recipe, seed=1)
    held = set(evaluated) - {250}
    assert len(held) == 60
    assert [sum(shade % 3 == label for shade in held) for label in range(3)] == [20, 20, 20]
    assert held.isdisjoint(trained)
    assert len(set(trained)) == 180


def test_holding_out_less_than_an_image_is_refused() -> None:
    with pytest.raises(InputError, match="is less than one image"):
        hold_out(stripes(9, 0), 0.01, seed=0)
    assert hold_out(DATA.train, 0.0, seed=0) == (DATA.train, None)


def test_the_best_epoch_is_chosen_by_held_out_images_and_the_last_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(epochs=4, batch_size=48, hold_out=0.2)
    training = NetworkTraining(fresh(recipe), DATA, recipe, seed=0)
    found = iter([3, 9, 9, 5])
    counted = lambda *_, **__: ClassCounts((10,), (next(found),))  # noqa: E731
    monkeypatch.setattr("cars_hw.training.standalone.counts_on", counted)
    after = []
    for _ in range(4):
        training.run_epoch()
        after.append({name: value.clone() for name, value in training.network.state_dict().items()})
    result = training.finish()
    assert (result.best_epoch, result.held_out_accuracy) == (3, 0.9)
    assert result.accuracy == sum(result.test.right) / 60
    assert same(training.network.state_dict(), after[2])
    assert result.last is not None
    assert same(result.last, after[3])


def test_bfloat16_trains_and_stays_close_to_float32() -> None:
    recipe = Recipe(epochs=3, batch_size=24, learning_rate=0.1, crop_padding=0)
    losses = []
    for precision in ("float32", "bf16"):
        network = fresh(recipe)
        result = train_network(network, DATA, replace(recipe, precision=precision), seed=0)  # type: ignore[arg-type]
        assert result.accuracy > 0.9
        assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
        losses.append(result.loss)
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.1)


def test_a_loss_that_is_no_number_ends_the_training_and_is_not_kept(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, batch_size=24, learning_rate=1e30, gradient_clip=1e30)
    checkpoint = TrainingCheckpoint(tmp_path / "c.pt", {}, lambda _line: None)
    with pytest.raises(TrainingError, match=r"the loss is .* in epoch 1 of 3$"):
        train_network(fresh(recipe), DATA, recipe, seed=0, checkpoint=checkpoint)
    assert not list(tmp_path.iterdir())


def test_batches_that_are_too_small_for_so_many_processes_are_refused() -> None:
    with pytest.raises(InputError, match="a batch of 6 images cannot be shared by 4 processes: each needs 2"):
        NetworkTraining(
            fresh(EVERYTHING), DATA, Recipe(epochs=1, batch_size=6), seed=0, process_group=ProcessGroup(0, 4)
        )


def test_a_last_batch_that_processes_cannot_share_is_left_out() -> None:
    # 240 images in batches of 79 leave 3.
    recipe = Recipe(epochs=1, batch_size=79)
    assert NetworkTraining(fresh(recipe), DATA, recipe, seed=0).steps == 4
    assert NetworkTraining(fresh(recipe), DATA, recipe, seed=0, process_group=ProcessGroup(0, 2)).steps == 3
