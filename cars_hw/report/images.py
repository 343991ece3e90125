"""The facts of a run's images, as its search froze them, and the changes that were accepted since."""

from __future__ import annotations

from collections.abc import Mapping

from cars_hw.data.manifest import PARTS, AcceptedChange, DataManifest
from cars_hw.report.data import ReportData

Lines = list[tuple[str, str]]

MOST_CLASSES = 20
"""So many classes are named."""

USES = {"weights": "train the shared weights", "architectures": "evaluate architectures", "test": "test networks"}


def blocks(report: ReportData) -> list[tuple[str, Lines]]:
    """Return a block for the images of the search, and one for those of the networks where they are others."""
    uses = USES if report.configuration.training.trains else {**USES, "weights": "train networks"}
    found = [("Images", _facts(report.data, uses))]
    if report.target_data is not None:
        found = [
            ("Images of the search", _facts(report.data, uses)),
            ("Images of the networks", _facts(report.target_data, uses)),
        ]
    found[-1][1].extend(("changed since", _accepted(change, report)) for change in report.data_changes)
    return found


def _facts(manifest: DataManifest, uses: Mapping[str, str]) -> Lines:
    names = manifest.class_names
    more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
    lines = [
        ("source", manifest.source.source),
        ("classes", f"{len(names)}: {', '.join(names[:MOST_CLASSES])}{more}"),
    ]
    for part, numbers in manifest.counts.items():
        least, most = min(numbers), max(numbers)
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        lines.append((f"{PARTS[part]}s", f"{sum(numbers):,}, {each} of each class"))
    lines += [(uses[split.use], split.describe()) for split in manifest.splits]
    if manifest.skipped:
        lines.append(("left out", f"{len(manifest.skipped):,} that cannot be read"))
    values = zip(manifest.mean, manifest.std, strict=True)
    lines += [
        ("pixels", "grey" if manifest.decoding.channels == 1 else "RGB"),
        ("mean ± standard deviation", ", ".join(f"{mean:.4f} ± {std:.4f}" for mean, std in values)),
        ("digest", manifest.digest),
    ]
    return lines


def _accepted(change: AcceptedChange, report: ReportData) -> str:
    trained = [one.name for one in report.trained if one.data_digest == change.digest]
    said = "; ".join(one.describe() for one in change.changes)
    networks = f"trained on them: {', '.join(trained)}" if trained else "no network was trained on them"
    return f"{change.time}, accepted by {change.step}: {said}; {networks}"
