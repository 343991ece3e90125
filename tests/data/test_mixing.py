"""RandAugment, mixup and CutMix: what a batch becomes, by the shares that its labels tell, and from one seed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from cars_hw.data import Augmentation, Dataset, TrainingBatches
from cars_hw.data.mixing import mix, rand_augment


def batch(count: int = 6, channels: int = 3) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    # No two pixels of the batch are alike.
    images = torch.randperm(count * channels * 56, generator=drawn).float().view(count, channels, 7, 8)
    return images, torch.arange(count)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mixup_adds_the_neighbour_with_the_share_of_the_label() -> None:
    images, labels = batch()
    mixed, shares = mix(images, labels, seeded(0), classes=7, mixup=1.0, cutmix=0.0)
    own = shares[0, 0]
    assert 0 < own < 1
    for place in range(6):
        neighbour = (place - 1) % 6
        torch.testing.assert_close(mixed[place], own * images[place] + (1 - own) * images[neighbour])
        expected = torch.zeros(7)
        expected[place], expected[neighbour] = own, 1 - own
        torch.testing.assert_close(shares[place], expected)


def test_cutmix_puts_a_rectangle_of_the_neighbour_into_each_image() -> None:
    images, labels = batch()
    found = set()
    for seed in range(10):
        mixed, shares = mix(images, labels, seeded(seed), classes=6, mixup=0.0, cutmix=1.0)
        theirs = (mixed[2] == images[1]).all(dim=0)
        assert torch.equal(theirs, ~(mixed[2] == images[2]).all(dim=0))
        rows, columns = theirs.any(dim=1), theirs.any(dim=0)
        assert torch.equal(theirs, rows[:, None] & columns[None, :])
        assert float(shares[2, 1]) == pytest.approx(int(theirs.sum()) / 56)
        found.add(int(theirs.sum()))
    assert len(found) > 3


def test_with_both_a_batch_has_one_of_them() -> None:
    images, labels = batch()
    kinds = []
    for seed in range(20):
        mixed, _ = mix(images, labels, seeded(seed), classes=6, mixup=1.0, cutmix=1.0)
        kinds.append(bool(torch.isin(mixed, images).all()))
    assert 5 <= sum(kinds) <= 15


def test_shares_of_classes_are_mixed_like_labels() -> None:
    images, labels = batch()
    soft = torch.nn.functional.one_hot(labels, 6).float() * 0.8 + 0.2 / 6
    _, hard = mix(images, labels, seeded(0), classes=6, mixup=1.0, cutmix=0.0)
    _, mixed = mix(images, soft, seeded(0), classes=6, mixup=1.0, cutmix=0.0)
    torch.testing.assert_close(mixed, 0.8 * hard + 0.2 / 6)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_has_operations_of_its_own(channels: int) -> None:
    one = torch.randint(0, 256, (1, channels, 12, 12), dtype=torch.uint8, generator=seeded(3))
    varied = rand_augment(one.expand(8, -1, -1, -1), 2, 9, seeded(0))
    assert (varied.dtype, varied.shape) == (torch.uint8, (8, channels, 12, 12))
    assert len({image.numpy().tobytes() for image in varied}) > 4
    # The first image is what torchvision makes of it from the same state.
    torch.manual_seed(int(torch.randint(2**62, (), generator=seeded(0))))
    assert torch.equal(varied[0], v2.RandAugment(2, 9)(one[0]))


def test_a_batch_depends_on_the_generator_alone_and_leaves_the_global_one() -> None:
    images = torch.randint(0, 256, (20, 1, 9, 9), dtype=torch.uint8, generator=seeded(4))
    augmentation = Augmentation(1, randaugment=1, mixup=0.5, cutmix=1.0, classes=4)
    data = Dataset(images, torch.arange(20) % 4)
    batches = TrainingBatches(data, 8, [0.5], [0.2], augmentation, device="cpu")

    def epoch(seed: int, state: int) -> list[tuple[Tensor, Tensor]]:
        torch.manual_seed(state)
        before = torch.get_rng_state()
        found = list(batches.epoch(seeded(seed)))
        assert torch.equal(torch.get_rng_state(), before)
        return found

    first, again, other = epoch(0, 0), epoch(0, 5), epoch(1, 0)
    assert all(
        torch.equal(one, two) for pair in zip(first, again, strict=True) for one, two in zip(*pair, strict=True)
    )
    assert not torch.equal(first[0][0], other[0][0])
    for varied, shares in first:
        assert varied.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(shares)))


def test_targets_come_with_their_images() -> None:
    data = Dataset(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), torch.zeros(20, dtype=torch.int64))
    targets = torch.stack([torch.arange(20.0), 20 - torch.arange(20.0)], dim=1)
    batches = TrainingBatches(data, 6, [0.0], [1.0], None, device="cpu", targets=targets)
    for images, shares in batches.epoch(seeded(0)):
        torch.testing.assert_close(255 * images[:, 0, 0, 0], shares[:, 0])


@pytest.mark.parametrize(
    "wrong",
    [{"randaugment": -1}, {"magnitude": 31}, {"mixup": -0.1}, {"cutmix": 1.0}, {"mixup": 1.0, "classes": 1}],
)
def test_an_augmentation_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"randaugment|mixing"):
        Augmentation(**wrong)  # type: ignore[arg-type]
