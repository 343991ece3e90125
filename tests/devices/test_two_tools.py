"""Two processes measure on one phone at once: both end right, or one is refused at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from long_runs import amount
from phone_stand import standing
from simulated_phone import System

TOOL = """
import json, sys
from pathlib import Path
from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android.adb import AdbShell, Address
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.devices.remote_machine import Waits
from cars_hw.errors import DeviceError

port, keys, *models = sys.argv[1:]
plan = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0, patience_seconds=0)
shell = AdbShell(Address("127.0.0.1", int(port)), keys=Path(keys))
device = AndroidDevice(shell, "android:sim", log=lambda _: None, waits=Waits(reconnect=5.0, pause=0.02))
for _ in sys.stdin:
    try:
        said = [round(1e3 * sample.ms) for sample in device.run([Path(model) for model in models], plan, 0)]
    except DeviceError as error:
        said = str(error)
    device.release()
    print(json.dumps(said), flush=True)
"""


@pytest.mark.skipif(not amount(0, 1), reason="two processes take some seconds: pytest --long")
def test_two_processes_at_once_both_end_right_or_one_is_refused(
    tmp_path: Path, keys: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = [1000 + 100 * number for number in range(len(models))]
    with standing(tmp_path / "phone", keys, System(), "PATH=/usr/bin:/bin sleep 0.05") as stand:
        stand.phone.set("stay_on_while_plugged_in", "3")
        command = [sys.executable, "-c", TOOL, str(stand.adbd.port), str(keys), *map(str, models)]
        tools = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        refused = 0
        try:
            for _ in range(20):
                for tool in tools:
                    assert tool.stdin is not None
                    tool.stdin.write("now\n")
                    tool.stdin.flush()
                said = [json.loads(tool.stdout.readline()) for tool in tools if tool.stdout is not None]
                assert expected in said
                for text, other in zip(said, reversed(tools), strict=True):
                    if text != expected:
                        refused += 1
                        assert re.search(rf"another cars-hw \(process {other.pid} on .*\) measures on", text), text
                assert stand.phone.setting("stay_on_while_plugged_in") == "3"
                assert not (stand.phone.tmp / "cars-hw").exists()
        finally:
            for tool in tools:
                tool.kill()
                tool.communicate()
        # Both begin within milliseconds, and a measurement takes longer.
        assert refused
