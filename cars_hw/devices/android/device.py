"""A phone as a device: ``benchmark_model`` runs TFLite models there."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

from cars_hw.devices.android.benchmark_model import Delegate
from cars_hw.devices.android.energy import BatteryDevice
from cars_hw.devices.android.phone import FOLDER, Phone, PhoneState, read_phone, read_state
from cars_hw.devices.android.runner import stored_runner
from cars_hw.devices.android.settings_record import change_text, restore_text
from cars_hw.devices.android.stop_app import STOP_APP
from cars_hw.devices.remote import RemoteShell
from cars_hw.devices.remote_machine import WAITS, Place, Tool, Waits
from cars_hw.errors import Remedy, RunnerError
from cars_hw.progress import Log

HERE: Final = f"{FOLDER}/cars-hw"
"""The folder of all pushed files on the phone; it is removed at the end."""

USER_TOOL: Final = f"{FOLDER}/benchmark_model"
"""The path at which users install the tool on the phone."""


class AndroidDevice(BatteryDevice):
    """The phone behind ``shell``; see :class:`cars_hw.devices.scripted.ScriptedDevice`.

    ``runner`` is the tool as a file on this machine; None uses the stored one, or the one on the phone. During a
    measurement the screen stays on, and the phone is in fixed-performance mode if it has one.
    """

    kind = "android"
    place = Place(FOLDER, restore_text(HERE, STOP_APP), change_text(HERE))
    contact = ", such as cars-hw devices,"
    cores_help = "unlock it"
    tool_remedy: Remedy | None = "get-runner"
    runs_as = "a process of the adb shell"
    """What runs the models."""

    def __init__(
        self,
        shell: RemoteShell,
        name: str,
        threads: int = 1,
        *,
        delegate: Delegate = "cpu",
        runner: Path | None = None,
        log: Log,
        waits: Waits = WAITS,
    ) -> None:
        super().__init__(shell, name, threads, delegate=delegate, log=log, waits=waits)
        self._runner = runner

    def conditions(self) -> dict[str, Any]:
        """Return the conditions, with what runs the models and the group of the scheduler that it is in."""
        found = super().conditions()
        group = None if self._phone is None else self._phone.group
        return {**found, "runs_as": self.runs_as, "scheduling_group": group}

    def _read(self) -> tuple[Phone, PhoneState]:
        return read_phone(self._shell)

    def _read_state(self) -> PhoneState:
        return read_state(self._shell)

    def _wake(self) -> None:
        self._shell.call("input keyevent KEYCODE_WAKEUP")

    def _look_for_tool(self) -> Tool:
        """Return the tool: the given one, the stored one, or the one on the phone."""
        source = self._runner or stored_runner()
        if source is not None:
            digest = hashlib.sha256(source.read_bytes()).hexdigest()
            return Tool(source, self._path("benchmark_model"), ("./benchmark_model",), digest[:12])
        # Old phones lack some of the programs; the size is what all can tell.
        digests = " || ".join(f"{one} {USER_TOOL} 2>/dev/null" for one in ("sha256sum", "sha1sum", "md5sum"))
        answer = self._shell.call(f"[ -f {USER_TOOL} ] || exit 1\n{digests} || wc -c {USER_TOOL} 2>/dev/null; echo")
        if answer.status != 0:
            raise RunnerError(
                f"{self._shell.where} has no {USER_TOOL}, which runs the models", remedy=self.tool_remedy
            )
        found = re.search(r"^\s*([0-9a-f]+)\s+/", answer.output, re.MULTILINE)
        # A script runs in a folder of the folder, so that paths are relative to it.
        return Tool(None, USER_TOOL, ("../../benchmark_model",), found[1][:12] if found else "of unknown content")
