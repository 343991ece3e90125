"""A Linux board as a device: TFLite models run there, by ``benchmark_model`` or by a Python runtime."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from cars_hw.devices.android.cores import allowed_cores, core_list, machine_commands, parse_cores
from cars_hw.devices.android.heat import READ_ZONES, parse_heat
from cars_hw.devices.android.phone import Phone, PhoneState, free_mb, limits_of
from cars_hw.devices.board.ssh import SshShell
from cars_hw.devices.remote import ask, last_lines
from cars_hw.devices.remote_machine import Place, Tool
from cars_hw.devices.scripted import ScriptedDevice
from cars_hw.errors import DeviceError, RunnerError
from cars_hw.progress import Log

FOLDER: Final = "/tmp"
"""The folder in which everybody may write on a board."""

PYTHON_RUNNER: Final = Path(__file__).with_name("runner.py")

_PARTS: Final = {
    "kernel": "uname -srm",
    "model": "cat /proc/device-tree/model",
    "cpuinfo": "cat /proc/cpuinfo",
    "system": "cat /etc/os-release",
    "id": "cat /etc/machine-id",
    **machine_commands(FOLDER),
    "thermal": f"{{ {READ_ZONES}; }}",
    "throttled": "vcgencmd get_throttled",
}
_STATE: Final = ("cores", "online", "status", "storage", "thermal", "throttled")

_THROTTLED: Final = {
    0: "the supply voltage of the board is too low",
    1: "the clock of the board is limited",
    2: "the board is throttled",
    3: "the board has reached its temperature limit",
}
"""What the first bits of a Raspberry Pi's ``vcgencmd get_throttled`` mean; the later ones are of the past."""


class BoardDevice(ScriptedDevice):
    """The board behind ``shell``; see :class:`cars_hw.devices.scripted.ScriptedDevice`.

    A ``benchmark_model`` on its PATH runs the models, or else a Python 3 with ai-edge-litert, tflite-runtime or
    TensorFlow. No setting is changed.
    """

    kind = "ssh"
    place = Place(FOLDER, "restore() { :; }", "")

    def _read(self) -> tuple[Phone, PhoneState]:
        parts = ask(self._shell, _PARTS)
        kernel = parts["kernel"].strip()
        if not kernel.startswith("Linux "):
            raise DeviceError(f"{self._shell.where} is no Linux machine ({kernel or 'it does not say what it is'})")
        chip = re.search(r"^(?:model name|Hardware)\s*: (.+)$", parts["cpuinfo"], re.MULTILINE)
        system = re.search(r'^PRETTY_NAME="?([^"\n]*)', parts["system"], re.MULTILINE)
        memory = re.search(r"^MemTotal: +(\d+) kB", parts["memory"], re.MULTILINE)
        load = re.match(r"([\d.]+) ([\d.]+) ([\d.]+) ", parts["load"].strip())
        governor = parts["governor"].strip()
        board = Phone(
            serial=parts["id"].strip()[:12],
            name=parts["model"].strip("\0\r\n ") or (chip[1].strip() if chip else "Linux machine"),
            android=f"{system[1] if system else 'Linux'}, {kernel.rpartition(' ')[0]}",
            abi=kernel.rpartition(" ")[2],
            cores=parse_cores(parts["cores"], parts["online"], parts["status"]),
            memory_mb=round(int(memory[1]) / 1024) if memory else None,
            can_pin=bool(parts["taskset"].strip()),
            governor=governor if re.fullmatch(r"\w+", governor) else None,
            load=[float(value) for value in load.groups()] if load else None,
        )
        return board, _state(parts)

    def _read_state(self) -> PhoneState:
        return _state(ask(self._shell, {name: _PARTS[name] for name in _STATE}))

    def _look_for_tool(self) -> Tool:
        answer = self._shell.call('t=$(command -v benchmark_model) && echo "@tool $t" && sha256sum "$t"')
        found = re.search(r"^@tool (.+)$", answer.output, re.MULTILINE)
        if found is not None:
            # Without a digest it is the same tool: another one would have other latencies.
            known = re.search(r"^\\?([0-9a-f]{64}) ", answer.output, re.MULTILINE)
            return Tool(None, found[1], (found[1],), known[1][:12] if known else "of unknown content")
        program = PYTHON_RUNNER.read_text(encoding="utf-8")
        answer = self._shell.call(f"python3 - <<'@end'\n{program}\n@end\n", 120.0)
        runtime = re.search(r"^RUNTIME: (.+?)\s*$", answer.output, re.MULTILINE)
        if runtime is None:
            raise RunnerError(
                f"{self._shell.where} has no benchmark_model and no Python runtime for TFLite models "
                f"({last_lines(answer.output)}); put benchmark_model on its PATH, or run there: pip install "
                "ai-edge-litert numpy"
            )
        digest = hashlib.sha256(program.encode()).hexdigest()[:12]
        target = self._path("runner.py")
        return Tool(PYTHON_RUNNER, target, ("python3", "./runner.py"), digest, f"{runtime[1]} in Python")


def _state(parts: dict[str, str]) -> PhoneState:
    throttled = re.search(r"throttled=0x([0-9a-fA-F]+)", parts["throttled"])
    bits = int(throttled[1], 16) if throttled else 0
    heat = parse_heat(parts["thermal"])
    return PhoneState(
        None,
        None,
        None,
        free_mb(parts["storage"]),
        core_list(parts["online"]),
        allowed_cores(parts["status"]),
        limits_mhz=limits_of(parse_cores(parts["cores"], parts["online"], parts["status"])),
        processor_c=heat.processor_c,
        cooling=heat.cooling,
        notes=tuple(text for bit, text in _THROTTLED.items() if bits >> bit & 1),
    )


def open_board(where: str, threads: int = 1, *, log: Log) -> BoardDevice:
    """Return the board that ``where`` names, ``[USER@]HOST[:PORT]``, connected.

    Raises:
        InputError: an invalid destination.
        DeviceError: the board is not there, or refuses this computer.
    """
    shell = SshShell(where)
    shell.open()
    return BoardDevice(shell, f"ssh:{where}", threads, log=log)
