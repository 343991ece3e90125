"""A simulated device: it computes the latency from the model file alone, for tests and for first tries."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.energy import PowerWindow
from cars_hw.devices.protocol import ModelFormat, Sample, SessionCounter
from cars_hw.errors import DeviceError

NODE_MS: Final = 0.002
MULTIPLY_ADDS_PER_MS: Final = 4e6
ELEMENTS_PER_MS: Final = 1e6
FREE: Final = ("Constant", "Identity")
IDLE_WATTS: Final = 1.0
ARITHMETIC_WATTS: Final = 4.0
OTHER_WATTS: Final = 2.0
"""What the device takes at rest, and beyond that while it multiplies and while it does anything else."""
FAKE_STEP: Final = 0.001
"""The resolution of its energy."""


class FakeDevice:
    """Computes a latency from the nodes of an ONNX file: a fixed cost each, multiply-adds, and moved elements.

    ``overhead_ms`` is added to the sum over the nodes, and the result is divided by ``speed``. ``noise`` is the
    standard deviation of a session, as a fraction. It is drawn from ``seed``, the block and the bytes of the file,
    so the same file always gives the same samples.
    """

    model_format: Final[ModelFormat] = "onnx"

    def __init__(
        self,
        name: str = "fake",
        seed: int = 0,
        speed: float = 1.0,
        noise: float = 0.0,
        overhead_ms: float = 0.01,
    ) -> None:
        self.name = name
        self._seed = seed
        self._speed = speed
        self._noise = noise
        self._overhead_ms = overhead_ms
        self._prices: dict[int, float] = {}

    def conditions(self) -> dict[str, Any]:
        """Return constant conditions."""
        return {
            "processor": "none, latencies are computed",
            "cores": 1,
            "clock_mhz": None,
            "governor": None,
            "load": None,
            "platform": "fake",
            "time": "2000-01-01T00:00:00+00:00",
            "runtime": f"fake seed {self._seed} speed {self._speed:g} noise {self._noise:g}",
            "threads": 1,
            "pinned": "nothing to pin",
        }

    def run(
        self, models: Sequence[Path], plan: MeasurePlan, seed: int, on_session: SessionCounter | None = None
    ) -> list[Sample]:
        """Return one sample of each of ``models``; see :class:`Device`.

        Raises:
            DeviceError: a file that is missing or not ONNX.
        """
        del plan
        taken = []
        for done, model in enumerate(models, start=1):
            digest = _digest(model)
            if digest not in self._prices:
                self._prices[digest] = model_price(model)
            rng = np.random.default_rng((self._seed, seed, digest))
            priced = (self._overhead_ms + self._prices[digest]) / self._speed
            taken.append(Sample(round(priced * math.exp(self._noise * float(rng.standard_normal())), 6)))
            if on_session is not None:
                on_session(done)
        return taken

    def energy_meter(self) -> str:
        """Return what counts the energy."""
        return "none, powers are computed"

    def spend(self, model: Path | None, seconds: float) -> PowerWindow:
        """Return the power of the model, or :data:`IDLE_WATTS`; see :class:`cars_hw.devices.energy.EnergyDevice`.

        Raises:
            DeviceError: a file that is missing or not ONNX.
        """
        if model is None:
            return PowerWindow(IDLE_WATTS, FAKE_STEP, seconds)
        arithmetic, rest = model_parts(model)
        rest += self._overhead_ms
        taken = ARITHMETIC_WATTS * arithmetic + OTHER_WATTS * rest
        run_seconds = (arithmetic + rest) / self._speed / 1e3
        watts = IDLE_WATTS + taken / (arithmetic + rest)
        return PowerWindow(watts, FAKE_STEP, seconds, max(int(seconds / run_seconds), 1), run_seconds)

    def release(self) -> None:
        """Do nothing: the device holds nothing."""


def model_price(path: Path) -> float:
    """Return the computed latency of the nodes of the ONNX file ``path``, in milliseconds; see
    :func:`model_parts`."""
    return sum(model_parts(path))


def model_parts(path: Path) -> tuple[float, float]:
    """Return the computed latency of the nodes of the ONNX file ``path``: arithmetic and the rest, in milliseconds.

    Raises:
        DeviceError: no such file, or not an ONNX file whose shapes can be inferred.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True)
    except (OSError, DecodeError, onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise DeviceError(f"fake: cannot read the model {path}: {str(error).splitlines()[0]}") from error
    graph = model.graph
    shapes = {
        value.name: [dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
    weights = {weight.name: list(weight.dims) for weight in graph.initializer}
    nodes = [node for node in graph.node if node.op_type not in FREE]
    arithmetic = sum(_multiply_adds(node, shapes, weights) for node in nodes) / MULTIPLY_ADDS_PER_MS
    return arithmetic, sum(NODE_MS + _moved(node, shapes) / ELEMENTS_PER_MS for node in nodes)


def _digest(path: Path) -> int:
    try:
        return int.from_bytes(hashlib.sha256(path.read_bytes()).digest()[:8])
    except OSError as error:
        raise DeviceError(f"fake: cannot read the model {path}: {error.strerror}") from error


def _moved(
    node: Any,  # noqa: ANN401 -- onnx has no types
    shapes: dict[str, list[int]],
) -> int:
    return sum(math.prod(shapes[name]) for name in (*node.input, *node.output) if name in shapes)


def _multiply_adds(
    node: Any,  # noqa: ANN401 -- onnx has no types
    shapes: dict[str, list[int]],
    weights: dict[str, list[int]],
) -> int:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    weight = weights.get(node.input[1], [])
    if node.op_type == "Conv":
        # Weights are (out, in / groups, height, width); each output element needs one filter.
        return math.prod(shapes[node.output[0]]) * math.prod(weight[1:])
    return math.prod(weight)
