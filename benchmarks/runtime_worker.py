"""Runs model files in one other runtime, in an environment of its own: see ``other_runtime.py``, which starts it.

``runtime_worker.py RUNTIME FOLDER RESULTS MODEL...`` appends a line of JSON to the file RESULTS for each MODEL, a
name in FOLDER: its logits for the images beside it, or the error. Nothing of the package is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Path, dict[str, Any]], Any]
"""From a model file and its images to logits (N, classes).

Images are ``images`` (N, H, W, C) of float32 and ``pixels`` (N, H, W, C) of uint8, from which they were made.
"""

ARENA_BYTES = 64 * 2**20


def main(runtime: str, folder: Path, results: Path, models: list[str]) -> None:
    """Run ``models`` one by one."""
    for model in models:
        images = dict(np.load(folder / f"{model.partition('.')[0]}.npz"))
        line: dict[str, Any] = {"model": model}
        try:
            line["logits"] = np.asarray(RUNTIMES[runtime](folder / model, images), np.float64).tolist()
        except Exception as error:  # noqa: BLE001 -- whatever a runtime raises is a result
            line["error"] = f"{type(error).__name__}: {error}"
        with results.open("a") as file:
            file.write(f"{json.dumps(line)}\n")


def channels_first(images: np.ndarray) -> list[np.ndarray]:
    """Return batches of one image (1, C, H, W)."""
    return [np.ascontiguousarray(image.transpose(2, 0, 1)[None]) for image in images]


def to_quantised(image: np.ndarray, dtype: Any, scale: float, zero: int) -> np.ndarray:  # noqa: ANN401 -- the runtime's own type
    """Return ``image`` as a model with quantised inputs takes it."""
    if dtype == np.float32:
        return image
    limits = np.iinfo(dtype)
    return np.clip(np.rint(image / scale) + zero, limits.min, limits.max).astype(dtype)


def from_quantised(value: np.ndarray, scale: float, zero: int) -> np.ndarray:
    """Return what the quantised ``value`` means."""
    return value if value.dtype == np.float32 else (value.astype(np.float64) - zero) * scale


def onnxruntime(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Run an ONNX file in ONNX Runtime."""
    # It is read while the runtime is imported; without it, the runtime contacts a server.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image})[0] for image in channels_first(given["images"])])


def openvino(model: Path, given: dict[str, Any], *, integers: bool = True) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Run an ONNX or TFLite file in OpenVINO on the CPU, with kernels for ``integers`` or without."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "YES" if integers else "NO"}
    compiled = core.compile_model(core.read_model(model), "CPU", options)
    if model.suffix == ".onnx":
        return np.concatenate([compiled([batch])[0] for batch in channels_first(given["images"])])
    # OpenVINO keeps the types of inputs and outputs, and tells no scales.
    scales = json.loads(model.with_name(f"{model.name}.json").read_text())
    dtype = compiled.inputs[0].element_type.to_dtype()
    batches = [to_quantised(image[None], dtype, *scales["image"]) for image in given["images"]]
    return np.concatenate([from_quantised(compiled([batch])[0], *scales["logits"]) for batch in batches])


