"""ONNX Runtime's other execution providers: names, wheels, what fell back to the CPU; one for real where it is."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import Device, available, format_of, open_device, registry
from cars_hw.devices.host import accelerator, providers
from cars_hw.devices.host.accelerator import AcceleratorDevice, Division, fallback_text, installed_providers
from cars_hw.devices.host.ort_worker import ran_on
from cars_hw.devices.host.providers import PROVIDERS, installed_wheel, parse_provider
from cars_hw.devices.host.runtimes import OrtDevice
from cars_hw.devices.protocol import learnt_by
from cars_hw.errors import DeviceError, InputError
from cars_hw.latency.campaign import LATER_CONDITIONS
from cars_hw.measurement.journal import Journal
from cars_hw.testing import DeviceContract

PLAN = MeasurePlan(sessions=1)
OPENVINO = "OpenVINOExecutionProvider"
needs_openvino = pytest.mark.skipif(
    installed_wheel()[0] != "onnxruntime-openvino", reason="the wheel onnxruntime-openvino is not installed"
)


def stub(*answers: str) -> list[str]:
    """Return a worker that gives ``answers``, as Python writes them, one for each request."""
    code = (
        "import json, sys\n"
        "print(json.dumps({'runtime': 'stub', 'arguments': sys.argv[1:]}), flush=True)\n"
        f"for _, answer in zip(sys.stdin, [{', '.join(answers)}]): print(json.dumps(answer), flush=True)"
    )
    return [sys.executable, "-c", code]


def models(folder: Path, count: int) -> list[Path]:
    made = [folder / f"{number}.onnx" for number in range(count)]
    for path in made:
        path.write_bytes(b"")
    return made


def test_a_provider_is_named_with_the_kind_of_device_where_it_has_several() -> None:
    assert parse_provider("cuda") == (PROVIDERS["cuda"], "")
    assert parse_provider("openvino") == (PROVIDERS["openvino"], "CPU")
    assert parse_provider("openvino:NPU") == (PROVIDERS["openvino"], "NPU")
    assert AcceleratorDevice(*parse_provider("openvino")).name == "ort:openvino"
    assert AcceleratorDevice(*parse_provider("openvino:NPU")).name == "ort:openvino:NPU"
    for text, message in (
        (
            "rocket",
            "unknown device 'ort:rocket'; ONNX Runtime's devices are ort, ort:cuda, ",
        ),
        ("openvino:TPU", "behind ort:openvino: stands one of: CPU, GPU, NPU"),
        ("cuda:1", "behind ort:cuda: stands nothing"),
    ):
        with pytest.raises(InputError, match=message):
            open_device(f"ort:{text}")
    assert format_of("ort:openvino:NPU") == "onnx"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "pip uninstall some-wheel; pip install onnxruntime-gpu"),
        ("tensorrt", "pip uninstall some-wheel; pip install onnxruntime-gpu"),
        ("qnn", "pip uninstall some-wheel; pip install onnxruntime-qnn"),
        ("openvino", "pip uninstall some-wheel; pip install onnxruntime-openvino"),
        ("coreml", "the wheel onnxruntime has it on a Mac only"),
        ("xnnpack", "build ONNX Runtime with --use_xnnpack"),
    ],
)
def test_a_provider_that_the_wheel_lacks_is_one_line_with_the_wheel_that_has_it(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "installed_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(accelerator, "installed_wheel", lambda: ("some-wheel", "9.8"))
    with pytest.raises(DeviceError, match=message) as raised:
        open_device(f"ort:{name}")
    assert f"device 'ort:{name}': some-wheel 9.8 has no {PROVIDERS[name].provider}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_wheel_is_the_one_that_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "build_and_package_info.py").write_text(
        "package_name = 'onnxruntime-gpu'\n__version__ = '1.99.0'\ncuda_version = '12.8'\n"
    )
    spec = ModuleSpec("onnxruntime", None)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(providers, "util", SimpleNamespace(find_spec=lambda _name: spec))
    assert installed_wheel() == ("onnxruntime-gpu", "1.99.0")
    assert AcceleratorDevice(PROVIDERS["cuda"]).runtime() == "onnxruntime-gpu 1.99.0 CUDAExecutionProvider"
    assert open_device("ort").conditions()["runtime"] == "onnxruntime 1.99.0"
    monkeypatch.setattr(providers, "util", SimpleNamespace(find_spec=lambda _name: None))
    assert installed_wheel() == ("", "")
    with pytest.raises(DeviceError, match="device 'ort' needs ONNX Runtime; install it: pip install onnxruntime"):
        open_device("ort")
    with pytest.raises(DeviceError, match="device 'ort:cuda' needs ONNX Runtime"):
        AcceleratorDevice(PROVIDERS["cuda"]).runtime()
    assert installed_providers() == []
    monkeypatch.undo()
    assert "CPUExecutionProvider" in installed_providers()


def test_a_wheel_that_does_not_load_is_not_one_without_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "installed_wheel", lambda: ("onnxruntime-gpu", "1.99.0"))
    broken = [sys.executable, "-c", "raise SystemExit('libcudart.so.12 is missing')"]
    monkeypatch.setattr(OrtDevice, "command", lambda _device: broken)
    with pytest.raises(DeviceError, match="libcudart") as raised:
        AcceleratorDevice(PROVIDERS["cuda"]).require()
    assert "pip install" not in str(raised.value)
    assert registry._accelerators() == []


def test_what_fell_back_is_counted_over_the_models() -> None:
    whole = Division.of({OPENVINO: {"Conv": 3, "Relu": 2}}, OPENVINO)
    assert (whole.nodes, whole.nodes_elsewhere) == (5, 0)
    part = Division.of({OPENVINO: {"Conv": 3}, "CPUExecutionProvider": {"TopK": 2, "Relu": 1}}, OPENVINO)
    assert (part.nodes, part.nodes_elsewhere) == (6, 3)
    alone = Division.of({"CPUExecutionProvider": {"Relu": 4}}, OPENVINO)
    assert fallback_text([]) is fallback_text([whole, whole]) is None
    assert fallback_text([whole, part]) == (
        "1 of 2 models ran partly on the CPU: 3 of their 6 operations (TopK 2, Relu 1)"
    )
    assert fallback_text([alone]) == "1 of 1 models ran wholly on the CPU: 4 of their 4 operations (Relu 4)"
    assert fallback_text([part, whole, alone]) == (
        "2 of 3 models ran partly (1 wholly) on the CPU: 7 of their 10 operations (Relu 5, TopK 2)"
    )
    tensorrt = "TensorrtExecutionProvider"
    ran = {tensorrt: {"Conv": 1}, "CUDAExecutionProvider": {"TopK": 1}, "CPUExecutionProvider": {"Slice": 1}}
    assert fallback_text([Division.of(ran, tensorrt)]) == (
        "1 of 1 models ran partly on CUDA and the CPU: 2 of their 3 operations (Slice 1, TopK 1)"
    )
    del ran["CPUExecutionProvider"]
    assert fallback_text([Division.of(ran, tensorrt)]) == (
        "1 of 1 models ran partly on CUDA: 1 of their 2 operations (TopK 1)"
    )


def test_what_fell_back_is_among_conditions_and_warnings_and_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    whole = {"ms": 1.5, "runs": 9, "ran_on": {OPENVINO: {"Conv": 2}}}
    part = {"ms": 2.5, "runs": 9, "ran_on": {OPENVINO: {"Conv": 2}, "CPUExecutionProvider": {"TopK": 1}}}
    answers = (str(whole), str(part))
    device = AcceleratorDevice(*parse_provider("openvino"), worker=stub(*answers), log=said.append)
    before = device.conditions()
    assert (before["cpu_fallback"], before["warnings"]) == (None, [])
    first, second = models(tmp_path, 2)
    assert [one.ms for one in device.run([first], PLAN, 0)] == [1.5]
    device.release()
    assert (device.conditions()["cpu_fallback"], device.warnings, said) == ("nothing", (), [])
    assert [one.ms for one in device.run([first, second], PLAN, 0)] == [1.5, 2.5]
    text = "1 of 2 models ran partly on the CPU: 1 of their 3 operations (TopK 1)"
    assert device.conditions()["cpu_fallback"] == text
    assert device.warnings == (text,)
    for _ in range(2):
        device.release()
    assert said == [f"ort:openvino: {text}"]
    assert {"cpu_fallback", "warnings"} <= set(LATER_CONDITIONS)


def test_warnings_of_a_profile_do_not_contradict_each_other(tmp_path: Path) -> None:
    ran_on = {OPENVINO: {"Conv": 2}, "CPUExecutionProvider": {"TopK": 1, "Relu": 2}}
    answer = str({"ms": 2.5, "runs": 9, "ran_on": ran_on})
    device = AcceleratorDevice(*parse_provider("openvino"), worker=stub(answer, answer), log=lambda _line: None)
    assert learnt_by(device) == {}
    journal = Journal(None, {}, {}, resume=False)
    first, second = models(tmp_path, 2)
    device.run([first], PLAN, 0)
    journal.learn(learnt_by(device))
    device.run([first, second], PLAN, 0)
    journal.learn(learnt_by(device))
    kinds = [f"{kind} ran on CPUExecutionProvider in place of {OPENVINO}" for kind in ("Relu", "TopK")]
    assert journal.told == {"warnings": kinds}
    journal.learn(device.conditions())
    assert journal.told["warnings"] == [*kinds, *device.warnings]


def test_the_worker_is_told_the_providers_in_their_order_and_the_threads() -> None:
    command = AcceleratorDevice(*parse_provider("openvino:GPU")).command()
    assert command[-1] == '[["OpenVINOExecutionProvider", {"num_of_threads": "1", "device_type": "GPU"}]]'
    assert AcceleratorDevice(PROVIDERS["tensorrt"]).command()[-1] == (
        '[["TensorrtExecutionProvider", {}], ["CUDAExecutionProvider", {}]]'
    )


def test_what_ran_where_is_asked_of_the_session() -> None:
    def part(name: str, *kinds: str) -> SimpleNamespace:
        return SimpleNamespace(ep_name=name, get_nodes=lambda: [SimpleNamespace(op_type=kind) for kind in kinds])

    session = SimpleNamespace(
        get_providers=lambda: [OPENVINO, "CPUExecutionProvider"],
        get_provider_graph_assignment_info=lambda: [
            part(OPENVINO, "Conv", "Relu", "Conv"),
            part("CPUExecutionProvider", "TopK"),
            part(OPENVINO, "Relu"),
            part("CPUExecutionProvider", "TopK"),
        ],
    )
    assert ran_on(session, OPENVINO) == {OPENVINO: {"Conv": 2, "Relu": 2}, "CPUExecutionProvider": {"TopK": 2}}
    with pytest.raises(RuntimeError, match="CUDAExecutionProvider does not start here"):
        ran_on(session, "CUDAExecutionProvider")
    del session.get_provider_graph_assignment_info
    with pytest.raises(RuntimeError, match=r"install version 1\.24 or newer"):
        ran_on(session, OPENVINO)


def test_the_list_has_the_providers_of_the_wheel_and_why_one_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cars_hw.devices.android.adb.usb_phones", list)
    wheel = ["CUDAExecutionProvider", OPENVINO, "AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(registry, "installed_providers", lambda: wheel)

    def working(device: AcceleratorDevice) -> None:
        if device.name == "ort:cuda":
            raise DeviceError("the worker failed: libcudart is missing")

    monkeypatch.setattr(AcceleratorDevice, "require_working", working)
    statuses = {one.name: one for one in available() if one.name.startswith("ort:")}
    assert list(statuses) == ["ort:openvino", "ort:cuda"]
    assert statuses["ort:openvino"].usable
    assert OPENVINO in statuses["ort:openvino"].detail
    assert (statuses["ort:cuda"].usable, statuses["ort:cuda"].detail) == (
        False,
        "the worker failed: libcudart is missing",
    )


def test_a_provider_that_is_not_in_the_wheel_does_not_silently_run_on_the_cpu(tmp_path: Path) -> None:
    device = AcceleratorDevice(PROVIDERS["xnnpack"])
    if PROVIDERS["xnnpack"].provider in installed_providers():
        pytest.skip("this ONNX Runtime has XNNPACK")
    with pytest.raises(DeviceError, match="XnnpackExecutionProvider") as raised:
        device.require_working()
    assert "\n" not in str(raised.value)


@needs_openvino
class TestOpenvino(DeviceContract):
    """The contract, on the provider of the wheel onnxruntime-openvino."""

    def device(self) -> Device:
        return open_device("ort:openvino")

    def test_what_it_cannot_run_is_counted(self, tmp_path: Path) -> None:
        from onnx import TensorProto, helper

        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("x", [1, 2, 8, 8]), ("y", None))
        ]
        nodes = [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("LpPool", ["a"], ["b"], kernel_shape=[2, 2]),
            helper.make_node("Relu", ["b"], ["y"]),
        ]
        graph = helper.make_graph(nodes, "pools", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (tmp_path / "pools.onnx").write_bytes(model.SerializeToString())
        said: list[str] = []
        device = AcceleratorDevice(*parse_provider("openvino"), log=said.append)
        device.run([tmp_path / "pools.onnx"], PLAN, 0)
        device.release()
        (text,) = said
        assert text.startswith("ort:openvino: 1 of 1 models ran partly on the CPU: ")
        assert "LpPool 1" in text
