"""The worker process of :class:`cars_hw.devices.host.runtimes.OrtDevice`, which times ONNX Runtime.

With ``--provider`` it is that of :class:`cars_hw.devices.host.accelerator.AcceleratorDevice`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from functools import partial
from typing import Any

from cars_hw.devices.host import ort_runtime
from cars_hw.devices.host.session_worker import OpenSession, Session, serve

CPU = "CPUExecutionProvider"


def prepare(providers: list[tuple[str, dict[str, str]]]) -> tuple[dict[str, Any], OpenSession]:
    """Load the runtime; the first line of the output has the providers of the wheel, too."""
    onnxruntime = ort_runtime.load()
    hello = {
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "providers": onnxruntime.get_available_providers(),
    }
    return hello, partial(open_session, providers=providers)


def open_session(model: str, threads: int, seed: int, providers: list[tuple[str, dict[str, str]]]) -> Session:
    """Load ``model`` on the first of ``providers``; what that cannot run goes to the next one, and last to the CPU.

    The image goes in from the memory of this machine and the outputs come out there, so that a run ends when an
    accelerator has finished and its result has been copied.

    Raises:
        RuntimeError: the first provider does not start, or the runtime does not tell what ran where.
    """
    import numpy as np

    onnxruntime = ort_runtime.load()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # One thread has no other to wait for. Several spin, as they do in a deployed session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    if providers:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(model, options, providers=[*providers, CPU])
    rng = np.random.default_rng(seed)
    feeds = {
        node.name: rng.standard_normal([size if isinstance(size, int) else 1 for size in node.shape], np.float32)
        for node in session.get_inputs()
    }
    told = {"ran_on": ran_on(session, providers[0][0])} if providers else {}
    return Session(lambda: session.run(None, feeds), told)


def ran_on(session: Any, wanted: str) -> dict[str, dict[str, int]]:  # noqa: ANN401 -- the runtime has no types
    """Return how many nodes of each kind run on each provider, as ONNX Runtime divided the model of ``session``.

    Raises:
        RuntimeError: the provider ``wanted`` was not started, or this ONNX Runtime does not tell.
    """
    # ONNX Runtime goes on with the CPU alone where a library or the accelerator itself is missing.
    if wanted not in session.get_providers():
        raise RuntimeError(f"{wanted} does not start here: a library or the accelerator is missing")
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise RuntimeError("this ONNX Runtime does not tell what runs on the CPU; install version 1.24 or newer")
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return {name: dict(counted) for name, counted in found.items()}


def main(arguments: list[str]) -> None:
    """Serve with ``arguments``; ``--providers`` is a list of names and options in JSON."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--providers", type=json.loads, default=[])
    options, rest = parser.parse_known_args(arguments)
    providers = [(name, settings) for name, settings in options.providers]
    serve(rest, partial(prepare, providers))


if __name__ == "__main__":
    main(sys.argv[1:])
