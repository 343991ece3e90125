from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cars_hw.data import Augmentation, Dataset, EvaluationBatches, TrainingBatches
from cars_hw.errors import DatasetError

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int = 3, height: int = 5, width: int = 6) -> Tensor:
    return torch.randint(1, 256, (count, channels, height, width), generator=generator(7), dtype=torch.uint8)


def numbered(count: int, classes: int = 2) -> Dataset:
    """Return images of one pixel that hold their own number."""
    return Dataset(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count) % classes)


def numbers(images: Tensor) -> list[int]:
    """Return the numbers of ``numbered`` images that were normalised by mean 0 and std 1."""
    return (images.flatten() * 255).round().int().tolist()


def training(dataset: Dataset, batch_size: int, drop_last: bool = False) -> TrainingBatches:
    return TrainingBatches(dataset, batch_size, [0.0], [1.0], None, device=CPU, drop_last=drop_last)


def test_crop_is_a_window_of_the_padded_image() -> None:
    images = pictures(40)
    recorded = generator(3)
    down = torch.randint(5, (40, 1), generator=recorded).flatten().tolist()
    right = torch.randint(5, (40, 1), generator=recorded).flatten().tolist()

    cropped = Augmentation(crop_padding=2, flip=False).apply(images, generator(3))

    padded = functional.pad(images, (2, 2, 2, 2))
    for index, (y, x) in enumerate(zip(down, right, strict=True)):
        assert torch.equal(cropped[index], padded[index, :, y : y + 5, x : x + 6])
    assert cropped.dtype == torch.uint8
    assert set(down) == set(right) == {0, 1, 2, 3, 4}


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_others() -> None:
    images = pictures(200)
    flipped = Augmentation(crop_padding=0, flip=True).apply(images, generator())
    mirrored = [torch.equal(after, before.flip(-1)) for after, before in zip(flipped, images, strict=True)]
    same = [torch.equal(after, before) for after, before in zip(flipped, images, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 70 <= sum(mirrored) <= 130


def test_flip_and_crop_together_are_a_mirrored_window() -> None:
    images = pictures(60)
    varied = Augmentation(crop_padding=1, flip=True).apply(images, generator(5))
    padded = functional.pad(images, (1, 1, 1, 1))
    for index, after in enumerate(varied):
        windows = [padded[index, :, y : y + 5, x : x + 6] for y in range(3) for x in range(3)]
        mirrored = [
            functional.pad(images[index].flip(-1), (1, 1, 1, 1))[:, y : y + 5, x : x + 6]
            for y in range(3)
            for x in range(3)
        ]
        assert any(torch.equal(after, window) for window in windows + mirrored)


@pytest.mark.parametrize(("side", "before", "behind"), [(1, 0, 0), (2, 1, 0), (3, 1, 1), (4, 2, 1)])
def test_cutout_is_a_square_that_the_borders_clip(side: int, before: int, behind: int) -> None:
    images = pictures(80)
    recorded = generator(11)
    centre_y = torch.randint(5, (80, 1), generator=recorded).flatten().tolist()
    centre_x = torch.randint(6, (80, 1), generator=recorded).flatten().tolist()

    cut = Augmentation(crop_padding=0, flip=False, cutout=side).apply(images, generator(11))

    for index, (y, x) in enumerate(zip(centre_y, centre_x, strict=True)):
        expected = images[index].clone()
        expected[:, max(y - before, 0) : y + behind + 1, max(x - before, 0) : x + behind + 1] = 0
        assert torch.equal(cut[index], expected)
    assert (0, 0) in zip(centre_y, centre_x, strict=True), "no square at the corner: choose another seed"


def test_padding_is_black_and_cutout_is_the_mean() -> None:
    white = Dataset(torch.full((50, 1, 6, 6), 255, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64))
    padding = Augmentation(crop_padding=3, flip=False)
    cutout = Augmentation(crop_padding=0, flip=False, cutout=2)
    white_value = pytest.approx((1 - 0.25) / 0.5)
    values = {}
    for augmentation in (padding, cutout):
        batches = TrainingBatches(white, 50, [0.25], [0.5], augmentation, device=CPU)
        ((images, _),) = batches.epoch(generator())
        values[augmentation] = images.unique().tolist()
    assert values[padding] == [(0 - 0.25) / 0.5, white_value]
    assert values[cutout] == [0, white_value]


def test_nothing_is_varied_when_everything_is_off() -> None:
    images = pictures(4)
    assert torch.equal(Augmentation(crop_padding=0, flip=False).apply(images, generator()), images)


@pytest.mark.parametrize("settings", [{"crop_padding": -1}, {"cutout": -1}])
def test_negative_augmentation_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="negative"):
        Augmentation(**settings)


def test_normalisation_by_hand_in_channels_last() -> None:
    images = torch.tensor([[0, 51], [102, 255]], dtype=torch.uint8).expand(2, 3, 2, 2).contiguous()
    dataset = Dataset(images, torch.tensor([0, 1]))
    ((batch, _),) = EvaluationBatches(dataset, 2, (0.2, 0.0, 0.4), (0.5, 1.0, 0.1), CPU)
    expected = torch.tensor(
        [[[-0.4, 0.0], [0.4, 1.6]], [[0.0, 0.2], [0.4, 1.0]], [[-4.0, -2.0], [0.0, 6.0]]], dtype=torch.float32
    )
    torch.testing.assert_close(batch, expected.expand(2, 3, 2, 2), rtol=1e-6, atol=1e-6)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_batches_come_in_the_dtype_that_was_asked_for(dtype: torch.dtype) -> None:
    dataset = Dataset(pictures(4), torch.zeros(4, dtype=torch.int64))
    mean, std = (0.3, 0.4, 0.5), (0.2, 0.2, 0.2)
    ((exact, _),) = EvaluationBatches(dataset, 4, mean, std, CPU)
    ((evaluation, _),) = EvaluationBatches(dataset, 4, mean, std, CPU, dtype=dtype)
    ((varied, _),) = TrainingBatches(dataset, 4, mean, std, Augmentation(), device=CPU, dtype=dtype).epoch(
        generator()
    )
    assert torch.equal(evaluation, exact.to(dtype))
    assert varied.dtype == dtype


def test_an_epoch_is_a_shuffle_of_all_images_with_their_labels() -> None:
    batches = training(numbered(100, classes=7), 32)
    epoch = list(batches.epoch(generator()))
    seen = [number for images, _ in epoch for number in numbers(images)]
    assert [len(labels) for _, labels in epoch] == [32, 32, 32, 4]
    assert len(batches) == 4
    assert sorted(seen) == list(range(100))
    assert seen != sorted(seen)
    assert torch.cat([labels for _, labels in epoch]).tolist() == [number % 7 for number in seen]


@pytest.mark.parametrize(
    ("count", "batch_size", "drop_last", "sizes"),
    [
        (10, 5, False, [5, 5]),
        (12, 5, False, [5, 5, 2]),
        (11, 5, False, [5, 5]),
        (12, 5, True, [5, 5]),
        (3, 5, False, [3]),
    ],
)
def test_sizes_of_training_batches(count: int, batch_size: int, drop_last: bool, sizes: list[int]) -> None:
    batches = training(numbered(count), batch_size, drop_last)
    assert [len(labels) for _, labels in batches.epoch(generator())] == sizes
    assert len(batches) == len(sizes)


def test_the_generator_decides_the_epoch() -> None:
    dataset = Dataset(pictures(20), torch.arange(20))
    batches = TrainingBatches(
        dataset, 8, (0.5,) * 3, (0.2,) * 3, Augmentation(crop_padding=2, cutout=3), device=CPU
    )
    first, again, other = (list(batches.epoch(generator(seed))) for seed in (1, 1, 2))
    for (images, labels), (same_images, same_labels) in zip(first, again, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)
    assert not torch.equal(first[0][1], other[0][1])

    continued = generator(1)
    orders = [torch.cat([labels for _, labels in batches.epoch(continued)]) for _ in range(2)]
    assert not torch.equal(*orders)


def test_batches_leave_the_global_random_state_and_the_data_set_alone() -> None:
    dataset = Dataset(pictures(20), torch.arange(20))
    images, state = dataset.images.clone(), torch.get_rng_state()
    batches = TrainingBatches(dataset, 8, (0.5,) * 3, (0.2,) * 3, Augmentation(cutout=3), device=CPU)
    list(batches.epoch(generator()))
    list(EvaluationBatches(dataset, 8, (0.5,) * 3, (0.2,) * 3, CPU))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(dataset.images, images)


@pytest.mark.parametrize(("count", "batch_size", "drop_last"), [(1, 5, False), (0, 5, False), (4, 5, True)])
def test_too_few_images_for_a_training_batch(count: int, batch_size: int, drop_last: bool) -> None:
    with pytest.raises(DatasetError, match=f"{count} training images do not make a batch"):
        training(numbered(count), batch_size, drop_last)


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(100, 30, [25, 25, 25, 25]), (10, 4, [4, 3, 3]), (10, 10, [10]), (3, 8, [3]), (4, 1, [1, 1, 1, 1])],
)
def test_evaluation_batches_are_as_equal_as_can_be(count: int, batch_size: int, sizes: list[int]) -> None:
    batches = EvaluationBatches(numbered(count), batch_size, [0.0], [1.0], CPU)
    assert [len(labels) for _, labels in batches] == sizes
    assert len(batches) == len(sizes)


