"""The worker process of :class:`cars_hw.devices.host.runtimes.LitertDevice`, which times LiteRT."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cars_hw.devices.host.litert_runtime import interpreter, runtime, to_quantised
from cars_hw.devices.host.session_worker import OpenSession, serve


def prepare() -> tuple[str, OpenSession]:
    """Return the name of the runtime, which is loaded with the first model."""
    return runtime() or "", open_session


def open_session(model: str, threads: int, seed: int) -> Callable[[], object]:
    """Load ``model``, set its inputs, and return a function that runs it once."""
    import numpy as np

    loaded = interpreter(model, threads)
    rng = np.random.default_rng(seed)
    for detail in loaded.get_input_details():
        value = rng.standard_normal(detail["shape"], np.float32)
        loaded.set_tensor(detail["index"], to_quantised(value, detail))
    invoke: Callable[[], object] = loaded.invoke
    return invoke


if __name__ == "__main__":
    serve(sys.argv[1:], prepare)
