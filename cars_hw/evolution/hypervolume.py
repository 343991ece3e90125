"""Hypervolume: the quality of a front as one number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hypervolume(points: NDArray[np.float64], reference_point: NDArray[np.float64]) -> float:
    """Return the volume that the points dominate, bounded by the reference point; larger is better.

    Only points that no other dominates and that are better than the reference in every objective add volume.

    Args:
        points: shape ``(N, M)``, M at least 2, minimised; N may be 0.
        reference_point: shape ``(M,)``, finite, in the points' units.

    Returns:
        The volume, in the product of the objectives' units; 0.0 when no point dominates the reference.

    Raises:
        ValueError: shapes that disagree, NaN, or minus infinity.

    Source: Zitzler & Thiele 1999, as computed by pymoo.
    """
    from pymoo.indicators.hv import HV

    points = np.array(points, dtype=np.float64)
    reference = np.array(reference_point, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] < 2 or reference.shape != points.shape[1:]:
        raise ValueError(f"points {points.shape} and a reference point {reference.shape} do not fit together")
    # This form of the comparison is False for NaN too.
    if not (np.isfinite(reference).all() and (points > -np.inf).all()):
        raise ValueError("the hypervolume of NaN or of an infinity is not a number")
    dominating = points[(points < reference).all(axis=1)]
    return float(HV(ref_point=reference)(dominating))
