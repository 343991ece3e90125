"""The format ONNX: written with the onnx package, run and quantised by ONNX Runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cars_hw.errors import ExportError
from cars_hw.export.format import NO_METADATA, ExportFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cars_hw.config.measurement import Int8Scheme
    from cars_hw.export.format import Activations, Feeds, FloatArray, Ranges, Runner, Usage, Values
    from cars_hw.export.graph import Graph


class OnnxFormat(ExportFormat):
    """ONNX files for ONNX Runtime. In int8 a model (QDQ) takes and gives float32."""

    name = "onnx"
    suffix = ".onnx"
    layout = "NCHW"
    precisions = ("fp32", "int8")
    packages = ("onnx", "onnxruntime")

    def write(
        self,
        graph: Graph,
        *,
        dynamic_batch: bool = False,
        metadata: Mapping[str, str] = NO_METADATA,
        usage: Usage | None = None,
    ) -> bytes:
        """Return ``graph`` as an ONNX model; see :meth:`ExportFormat.write`."""
        from cars_hw.export.onnx_writer import onnx_bytes

        # ONNX has no place for it that other programs know.
        del usage
        return onnx_bytes(graph, dynamic_batch=dynamic_batch, metadata=metadata)

    def open(self, model: Path) -> Runner:
        """Return what runs ``model``; see :meth:`ExportFormat.open`."""
        session = _session(str(model))
        source = session.get_inputs()[0].name

        def run(batch: FloatArray) -> FloatArray:
            logits: FloatArray = session.run(None, {source: batch})[0]
            return logits

        return run

    def values(self, model: Path, images: FloatArray, wanted: Callable[[str], bool]) -> Values:
        """Return outputs and the ``wanted`` tensors; see :meth:`ExportFormat.values`."""
        import onnx

        from cars_hw.devices.host import ort_runtime

        state = ort_runtime.load().capi.onnxruntime_pybind11_state
        try:
            outputs = _run(str(model), images)
            opened = onnx.load(model)
            names = {node.name for node in opened.graph.node if wanted(node.name)}
            opened.graph.output.extend(info for info in opened.graph.value_info if info.name in names)
            return _run(opened.SerializeToString(), images) | outputs
        except (
            state.Fail,
            state.InvalidArgument,
            state.InvalidGraph,
            state.InvalidProtobuf,
            state.NoSuchFile,
            state.NotImplemented,
            state.RuntimeException,
        ) as error:
            raise ExportError(f"ONNX Runtime cannot run {model}: {error}") from error

    def quantize(self, model: bytes, feeds: Feeds, ranges: Ranges, scheme: Int8Scheme) -> bytes:
        """Return ``model`` in int8; see :meth:`ExportFormat.quantize`."""
        import numpy as np
        import onnx

        from cars_hw.devices.host import ort_runtime
        from cars_hw.export.onnx_writer import write_out_defaults

        quantization = ort_runtime.load_quantization()

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                self._feeds = iter(feeds)

            def get_next(self) -> dict[str, Any] | None:
                feed = next(self._feeds, None)
                return None if feed is None else dict(feed)

        symmetric = scheme == "symmetric"
        # On processors without VNNI signed weights saturate inside of the kernels: off by 7% instead of 1%. The
        # processors that symmetric models are for know no unsigned ones.
        kind = quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8
        # It warns of what its own transformations leave behind.
        ort_runtime.load().set_default_logger_severity(3)
        with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
            path = Path(folder) / "int8.onnx"
            quantization.quantize_static(
                onnx.load_from_string(model),
                path,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=kind,
                weight_type=kind,
                extra_options={
                    "ActivationSymmetric": symmetric,
                    "WeightSymmetric": symmetric,
                    # TensorRT refuses a bias of int32.
                    "QuantizeBias": not symmetric,
                    "TensorQuantOverrides": {
                        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
                        for name, (low, high) in ranges.items()
                    },
                },
            )
            quantised = onnx.load(path)
        write_out_defaults(quantised.graph.node)
        written: bytes = quantised.SerializeToString(deterministic=True)
        return written

    def activations(self, model: bytes) -> Activations:
        """Return what yields all activations; see :meth:`ExportFormat.activations`."""
        import onnx

        opened = onnx.load_from_string(model)
        inputs = [value.name for value in opened.graph.input]
        names = [name for node in opened.graph.node for name in node.output]
        known = {value.name for value in opened.graph.output}
        opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
        session = _session(opened.SerializeToString())

        def run(feed: Mapping[str, FloatArray]) -> Iterator[tuple[str, Any]]:
            yield from ((name, feed[name]) for name in inputs)
            yield from zip(names, session.run(names, dict(feed)), strict=True)

        return run

    def output_names(self, model: bytes) -> list[str]:
        """Return the names of the outputs."""
        import onnx

        return [value.name for value in onnx.load_from_string(model).graph.output]

    def subtract_bias(self, model: bytes, bias: FloatArray) -> bytes:
        """Return ``model`` with ``bias`` subtracted; see :meth:`ExportFormat.subtract_bias`."""
        import onnx

        opened = onnx.load_from_string(model)
        (logits,) = opened.graph.output
        name = f"{logits.name}/bias"
        (constant,) = (one for one in opened.graph.initializer if one.name == name)
        constant.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(constant) - bias, name))
        written: bytes = opened.SerializeToString()
        return written


def _session(model: str | bytes) -> Any:  # noqa: ANN401 -- the runtime has no types
    """Return a session of ``model``, a path or its content, on one thread of the CPU. It logs nothing."""
    from cars_hw.devices.host import ort_runtime

    onnxruntime = ort_runtime.load()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(model: str | bytes, images: FloatArray) -> Values:
    import numpy as np

    session = _session(model)
    names = [output.name for output in session.get_outputs()]
    source = session.get_inputs()[0].name
    results = [session.run(names, {source: image[None]}) for image in images]
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*results, strict=True), strict=True)}


ONNX = OnnxFormat()
