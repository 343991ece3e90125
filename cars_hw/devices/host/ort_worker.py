"""The worker process of :class:`cars_hw.devices.host.runtimes.OrtDevice`, which times ONNX Runtime."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cars_hw.devices.host import ort_runtime
from cars_hw.devices.host.session_worker import OpenSession, serve


def prepare() -> tuple[str, OpenSession]:
    """Load the runtime."""
    return f"onnxruntime {ort_runtime.load().__version__}", open_session


def open_session(model: str, threads: int, seed: int) -> Callable[[], object]:
    """Load ``model`` and return a function that runs it once."""
    import numpy as np

    onnxruntime = ort_runtime.load()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # One thread has no other to wait for. Several spin, as they do in a deployed session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    feeds = {
        node.name: rng.standard_normal([size if isinstance(size, int) else 1 for size in node.shape], np.float32)
        for node in session.get_inputs()
    }
    return lambda: session.run(None, feeds)


if __name__ == "__main__":
    serve(sys.argv[1:], prepare)
