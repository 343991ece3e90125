"""Random resized crops and colours: against torchvision's for one image, and what holds for all of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import adjust_contrast, adjust_hue, adjust_saturation, resized_crop

from cars_hw.data import Augmentation
from cars_hw.data import photo_augmentation as photographs
from cars_hw.data.photo_augmentation import crop_and_resize, jitter_colours, turn_hue


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int = 3, height: int = 16, width: int = 12) -> Tensor:
    return torch.randint(0, 256, (count, channels, height, width), generator=generator(7), dtype=torch.uint8)


def ramp(count: int, height: int = 40, width: int = 40) -> Tensor:
    """Images whose channels are a pixel's row, its column, and 100."""
    rows = torch.arange(height).view(-1, 1).expand(height, width)
    columns = torch.arange(width).view(1, -1).expand(height, width)
    return torch.stack([rows, columns, torch.full_like(rows, 100)]).float().expand(count, 3, height, width)


def test_a_crop_is_a_window_of_the_drawn_sizes_anywhere() -> None:
    cropped = crop_and_resize(ramp(400), 0.25, False, generator())
    # Between two pixels in the middle the window's share of the image is the slope.
    down = cropped[:, 0, 21, 20] - cropped[:, 0, 19, 20]
    across = cropped[:, 1, 20, 21] - cropped[:, 1, 20, 19]
    area, aspect = down * across / 4, across / down
    assert 0.24 < float(area.min()) < 0.3
    assert 0.9 < float(area.max()) < 1.01
    assert 0.74 < float(aspect.min()) < 0.8
    assert 1.25 < float(aspect.max()) < 1.34
    assert float(cropped[:, 0, 20, 20].std()) > 3
    torch.testing.assert_close(cropped[:, 2], torch.full_like(cropped[:, 2], 100))


def test_a_crop_of_everything_is_the_image_and_half_of_them_are_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "ASPECTS", (1.0, 1.0))
    images = pictures(200, height=16, width=16)
    same = crop_and_resize(images, 1.0, False, generator())
    assert torch.equal(same, images)
    flipped = crop_and_resize(images, 1.0, True, generator())
    mirrored = sum(torch.equal(after, before.flip(-1)) for after, before in zip(flipped, images, strict=True))
    untouched = sum(torch.equal(after, before) for after, before in zip(flipped, images, strict=True))
    assert mirrored + untouched == 200
    assert 70 <= mirrored <= 130


def test_a_window_is_resized_as_torchvision_does() -> None:
    image = ramp(1)[0]
    (cropped,) = crop_and_resize(image[None], 0.3, False, generator(3))
    top, left = cropped[0, 0, 0], cropped[1, 0, 0]
    height, width = 20 * (cropped[0, 21, 20] - cropped[0, 19, 20]), 20 * (cropped[1, 20, 21] - cropped[1, 20, 19])
    expected = resized_crop(
        image, round(float(top)), round(float(left)), round(float(height)), round(float(width)), [40, 40]
    )
    # Windows here begin between pixels, torchvision's on one.
    assert float((cropped - expected).abs().max()) < 1.5


@pytest.mark.parametrize("turn", [-0.2, -0.05, 0.1, 0.2])
def test_a_hue_is_turned_as_torchvision_does(turn: float) -> None:
    images = pictures(5).float() / 255
    expected = torch.stack([adjust_hue(image, turn) for image in images])
    torch.testing.assert_close(turn_hue(images, torch.full((5, 1, 1, 1), turn)), expected, atol=1e-4, rtol=0)


def test_colours_are_scaled_as_torchvision_does(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(6).float()
    # Of the four steps the last two drawn do nothing: one at a time is compared.
    for step, reference in ((1, adjust_contrast), (2, adjust_saturation)):
        monkeypatch.setattr(torch, "randperm", lambda *_, step=step, **__: torch.tensor([step]))
        recorded = 2 * torch.rand(6, 1, 1, 1, generator=generator(4)) - 1
        changed = jitter_colours(images, 0.4, generator(4))
        for after, before, drawn in zip(changed, images, recorded, strict=True):
            expected = 255 * reference(before / 255, 1 + 0.4 * float(drawn))
            torch.testing.assert_close(after, expected, atol=0.05, rtol=0)


def test_grey_images_keep_their_dtype_and_differ_in_brightness() -> None:
    images = pictures(50, channels=1)
    changed = jitter_colours(images, 0.4, generator())
    assert changed.dtype == torch.uint8
    assert changed.shape == images.shape
    shares = changed.float().mean(dim=(1, 2, 3)) / images.float().mean(dim=(1, 2, 3))
    assert 0.55 < float(shares.min()) < 0.8
    assert 1.1 < float(shares.max()) < 1.45


def test_the_same_generator_varies_in_the_same_way() -> None:
    augmentation = Augmentation(0, True, 4, crop_scale=0.08, colour_jitter=0.4)
    first, second, other = (augmentation.apply(pictures(4), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("wrong", [{"crop_scale": 1.1}, {"crop_scale": -0.1}, {"colour_jitter": 2.0}])
def test_shares_are_shares(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Augmentation(**wrong)  # type: ignore[arg-type]
