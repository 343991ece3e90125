"""A device, data, a cost, a recipe and an operation of a package: cars-hw finds them by their entry points."""

import os
import platform
import time
from datetime import UTC, datetime

import numpy as np

# ONNX Runtime reads this when it is imported: without it, usage data go to Microsoft.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

from cars_hw import DeviceError, NetworkCost, Operation, Recipe, Sample, normalized_convolution_cost


class InProcess:
    """ONNX Runtime in this process. ``--device in-process`` opens it; what follows a colon is ``detail``."""

    name = "in-process"
    model_format = "onnx"

    def __init__(self, detail="", threads=1):
        if detail:
            raise DeviceError(f"{self.name} takes nothing behind a colon, not {detail!r}")
        self.threads = threads

    def conditions(self):
        """Return what identifies machine and runtime, and the time."""
        return {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "threads": self.threads,
            "pinned": "no",
            "load": None,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def run(self, models, plan, seed, on_session=None):
        """Run one session of each of ``models``, and return a sample of each."""
        samples = []
        for done, model in enumerate(models, start=1):
            samples.append(Sample(self._session(model, plan, seed)))
            if on_session is not None:
                on_session(done)
        return samples

    def release(self):
        """Release nothing, since nothing is held."""

    def _session(self, model, plan, seed):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        try:
            session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise DeviceError(f"{self.name}: cannot load {model}: {reason}") from error
        rng = np.random.default_rng(seed)
        feed = {one.name: rng.standard_normal(one.shape, np.float32) for one in session.get_inputs()}
        for _ in range(plan.warmup_runs):
            session.run(None, feed)
        runs, begun = [], time.perf_counter()
        while len(runs) < plan.min_runs or time.perf_counter() - begun < plan.min_seconds:
            before = time.perf_counter()
            session.run(None, feed)
            runs.append(1e3 * (time.perf_counter() - before))
        return float(np.quantile(runs, plan.quantile))


def stripes():
    """Return images that are striped along or across, in a training and a test part."""

    def part(images, seed):
        rng = np.random.default_rng(seed)
        items = []
        for number in range(images):
            pixels = rng.integers(0, 90, (12, 12), np.uint8)
            lines = pixels[::2, :] if number % 2 else pixels[:, ::2]
            lines += 140
            items.append((pixels, ("along", "across")[number % 2]))
        return items

    return {"train": part(160, 0), "test": part(40, 1)}


def _convolutions(architecture, precision):
    cells = architecture.genotype.normal, architecture.genotype.reduce
    return sum("conv" in edge.operation for cell in cells for node in cell for edge in node)


CONVOLUTIONS = NetworkCost("edges", "edges that are convolutions", _convolutions)

SHORT = Recipe(epochs=2, batch_size=32, learning_rate=0.05, crop_padding=0)


class Depthwise3x3(Operation):
    """ReLU, depthwise convolution of 3x3 pixels, batch normalisation: half of half a separable convolution."""

    name = "depthwise_3x3"
    title = "depthwise conv. 3x3"
    short = "depth 3x3"
    family = "separable"
    kept_maps = 2

    def begins_with_relu(self, stride):
        """Return True, whatever the stride."""
        return stride > 0

    def cost(self, shape, stride):
        """Return the cost: each channel has its own filter."""
        return normalized_convolution_cost(1, 3, shape.halved() if stride == 2 else shape)

    def module(self, layers, channels, stride, norm):
        """Return the sequence."""
        return layers.ReLUFirst(layers.nn.ReLU(), layers.Depthwise(channels, 3, stride), norm.layer(channels))