def test_evaluation_batches_are_the_same_every_time_and_mixed() -> None:
    count = 200
    dataset = Dataset(numbered(count).images, torch.arange(count) // 50)
    batches = EvaluationBatches(dataset, 50, [0.0], [1.0], CPU)
    rounds = [
        [(numbers(images), labels.tolist()) for images, labels in iterated]
        for iterated in (batches, batches, EvaluationBatches(dataset, 50, [0.0], [1.0], CPU))
    ]
    other = EvaluationBatches(dataset, 50, [0.0], [1.0], CPU, seed=1)

    assert rounds[0] == rounds[1] == rounds[2]
    assert rounds[0] != [(numbers(images), labels.tolist()) for images, labels in other]
    assert sorted(number for seen, _ in rounds[0] for number in seen) == list(range(count))
    for seen, labels in rounds[0]:
        assert labels == [number // 50 for number in seen]
        assert all(9 <= labels.count(label) <= 16 for label in range(4))


def test_wrong_arguments_are_refused() -> None:
    dataset = numbered(10)
    with pytest.raises(ValueError, match="at least 2"):
        training(dataset, 1)
    with pytest.raises(ValueError, match="at least 1"):
        EvaluationBatches(dataset, 0, [0.0], [1.0], CPU)
    with pytest.raises(ValueError, match="each of 1 channels"):
        EvaluationBatches(dataset, 5, [0.0] * 3, [1.0] * 3, CPU)
    with pytest.raises(ValueError, match="each of 1 channels"):
        TrainingBatches(dataset, 5, [0.0], [1.0] * 3, None, device=CPU)
    with pytest.raises(DatasetError, match="no images"):
        EvaluationBatches(numbered(0), 5, [0.0], [1.0], CPU)
