"""OpenVINO as a format (``--format openvino``) and as a device (``--device openvino``) of cars-hw."""

import io
import os
import platform
import tempfile
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cars_hw import DeviceError, ExportError, FloatFormat, Sample
from cars_hw.export.formats import export_format

XML, WEIGHTS = "model.xml", "model.bin"
SAME_DATE = (1980, 1, 1, 0, 0, 0)
"""The same model must always give the same bytes."""

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
"""OpenVINO computes in bfloat16 where the processor can, unless it is told what the model says."""


class OpenVinoFormat(FloatFormat):
    """OpenVINO's IR: an archive (ZIP) of ``model.xml`` and ``model.bin``, since a model is one file in cars-hw."""

    name = "openvino"
    suffix = ".openvino"
    layout = "NCHW"
    packages = ("openvino",)

    def write(self, graph, *, dynamic_batch=False, metadata=None, usage=None):
        """Return ``graph`` as an archive of IR, converted from the ONNX model of cars-hw by OpenVINO."""
        import openvino

        onnx = export_format("onnx").write(graph, dynamic_batch=dynamic_batch, usage=usage)
        model = openvino.Core().read_model(io.BytesIO(onnx))
        # OpenVINO numbers what has no name throughout a process: the same model would have other bytes each time.
        for number, node in enumerate(model.get_ordered_ops()):
            if node.get_friendly_name() == node.get_name():
                node.set_friendly_name(f"{node.get_type_name()}_{number}")
        for name, value in (metadata or {}).items():
            model.set_rt_info(value, ["cars_hw", name])
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in (XML, WEIGHTS)]
            openvino.serialize(model, *map(str, paths))
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w") as written:
                for path in paths:
                    written.writestr(zipfile.ZipInfo(path.name, SAME_DATE), path.read_bytes())
        return archive.getvalue()

    def open(self, model):
        """Return what runs ``model`` on one thread."""
        compiled = compile_model(read_archive(model), threads=1)
        return lambda batch: compiled(batch)[compiled.output(0)]

    def values(self, model, images, wanted):
        """Return the outputs and the tensors whose names are ``wanted``, for images that are run one by one."""
        try:
            read = read_archive(model)
            known = {name for output in read.outputs for name in output.get_names()}
            tensors = {name for node in read.get_ops() for port in node.outputs() for name in port.get_names()}
            read.add_outputs([name for name in tensors - known if wanted(name)])
            compiled = compile_model(read, threads=1)
            results = [compiled(image[None]) for image in images]
        except Exception as error:
            raise ExportError(f"OpenVINO cannot run {model}: {first_line(error)}") from error
        return {
            name: np.concatenate([result[port] for result in results])
            for port in compiled.outputs
            for name in port.get_names()
            if name in known or wanted(name)
        }


FORMAT = OpenVinoFormat()


class OpenVinoDevice:
    """OpenVINO in this process, on the processor or what follows the colon, as in ``--device openvino:GPU``."""

    model_format = FORMAT.name

    def __init__(self, hardware="", threads=1):
        import openvino

        self.name = f"openvino:{hardware}" if hardware else "openvino"
        self.hardware, self.threads, self.core = hardware or "CPU", threads, openvino.Core()
        if self.hardware not in self.core.available_devices:
            known = ", ".join(self.core.available_devices)
            raise DeviceError(f"OpenVINO has no {self.hardware} here; it has: {known}")
        self.version = openvino.get_version()

    def conditions(self):
        """Return what identifies machine and runtime, and the time."""
        return {
            "processor": self.core.get_property(self.hardware, "FULL_DEVICE_NAME"),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "runtime": f"openvino {self.version} {self.hardware}",
            "threads": self.threads,
            "pinned": "no",
            "load": list(os.getloadavg()),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def run(self, models, plan, seed, on_session=None):
        """Run one session of each of ``models``, and return a sample of each."""
        samples = []
        for done, model in enumerate(models, start=1):
            try:
                ms = self._session(model, plan, seed)
            except Exception as error:
                raise DeviceError(f"{self.name}: cannot run {model}: {first_line(error)}") from error
            samples.append(Sample(ms, datetime.now(UTC).isoformat(timespec="milliseconds")))
            if on_session is not None:
                on_session(done)
        return samples

    def release(self):
        """Release nothing, since nothing is held between sessions."""

    def _session(self, model, plan, seed):
        compiled = compile_model(read_archive(model), self.threads, self.hardware)
        request, rng = compiled.create_infer_request(), np.random.default_rng(seed)
        feed = {port: rng.standard_normal(list(port.shape), np.float32) for port in compiled.inputs}
        for _ in range(plan.warmup_runs):
            request.infer(feed)
        runs, begun = [], time.perf_counter()
        while len(runs) < plan.min_runs or time.perf_counter() - begun < plan.min_seconds:
            before = time.perf_counter()
            request.infer(feed)
            runs.append(1e3 * (time.perf_counter() - before))
        return float(np.quantile(runs, plan.quantile))


def read_archive(path):
    """Return the model in the archive at ``path``."""
    import openvino

    with zipfile.ZipFile(path) as archive:
        # The weights are copied: the model must not depend on memory of ours.
        return openvino.Core().read_model(archive.read(XML), archive.read(WEIGHTS))


def compile_model(model, threads, hardware="CPU"):
    """Return ``model`` compiled to compute in float32 where the hardware is a processor."""
    import openvino

    config = {**EXACT, "INFERENCE_NUM_THREADS": str(threads)} if hardware == "CPU" else {}
    return openvino.Core().compile_model(model, hardware, config)


def first_line(error):
    """Return the first line of what ``error`` says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
