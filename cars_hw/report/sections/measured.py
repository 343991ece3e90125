"""Predicted and measured latency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cars_hw.export.card import INT8_SUFFIX
from cars_hw.formatting import milliseconds
from cars_hw.pipeline.records import Verified, names_by_state
from cars_hw.report.data import ReportData
from cars_hw.report.plot import SQUARE, Point, scatter


def view(report: ReportData) -> dict[str, Any]:
    """Return predicted against measured latency for every target, and all measured models."""
    plots = [_plot(report, index) for index, _ in enumerate(report.targets)]
    devices = list(dict.fromkeys(row.device for row in report.verified))
    return {
        "plots": [plot for plot in plots if plot is not None],
        "rows": sorted(report.verified, key=lambda row: (devices.index(row.device), row.name)),
        "drifts": {row.device: row.drift for row in report.verified if row.drift is not None},
        "states": {
            device: names_by_state([row for row in report.verified if row.device == device]) for device in devices
        },
        "not_quiet": {
            device: names
            for device in devices
            if (names := [row.name for row in report.verified if row.device == device and not row.quiet])
        },
        "device_warnings": {
            device: told
            for device in devices
            if (told := _union(row.device_warnings for row in report.verified if row.device == device))
        },
        "sustained": [row for row in report.verified if row.sustained is not None],
        "metered": [row for row in report.verified if row.energy is not None],
        "int8": int8(report.verified),
    }


def _union(lists: Iterable[Sequence[str]]) -> list[str]:
    """Return what is in any of ``lists``, each once."""
    return list(dict.fromkeys(one for each in lists for one in each))


def int8(verified: Sequence[Verified]) -> list[dict[str, Any]]:
    """Return what quantisation to int8 changes in latency and accuracy, model by model."""
    floats = {(row.device, row.name): row for row in verified if row.precision == "fp32"}
    found = []
    for row in verified:
        whole = floats.get((row.device, row.name.removesuffix(INT8_SUFFIX)))
        if row.precision != "int8" or whole is None:
            continue
        ratio = row.measured_ms / whole.measured_ms
        gained = None
        if row.accuracy is not None and whole.accuracy is not None:
            gained = f"{100 * (row.accuracy - whole.accuracy):+.1f}".replace("-", "\N{MINUS SIGN}")
        found.append(
            {
                "name": row.name,
                "device": row.device,
                "factor": max(ratio, 1 / ratio),
                "relation": "slower than" if ratio > 1 else "faster than",
                "gained": gained,
                "images": _images(row, whole),
            }
        )
    return found


def _images(row: Verified, whole: Verified) -> str:
    """Return the numbers of test images of an int8 and a float model, where they are known and differ."""
    if row.test_images is None or whole.test_images is None or row.test_images == whole.test_images:
        return ""
    return f" ({row.test_images:,} test images in int8, {whole.test_images:,} in float32)"


def _plot(report: ReportData, index: int) -> dict[str, Any] | None:
    """Return the plot of the target ``index`` with its figures, None where nothing was measured."""
    device = report.targets[index].device
    pairs = [
        (candidate.name, one.predicted_ms, one.measured_ms, "ring", "at the end of the search")
        for candidate in report.candidates
        if (one := candidate.latency_estimates[index]).measured_ms is not None
    ]
    pairs += [
        (row.name, row.predicted_ms, row.measured_ms, "disc", "the exported model")
        for row in report.verified
        if row.device == device and row.predicted_ms is not None
    ]
    if not pairs:
        return None
    errors = [measured / predicted - 1 for _, predicted, measured, _, _ in pairs]
    points = [
        Point(
            predicted,
            measured,
            f"{name}: predicted {milliseconds(predicted)}, measured {milliseconds(measured)}, {when}",
            kind,
        )
        for name, predicted, measured, kind, when in pairs
    ]
    return {
        "device": device,
        "drawn": scatter(points, f"predicted on {device}, ms", "measured, ms", equal=True, frame=SQUARE),
        "count": len(errors),
        "least": min(errors),
        "most": max(errors),
        "mean": sum(map(abs, errors)) / len(errors),
    }
