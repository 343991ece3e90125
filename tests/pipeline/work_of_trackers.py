"""What tests hand to trackers, also in processes of their own."""

from __future__ import annotations

from pathlib import Path

from cars_hw.callbacks import Tracker


def tell_all(tracker: Tracker, folder: Path, steps: range) -> None:
    """Hand ``tracker`` one of everything."""
    from PIL import Image

    tracker.settings({"seed": 3, "recipe": "cifar"})
    for step in steps:
        tracker.scalars(step, {"loss": 1 / step, "latency on ort (ms)/least": 2.0})
    table, picture = folder / "table.json", folder / "front.png"
    table.write_text("{}")
    Image.new("RGB", (4, 4), "red").save(picture)
    tracker.figure("front", picture, steps[-1])
    tracker.artefact(table)
    tracker.close()
