"""The memory that ONNX Runtime takes for the activations of a model, as its profiler says.

ONNX Runtime changes a graph before it runs it, by rules that differ between versions. So the memory is not computed
here; the runtime is asked. Its profiler tells with every operation how many bytes of its arena are in use. From the
second run on the runtime takes one block for all activations, which it planned in the first run; this block is what
a deployed model takes.

The graph is optimised at the level ``extended``. At the next level, ``all``, images are laid out in blocks of 8 or
16 channels, by the processor, and the layers are ordered anew in each session: ONNX Runtime 1.32 took 129 to 180 kB
for one and the same file.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cars_hw.errors import ExportError

if TYPE_CHECKING:
    from cars_hw.config.measurement import Precision
    from cars_hw.space.architecture import Architecture

RUNS: Final = 2

IN_USE: Final = "mem_bytes_requested_in_use"
CHANGE: Final = "mem_requested_in_use_delta"


def activation_bytes(architecture: Architecture, precision: Precision = "fp32") -> int:
    """Return the memory for the activations of the ONNX model of ``architecture`` on this machine, in bytes.

    The model has fresh weights: the memory depends on shapes only.

    Raises:
        ExportError: see :func:`runtime_activation_bytes`.
    """
    from cars_hw.export.onnx import ONNX
    from cars_hw.export.write import build_network

    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        path = Path(folder) / f"network{ONNX.suffix}"
        build_network(architecture.network, architecture.genotype, path, ONNX.name, precision)
        return runtime_activation_bytes(path)


def runtime_activation_bytes(model: Path) -> int:
    """Return how many bytes ONNX Runtime takes for the activations of the file ``model`` while it runs.

    The batch is one image and the runtime has one thread of the CPU. Weights are not in it, and neither is what the
    arena holds in reserve.

    Raises:
        ExportError: ONNX Runtime cannot run the model, or is a version that does not tell.
    """
    import numpy as np

    from cars_hw.devices.host import ort_runtime

    onnxruntime = ort_runtime.load()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Weights stay out of the arena.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    # The level above this one orders the layers anew in each session, see above.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
        options.profile_file_prefix = str(Path(folder) / "runs")
        try:
            session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            feeds = {
                node.name: np.zeros([size if isinstance(size, int) else 1 for size in node.shape], np.float32)
                for node in session.get_inputs()
            }
            for _ in range(RUNS):
                session.run(None, feeds)
            text = Path(session.end_profiling()).read_text(encoding="utf-8")
        # ONNX Runtime has a dozen exceptions without a common base.
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise ExportError(f"ONNX Runtime cannot run {model}: {lines[0]}") from error
    return bytes_of_events(json.loads(text))


def bytes_of_events(events: Sequence[Mapping[str, Any]]) -> int:
    """Return the memory for activations in the last of :data:`RUNS` runs that ``events`` of the profiler describe.

    Raises:
        ExportError: the profiler of this version does not tell the memory.
    """
    told = [event["args"] for event in events if event.get("cat") == "Node" and IN_USE in event.get("args", {})]
    if not told or len(told) % RUNS:
        raise ExportError("this version of ONNX Runtime does not tell the memory that a model takes; install 1.32")
    # What the runtime keeps in the arena between the runs is no activation.
    before = int(told[0][IN_USE]) - int(told[0][CHANGE])
    return max(int(one[IN_USE]) for one in told[len(told) // RUNS :]) - before
