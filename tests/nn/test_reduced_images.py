"""Images that are reduced on their device are those that a data set has at the smaller resolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cars_hw.data.images import resized_pixels
from cars_hw.nn.reduced_images import reduced_images


@pytest.mark.parametrize(("size", "to"), [((32, 32), (16, 16)), ((32, 32), (28, 28)), ((24, 40), (9, 17))])
def test_the_filter_is_that_by_which_a_data_set_is_resized(size: tuple[int, int], to: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, *size, 3), dtype=np.uint8)
    expected = np.stack([resized_pixels(image, to) for image in pixels]).astype(float)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    found = reduced_images(images.double(), to).permute(0, 2, 3, 1).numpy()
    assert found.shape == expected.shape
    # Pillow rounds to 8 bits after each of two directions. Without antialiasing, differences are tens of levels.
    assert np.abs(found - expected).max() < 1.01
    plain = torch.nn.functional.interpolate(images.double(), to, mode="bilinear").permute(0, 2, 3, 1).numpy()
    assert np.abs(plain - expected).max() > 10


def test_normalised_images_are_reduced_alike() -> None:
    images = torch.rand(2, 1, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(
        reduced_images((images - 0.3) / 0.2, (8, 8)), (reduced_images(images, (8, 8)) - 0.3) / 0.2
    )


def test_type_and_memory_format_stay_and_images_of_the_resolution_are_themselves() -> None:
    images = torch.rand(2, 3, 12, 12).contiguous(memory_format=torch.channels_last)
    assert reduced_images(images, (12, 12)) is images
    found = reduced_images(images.to(torch.bfloat16), (8, 6))
    assert found.dtype == torch.bfloat16
    assert found.shape == (2, 3, 8, 6)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert reduced_images(images.contiguous(), (8, 6)).is_contiguous()
