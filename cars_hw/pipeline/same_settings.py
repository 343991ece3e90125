"""Whether a search goes on with the settings that it was started with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cars_hw.config.codec import unstructure
from cars_hw.pipeline.records import RunConfiguration
from cars_hw.space.size_grid import SizeGrid


def first_difference(began: RunConfiguration, now: RunConfiguration) -> tuple[str, Any, Any] | None:
    """Return the name of the first setting that differs, with its value in ``began`` and in ``now``; or None.

    The images, and the run that the search started from, may lie elsewhere now.
    """
    began = replace(began, data=now.data)
    if began.from_run is not None and now.from_run is not None:
        began = replace(began, from_run=now.from_run)
    return _first_difference(_sizes_first(began), _sizes_first(now))


def _sizes_first(configuration: RunConfiguration) -> dict[str, Any]:
    """Return the settings with the sizes before the network, which is the largest of them.

    A search of one size has this one as its only size.
    """
    network = configuration.network
    sizes = configuration.sizes or SizeGrid((network.channels,), (network.layers,))
    rest = {name: value for name, value in unstructure(configuration).items() if name != "sizes"}
    return {"sizes": unstructure(sizes), **rest}


def _first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:  # noqa: ANN401
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            inner = f"{name}.{key}" if name else key
            found = _first_difference(before.get(key), now.get(key), inner)
            if found is not None:
                return found
        return None
    return None if before == now else (name, before, now)
