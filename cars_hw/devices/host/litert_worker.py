"""The worker process of :class:`cars_hw.devices.host.runtimes.LitertDevice`, which times LiteRT."""

from __future__ import annotations

import sys
from typing import Any

from cars_hw.devices.host.litert_runtime import interpreter, runtime, to_quantised
from cars_hw.devices.host.session_worker import OpenSession, Session, serve


def prepare() -> tuple[dict[str, Any], OpenSession]:
    """Return the name of the runtime, which is loaded with the first model."""
    return {"runtime": runtime() or ""}, open_session


def open_session(model: str, threads: int, seed: int) -> Session:
    """Load ``model`` and set its inputs."""
    import numpy as np

    loaded = interpreter(model, threads)
    rng = np.random.default_rng(seed)
    for detail in loaded.get_input_details():
        value = rng.standard_normal(detail["shape"], np.float32)
        loaded.set_tensor(detail["index"], to_quantised(value, detail))
    return Session(loaded.invoke)


if __name__ == "__main__":
    serve(sys.argv[1:], prepare)