def ncnn(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Convert an ONNX file with pnnx and run it in ncnn, with float32 throughout."""
    import ncnn

    converter = Path(ncnn.__file__).parents[1] / "pnnx" / "pnnx"
    batches = channels_first(given["images"])
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "model.onnx"
        copied.write_bytes(model.read_bytes())
        shape = ",".join(map(str, batches[0].shape))
        command = [str(converter), str(copied), f"inputshape=[{shape}]f32", "fp16=0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode or not (Path(folder) / "model.ncnn.param").is_file():
            raise RuntimeError(f"pnnx ends with {done.returncode}: {last_line(done.stderr)}")
        net = ncnn.Net()
        net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = net.opt.use_vulkan_compute = False
        if net.load_param(f"{folder}/model.ncnn.param") or net.load_model(f"{folder}/model.ncnn.bin"):
            raise RuntimeError("ncnn does not load what pnnx makes of it")
        logits = []
        for batch in batches:
            extractor = net.create_extractor()
            extractor.input("in0", ncnn.Mat(batch[0]).clone())
            code, found = extractor.extract("out0")
            if code:
                raise RuntimeError(f"ncnn ends with {code}")
            logits.append(np.array(found).reshape(1, -1))
    return np.concatenate(logits)


def mnn(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Convert an ONNX or TFLite file with MNN's converter and run it in MNN."""
    # MNN's own command line installs a package and reports to a server; this is what it calls.
    import _tools
    import MNN
    from MNN import expr

    kind, batches, layout = "ONNX", channels_first(given["images"]), expr.NCHW
    if model.suffix == ".tflite":
        kind, batches, layout = "TFLITE", [image[None] for image in given["images"]], expr.NHWC
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.mnn"
        _tools.mnnconvert(["mnnconvert", "-f", kind, "--modelFile", str(model), "--MNNModel", path])
        if not Path(path).is_file():
            raise RuntimeError("the converter writes no file")
        net = MNN.nn.load_module_from_file(path, ["image"], ["logits"])
        logits = []
        for batch in batches:
            value = expr.const(batch.flatten().tolist(), list(batch.shape), layout)
            if layout == expr.NCHW:
                value = expr.convert(value, expr.NC4HW4)
            (found,) = net.forward([value])
            logits.append(np.array(expr.convert(found, expr.NCHW).read()).reshape(1, -1))
    return np.concatenate(logits)


def tract(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Run an ONNX file in tract."""
    import tract

    runnable = tract.onnx().load(model).into_model().into_runnable()
    return np.concatenate([runnable.run([image])[0].to_numpy() for image in channels_first(given["images"])])


def interpreted(loaded: Any, images: np.ndarray) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Run an interpreter of TensorFlow Lite's interface."""
    loaded.allocate_tensors()
    (source,), (target,) = loaded.get_input_details(), loaded.get_output_details()
    logits = []
    for image in images:
        loaded.set_tensor(source["index"], to_quantised(image[None], source["dtype"], *source["quantization"]))
        loaded.invoke()
        logits.append(from_quantised(loaded.get_tensor(target["index"]), *target["quantization"]))
    return np.concatenate(logits)


def tensorflow(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Run a TFLite file in TensorFlow."""
    import tensorflow as tf

    return interpreted(tf.lite.Interpreter(str(model)), given["images"])


def tflite_runtime(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Run a TFLite file in tflite-runtime, whose last release is of 2023."""
    from tflite_runtime.interpreter import Interpreter

    return interpreted(Interpreter(str(model)), given["images"])


def litert(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Run a TFLite file in LiteRT with XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    return interpreted(Interpreter(str(model)), given["images"])


def litert_builtin(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Run a TFLite file in LiteRT without XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return interpreted(Interpreter(str(model), experimental_op_resolver_type=kind), given["images"])


def litert_batch(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Run all images at once in LiteRT, after its input was resized."""
    from ai_edge_litert.interpreter import Interpreter

    loaded = Interpreter(str(model))
    (source,), (target,) = loaded.get_input_details(), loaded.get_output_details()
    images = to_quantised(given["images"], source["dtype"], *source["quantization"])
    loaded.resize_tensor_input(source["index"], images.shape)
    loaded.allocate_tensors()
    loaded.set_tensor(source["index"], images)
    loaded.invoke()
    return from_quantised(loaded.get_tensor(target["index"]), *target["quantization"])


def tflite_micro(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Run a TFLite file in TFLite Micro, whose kernels are those of microcontrollers."""
    from tflite_micro import runtime

    loaded = runtime.Interpreter.from_file(str(model), arena_size=ARENA_BYTES)
    taken = loaded.get_input_details(0)
    source, dtype = taken["quantization_parameters"], taken["dtype"]
    target = loaded.get_output_details(0)["quantization_parameters"]
    logits = []
    for image in given["images"]:
        loaded.set_input(to_quantised(image[None], dtype, *scale_and_zero(source)), 0)
        loaded.invoke()
        logits.append(from_quantised(np.array(loaded.get_output(0)), *scale_and_zero(target)))
    return np.concatenate(logits)


def scale_and_zero(parameters: dict[str, Any]) -> tuple[float, int]:
    """Return the one scale and zero point, of a float tensor any."""
    if not len(parameters["scales"]):
        return 1.0, 0
    return float(parameters["scales"][0]), int(parameters["zero_points"][0])


def mediapipe(model: Path, given: dict[str, Any]) -> Any:  # noqa: ANN401 -- the runtime's own type
    """Classify pixels with MediaPipe's ImageClassifier, which normalises them by the file's metadata."""
    import mediapipe as mp
    from mediapipe.tasks.python import vision
    from mediapipe.tasks.python.core.base_options import BaseOptions

    options = vision.ImageClassifierOptions(base_options=BaseOptions(str(model)), max_results=-1)
    kind = mp.ImageFormat.SRGB if given["pixels"].shape[3] == 3 else mp.ImageFormat.GRAY8
    names = given["class_names"].tolist()
    logits = []
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for pixels in given["pixels"]:
            found = classifier.classify(mp.Image(image_format=kind, data=np.ascontiguousarray(pixels)))
            scores = {category.category_name: category.score for category in found.classifications[0].categories}
            # The names are those that lie in the file.
            logits.append([scores[name] for name in names])
    return np.array(logits)


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


RUNTIMES: dict[str, Run] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "openvino-float": partial(openvino, integers=False),
    "ncnn": ncnn,
    "mnn": mnn,
    "tract": tract,
    "litert": litert,
    "litert-builtin": litert_builtin,
    "litert-batch": litert_batch,
    "tensorflow": tensorflow,
    "tflite-runtime": tflite_runtime,
    "tflite-micro": tflite_micro,
    "mediapipe": mediapipe,
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
