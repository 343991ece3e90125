"""The format TFLite: written over LiteRT's schema, run by LiteRT, quantised by litert-quantizer."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from typing import TYPE_CHECKING, Any

from cars_hw.errors import ExportError
from cars_hw.export.format import NO_METADATA, ExportFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cars_hw.config.measurement import Int8Scheme
    from cars_hw.export.format import Activations, Feeds, FloatArray, Ranges, Runner, Usage, Values
    from cars_hw.export.graph import Graph


class TFLiteFormat(ExportFormat):
    """TFLite files for LiteRT. In int8 a model takes and gives int8, by the scales in its tensors."""

    name = "tflite"
    suffix = ".tflite"
    layout = "NHWC"
    precisions = ("fp32", "int8")
    packages = ("ai-edge-litert", "litert-quantizer")

    def write(
        self,
        graph: Graph,
        *,
        dynamic_batch: bool = False,
        metadata: Mapping[str, str] = NO_METADATA,
        usage: Usage | None = None,
    ) -> bytes:
        """Return ``graph`` as a TFLite model; see :meth:`ExportFormat.write`."""
        from cars_hw.export.tflite_metadata import LABELS, METADATA, label_file, model_metadata, with_files
        from cars_hw.export.tflite_writer import tflite_bytes

        stored = {name: text.encode() for name, text in metadata.items()}
        if usage is None:
            return tflite_bytes(graph, dynamic_batch=dynamic_batch, metadata=stored)
        stored[METADATA] = model_metadata(usage)
        model = tflite_bytes(graph, dynamic_batch=dynamic_batch, metadata=stored)
        return with_files(model, {LABELS: label_file(usage.class_names)})

    def open(self, model: Path) -> Runner:
        """Return what runs ``model``; see :meth:`ExportFormat.open`."""
        from cars_hw.devices.host.litert_runtime import from_quantised, interpreter, to_quantised

        loaded = interpreter(str(model), 1)
        (source,), (target,) = loaded.get_input_details(), loaded.get_output_details()

        def run(batch: FloatArray) -> FloatArray:
            loaded.set_tensor(source["index"], to_quantised(batch, source))
            loaded.invoke()
            return from_quantised(loaded.get_tensor(target["index"]), target)

        return run

    def values(self, model: Path, images: FloatArray, wanted: Callable[[str], bool]) -> Values:
        """Return outputs and the ``wanted`` tensors; see :meth:`ExportFormat.values`."""
        from cars_hw.export.tflite_writer import with_outputs

        try:
            content = model.read_bytes()
            return _run(with_outputs(content, wanted), images) | _run(content, images)
        # A file that is no model leads its reader anywhere.
        except (OSError, ValueError, RuntimeError, TypeError, IndexError, AttributeError, struct.error) as error:
            raise ExportError(f"LiteRT cannot run {model}: {error}") from error

    def quantize(self, model: bytes, feeds: Feeds, ranges: Ranges, scheme: Int8Scheme) -> bytes:
        """Return ``model`` in int8; see :meth:`ExportFormat.quantize`."""
        import numpy as np
        from litert_quantizer import quantizer, recipe

        from cars_hw.export.tflite_metadata import files_of, with_files
        from cars_hw.export.tflite_writer import SIGNATURE

        wanted = recipe.static_wi8_ai8()
        for one in wanted:
            one["op_config"]["activation_tensor_config"]["symmetric"] = scheme == "symmetric"
        job = quantizer.Quantizer(bytearray(model), wanted)
        # Over several images the library averages their ranges and clips the values outside of the average: a
        # small network's logits were off by 11% instead of 1%. So each image is calibrated by itself, and the
        # ranges cover all images.
        calibrated: dict[str, dict[str, Any]] = {}
        for feed in feeds:
            for name, found in job.calibrate({SIGNATURE: [dict(feed)]}, num_threads=1).items():
                known = calibrated.setdefault(name, found)
                if found and known:
                    known["min"] = np.minimum(known["min"], found["min"])
                    known["max"] = np.maximum(known["max"], found["max"])
        for name, (low, high) in ranges.items():
            if calibrated.get(name):
                calibrated[name]["min"] = np.full_like(calibrated[name]["min"], low)
                calibrated[name]["max"] = np.full_like(calibrated[name]["max"], high)
        quantised = bytes(job.quantize(calibrated, enable_progress_report=False).quantized_model)
        return with_files(quantised, files) if (files := files_of(model)) else quantised

    def activations(self, model: bytes) -> Activations:
        """Return what yields all activations; see :meth:`ExportFormat.activations`."""
        from ai_edge_litert.interpreter import Interpreter

        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            # It warns of the memory that this takes.
            warnings.simplefilter("ignore")
            loaded = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
            loaded.allocate_tensors()
        (taken,) = loaded.get_input_details()
        made = {int(index) for operation in loaded._get_ops_details() for index in operation["outputs"]}
        names = {
            detail["index"]: detail["name"]
            for detail in loaded.get_tensor_details()
            if detail["index"] in made | {taken["index"]}
        }

        def run(feed: Mapping[str, FloatArray]) -> Iterator[tuple[str, Any]]:
            (value,) = feed.values()
            loaded.set_tensor(taken["index"], value)
            loaded.invoke()
            for index, name in names.items():
                # A tensor that a delegate fused away has no values.
                with contextlib.suppress(ValueError):
                    yield name, loaded.get_tensor(index)

        return run

    def output_names(self, model: bytes) -> list[str]:
        """Return the names of the outputs."""
        from ai_edge_litert import schema_py_generated as schema

        (graph,) = schema.ModelT.InitFromPackedBuf(model).subgraphs
        return [graph.tensors[index].name.decode() for index in graph.outputs]

    def subtract_bias(self, model: bytes, bias: FloatArray) -> bytes:
        """Return ``model`` with ``bias`` subtracted; see :meth:`ExportFormat.subtract_bias`."""
        import numpy as np
        from ai_edge_litert import schema_py_generated as schema

        (logits,) = self.output_names(model)
        changed = bytearray(model)
        read = schema.Model.GetRootAs(changed)
        tensors = [read.Subgraphs(0).Tensors(index) for index in range(read.Subgraphs(0).TensorsLength())]
        (tensor,) = (one for one in tensors if one.Name().decode() == f"{logits}/bias")
        # In place: the view is on the bytes themselves.
        read.Buffers(tensor.Buffer()).DataAsNumpy().view(np.float32)[:] -= bias
        return bytes(changed)


def _run(model: bytes, images: FloatArray) -> Values:
    import numpy as np

    from cars_hw.devices.host.litert_runtime import interpreter

    loaded = interpreter(model, 1)
    source = loaded.get_input_details()[0]["index"]
    targets = loaded.get_output_details()
    results: dict[str, list[Any]] = {target["name"]: [] for target in targets}
    for image in images:
        loaded.set_tensor(source, image.transpose(1, 2, 0)[None])
        loaded.invoke()
        for target in targets:
            value = loaded.get_tensor(target["index"])
            results[target["name"]].append(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)
    return {name: np.concatenate(parts) for name, parts in results.items()}


TFLITE = TFLiteFormat()
