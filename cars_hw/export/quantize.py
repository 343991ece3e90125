"""Post-training quantisation to int8 with the libraries that the runtimes' makers maintain.

Weights are quantised channel by channel, activations by the ranges that they have on calibration images.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cars_hw.errors import ExportError

if TYPE_CHECKING:
    from cars_hw.config.measurement import Int8Scheme
    from cars_hw.export.format import ExportFormat, Feeds, Ranges


def quantize(
    model: bytes,
    export_format: ExportFormat,
    feeds: Feeds,
    ranges: Ranges | None = None,
    scheme: Int8Scheme = "asymmetric",
) -> bytes:
    """Return the float32 ``model`` in int8.

    An activation has its range in ``ranges``; one that is not in it has the range of its values on ``feeds``, which
    are at least one image. In the symmetric ``scheme`` a range is widened until zero is its middle, and all zero
    points are 0.

    Raises:
        ExportError: the library cannot quantise it.
    """
    try:
        with _silence():
            return export_format.quantize(model, feeds, ranges or {}, scheme)
    # The libraries raise any exception.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"the model cannot be quantised: {lines[0]}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress what the libraries print and log: it is for their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
