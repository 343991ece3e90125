"""How many images a class needs."""

from __future__ import annotations

from typing import Final

TEST_SHARE: Final = 1 / 6
"""The share of each class that is the test part of a folder without parts."""

SMALLEST_CLASS: Final = 4
"""With fewer images, the test part would have none of the class by largest remainder."""
