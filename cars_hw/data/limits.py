"""How a folder of images is divided: how many images a class needs, and which part is the test part."""

from __future__ import annotations

from typing import Final

TEST_SHARE: Final = 1 / 6
"""The share of each class that is the test part of a folder without parts."""

SMALLEST_CLASS: Final = 4
"""With fewer images, the test part would have none of the class by largest remainder."""

SMALLEST_SHARED: Final = 3
"""With fewer images in every class, a search would have no training images left to evaluate architectures."""

VALIDATION_IS_TEST: Final = "there is no test part: the validation part is the test part, and decides nothing else"
"""What is told of a folder with a training and a validation part."""
