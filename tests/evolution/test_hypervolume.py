from __future__ import annotations

import numpy as np
import pytest

from cars_hw.evolution.hypervolume import hypervolume

CORNER = np.array([4.0, 4.0])


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([[1.0, 2.0]], 3 * 2),
        # Two steps of a staircase: 3 x 1 and, left of it, 1 x 2.
        ([[1.0, 3.0], [3.0, 1.0]], 3 * 1 + 1 * 2),
        # (2, 3) is dominated by (1, 3) and adds nothing; twice the same adds nothing.
        ([[1.0, 3.0], [3.0, 1.0], [2.0, 3.0], [3.0, 1.0]], 5),
        # On the edge of the reference, beyond it, and beyond it in one objective only.
        ([[1.0, 2.0], [0.0, 4.0], [5.0, 5.0], [0.0, 5.0], [np.inf, 0.0]], 6),
        ([[5.0, 5.0], [4.0, 0.0]], 0),
    ],
)
def test_areas_worked_out_by_hand(points: list[list[float]], expected: float) -> None:
    area = hypervolume(np.array(points), CORNER)
    assert isinstance(area, float)
    assert area == pytest.approx(expected)


def test_a_box_in_three_dimensions() -> None:
    assert hypervolume(np.array([[0.5, 1.0, 2.0]]), np.array([1.0, 3.0, 5.0])) == pytest.approx(0.5 * 2 * 3)


def test_no_points_have_no_volume() -> None:
    assert hypervolume(np.empty((0, 2)), CORNER) == 0.0


@pytest.mark.parametrize(
    ("points", "reference"),
    [
        ([[1.0, np.nan]], [4.0, 4.0]),
        ([[1.0, -np.inf]], [4.0, 4.0]),
        ([[1.0, 1.0]], [4.0, np.nan]),
        ([[1.0, 1.0]], [4.0, np.inf]),
        ([[1.0, 1.0]], [4.0, 4.0, 4.0]),
        ([1.0, 1.0], [4.0, 4.0]),
        ([[1.0]], [4.0]),
    ],
)
def test_what_has_no_volume_is_refused(points: list[float], reference: list[float]) -> None:
    with pytest.raises(ValueError, match=r"hypervolume|do not fit"):
        hypervolume(np.array(points), np.array(reference))
