"""ONNX Runtime's execution providers that are devices, and which of them the installed wheel has."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, Final

from cars_hw.errors import InputError


@dataclass(frozen=True)
class Provider:
    """An execution provider: its ``name`` in ``ort:NAME``, and what ONNX Runtime calls it.

    ``wheel`` is the name of a wheel that has it; ``elsewhere`` says how to get it where that is not enough.
    ``beside`` are providers that take over what it cannot run, before the CPU does, and ``threads`` is its option
    for the number of threads, if it has one. ``kinds`` are the values of its option ``device_type``, the default
    one first. ``time_limit_s`` is the time limit of a session in seconds: some providers compile for minutes.
    """

    name: str
    provider: str
    wheel: str = ""
    elsewhere: str = ""
    beside: tuple[str, ...] = ()
    threads: str = ""
    kinds: tuple[str, ...] = ()
    time_limit_s: float = 120.0

    def options(self, kind: str, threads: int) -> dict[str, str]:
        """Return the options of the provider for ``threads`` threads on a device of ``kind``."""
        return {
            **({self.threads: str(threads)} if self.threads else {}),
            **({"device_type": kind} if self.kinds else {}),
        }

    def install(self, present: str) -> str:
        """Return how to get it where the wheel ``present`` is installed, or none."""
        if self.elsewhere:
            return self.elsewhere
        # The wheels share one folder: one that is installed over another breaks it.
        before = f"pip uninstall {present}; " if present else ""
        return f"install it: {before}pip install {self.wheel}"


PROVIDERS: Final[dict[str, Provider]] = {
    one.name: one
    for one in (
        Provider("cuda", "CUDAExecutionProvider", "onnxruntime-gpu"),
        Provider(
            "tensorrt",
            "TensorrtExecutionProvider",
            "onnxruntime-gpu",
            beside=("CUDAExecutionProvider",),
            time_limit_s=900.0,
        ),
        Provider("coreml", "CoreMLExecutionProvider", elsewhere="the wheel onnxruntime has it on a Mac only"),
        Provider("qnn", "QNNExecutionProvider", "onnxruntime-qnn"),
        Provider(
            "openvino",
            "OpenVINOExecutionProvider",
            "onnxruntime-openvino",
            threads="num_of_threads",
            kinds=("CPU", "GPU", "NPU"),
        ),
        Provider(
            "xnnpack",
            "XnnpackExecutionProvider",
            elsewhere="no wheel on PyPI has it: build ONNX Runtime with --use_xnnpack",
            threads="intra_op_num_threads",
        ),
    )
}
"""The providers by the name in ``ort:NAME``."""


def parse_provider(text: str) -> tuple[Provider, str]:
    """Return the provider and the kind of device in ``text``: ``cuda``, ``openvino``, or ``openvino:GPU``.

    Raises:
        InputError: there is no such provider, or it has no such kind.
    """
    name, colon, kind = text.partition(":")
    if name not in PROVIDERS:
        known = ", ".join(f"ort:{one}" for one in PROVIDERS)
        raise InputError(f"unknown device 'ort:{text}'; ONNX Runtime's devices are ort, {known}")
    found = PROVIDERS[name]
    if not colon:
        return found, next(iter(found.kinds), "")
    if kind not in found.kinds:
        known = f"one of: {', '.join(found.kinds)}" if found.kinds else "nothing"
        raise InputError(f"'ort:{text}' is not a device: behind ort:{name}: stands {known}")
    return found, kind


def installed_wheel() -> tuple[str, str]:
    """Return the name and the version of the wheel that ``import onnxruntime`` finds, without importing it.

    Several wheels have the same module: ``onnxruntime-gpu``, ``onnxruntime-openvino`` and others. What pip lists
    need not be what is imported, so that the module is asked. Both are empty without ONNX Runtime.
    """
    spec = util.find_spec("onnxruntime")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / "capi" / "build_and_package_info.py"
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            return _assigned(text, "package_name"), _assigned(text, "__version__")
    loaded: Any = sys.modules.get("onnxruntime")
    return ("", "") if spec is None else ("onnxruntime", str(getattr(loaded, "__version__", "")))


def _assigned(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*=\s*['\"]([^'\"]*)['\"]", text, re.MULTILINE)
    return found[1] if found else ""
