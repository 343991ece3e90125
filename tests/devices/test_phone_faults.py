"""Faults of phones, alone and two at a time: what the phone did, what the tool says, and whether it measures.

In every row, the latencies are right and every fault that matters is said, or the measurement ends with an error
that names one of the faults. Afterwards the phone is as it was. ``make test`` takes a seeded sample of the rows,
``--long`` all of them.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from long_runs import amount
from phone_stand import WAITS, Stand, standing
from simulated_phone import System

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android.device import AndroidDevice
from cars_hw.errors import DeviceError

PLAN = MeasurePlan(sessions=1, min_runs=5, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0, patience_seconds=0)
STAY = "stay_on_while_plugged_in"
CORES = sorted(os.sched_getaffinity(0))
FORBIDDEN = "0123456789abcdef 111111111111 laptop 4242 777"
BAD_FIGURES = """\
echo "count=2 first=5 curr=9 min=5 max=9 avg=7 std=1"
echo "count=5 first=5 curr=9 min=9 max=5 avg=7 std=1"
echo "Inference timings in us: Init: 1, First inference: 5, Warmup (avg): 7, Inference (avg): 7"
exit 0"""


def nothing(_: Stand) -> None:
    """Change nothing."""


@dataclass(frozen=True)
class Fault:
    """What a phone does.

    ``says`` is what the tool says; None where the fault makes no difference. ``refused`` is whether the measurement
    ends. Two faults of one ``part`` of the phone exclude each other. ``before`` makes the fault before, ``during``
    after the second session; ``tool`` is what the tool on the phone does instead of its work.
    """

    part: str
    says: str | None = None
    refused: bool = False
    before: Callable[[Stand], object] = nothing
    during: Callable[[Stand], object] = nothing
    tool: str = ":"
    system: System | None = None


def held(stand: Stand) -> None:
    """Let another tool hold the phone."""
    lock = stand.phone.tmp / "cars-hw" / "lock"
    lock.mkdir(parents=True)
    (lock / "owner").write_text(f"{FORBIDDEN}\n")
    (lock / "seen").write_text(Path("/proc/uptime").read_text().split(".")[0] + "\n")


def replaced(stand: Stand) -> None:
    """Put another phone in the place of the first."""
    props = stand.phone.folder / "props"
    props.write_text(props.read_text().replace("SIM0001", "SIM0002"))
    stand.adbd.cut()


def opened(stand: Stand) -> None:
    stand.phone.open_cores(CORES)


def stays_out(stand: Stand) -> None:
    stand.adbd.faults.refuse_s = 60.0
    stand.adbd.cut()


FAULTS = {
    # What the phone is like, and makes no difference.
    "no terminal": Fault("system", system=System(terminal=False)),
    "a linker that warns": Fault("system", system=System(warns=True)),
    "no sha256sum, no fsync": Fault("system", system=System(without=("sha256sum", "fsync"))),
    "no fixed-performance mode": Fault("mode", before=lambda on: on.phone.no_fixed_mode()),
    "no thermal service": Fault("heat", before=lambda on: on.phone.no_thermal_service()),
    "doze, from which it wakes": Fault("doze", "is in doze", before=lambda on: on.phone.doze()),
    # What makes it slower, and is said.
    "battery saver": Fault("saver", "battery saver is on", before=lambda on: on.phone.set("low_power", "1")),
    "unplugged": Fault("battery", "runs on its battery", before=lambda on: on.phone.battery(usb=False)),
    "capped clocks": Fault("clock", "is limited to 1200 of 2800", before=lambda on: on.phone.limit_clocks(1200)),
    "doze, from which it does not wake": Fault(
        "doze", "does not wake", before=lambda on: on.phone.doze(wakes=False)
    ),
    "a cooling device at work": Fault(
        "heat",
        "lowers the clock of its processor against heat",
        before=lambda on: (on.phone.no_thermal_service(), on.phone.cool(2)),
    ),
    "denied settings": Fault(
        "settings", "does not let the screen stay on", before=lambda on: on.phone.deny_settings()
    ),
    "a warning in place of a value": Fault(
        "settings",
        "settings are left as they are",
        before=lambda on: on.phone.answer_settings("cmd: Can't find service: settings\n"),
    ),
    "a core that is switched off": Fault(
        "cores", r"core \d+ of \d+ cannot be used now", before=lambda on: on.phone.switch_on(CORES[1:])
    ),
    "the cable comes out and goes in again": Fault(
        "connection", "waiting for up to", during=lambda on: on.adbd.cut()
    ),
    "a script that is killed": Fault("connection", "was ended", during=lambda on: on.phone.kill_shells()),
    # What a measurement ends with.
    "hot": Fault("heat", "still is hot", True, before=lambda on: on.phone.thermal(2)),
    "a hot case": Fault(
        "heat", r"still is hot .*case 44 C", True, before=lambda on: on.phone.thermal(0, skin=44.0)
    ),
    "a hot battery": Fault(
        "battery", r"still is hot .battery 43 C", True, before=lambda on: on.phone.battery(tenths=430)
    ),
    "an empty battery": Fault(
        "battery", "charge it to 15% or more", True, before=lambda on: on.phone.battery(level=9)
    ),
    "no room for models": Fault(
        "storage",
        "no room left|no space left|MB left|cannot be written",
        True,
        before=lambda on: on.phone.storage(0),
    ),
    "a storage that becomes full": Fault(
        "storage",
        "no room left|MB left",
        True,
        before=lambda on: setattr(on.phone, "fills_up", True),
    ),
    "a tool that crashes": Fault("tool", r"it crashed .signal 9.", True, tool="kill -9 $$"),
    "a tool for another processor": Fault("tool", "it does not start", True, tool="exit 126"),
    "a tool that does not know a flag": Fault(
        "tool",
        "does not know --use_xnnpack",
        True,
        tool='echo "WARNING: Unconsumed cmdline flags: --use_xnnpack=true"',
    ),
    "a tool that contradicts itself": Fault("tool", "contradict each other", True, tool=BAD_FIGURES),
    "a tool that ends early": Fault("tool", "there is no measurement in its output", True, tool="exit 0"),
    "a tool that hangs": Fault("tool", "no end of", True, tool="PATH=/usr/bin:/bin sleep 60"),
    "no tool": Fault(
        "tool",
        "has no /data/local/tmp/benchmark_model",
        True,
        before=lambda on: (on.phone.tmp / "benchmark_model").unlink(),
    ),
    "a core that goes away": Fault(
        "cores", "(has switched off|still has) core", True, during=lambda on: on.phone.switch_on(CORES[:-1])
    ),
    "a core that is closed": Fault(
        "cores",
        "(has switched off|still has) core",
        True,
        before=opened,
        during=lambda on: on.phone.open_cores(CORES[:-1]),
    ),
    "another tool on the phone": Fault("folder", r"another cars-hw .process 4242", True, before=held),
    "a folder that cannot be written": Fault(
        "folder", "cars-hw cannot be written", True, before=lambda on: (on.phone.tmp / "cars-hw").write_text("")
    ),
    "the cable comes out": Fault("connection", "did not come back", True, during=stays_out),
    "another phone in its place": Fault("connection", "another machine .SIM0002. answers", True, during=replaced),
}
if len(CORES) < 2:
    FAULTS = {name: fault for name, fault in FAULTS.items() if fault.part != "cores"}

SINGLE = [(name,) for name in FAULTS]
PAIRS = [pair for pair in itertools.combinations(FAULTS, 2) if FAULTS[pair[0]].part != FAULTS[pair[1]].part]
ALL = [*SINGLE, *random.Random(0).sample(PAIRS, 220)]


def rows() -> list[tuple[str, ...]]:
    """Return the rows of this run: all of them, or a seeded sample."""
    return random.Random(1).sample(ALL, amount(10, len(ALL)))


def test_there_are_two_hundred_rows_and_every_fault_has_one() -> None:
    assert len(ALL) > 200
    assert len(set(ALL)) == len(ALL)
    assert {name for row in ALL for name in row} == set(FAULTS)


def outcome(
    device: AndroidDevice, stand: Stand, faults: list[Fault], models: list[Path]
) -> DeviceError | list[float]:
    def on_session(done: int) -> None:
        # The phone goes on meanwhile: the second session may begin before the fault is there, the third does not.
        if done == 1:
            for fault in faults:
                fault.during(stand)

    try:
        return [round(1e3 * sample.ms) for sample in device.run(models, PLAN, 0, on_session)]
    except DeviceError as error:
        return error
    finally:
        device.release()


def mend(stand: Stand) -> None:
    """Take the faults away, as their owner does."""
    phone = stand.phone
    stand.adbd.faults.refuse_s = stand.adbd._let_in_at = 0.0
    phone.fills_up = False
    phone.storage(4_000_000)
    phone.deny_settings(False)
    phone.answer_settings(None)
    props = phone.folder / "props"
    props.write_text(props.read_text().replace("SIM0002", "SIM0001"))
    folder = phone.tmp / "cars-hw"
    if folder.is_file():
        folder.unlink()
    elif (folder / "lock" / "owner").exists() and (folder / "lock" / "owner").read_text() == f"{FORBIDDEN}\n":
        # The other tool has ended, and its files are still there.
        assert (folder / "lock" / "seen").exists()
        shutil.rmtree(folder / "lock")
        folder.rmdir()


@pytest.mark.parametrize("row", rows(), ids=" and ".join)
def test_no_fault_is_silent_and_nothing_is_left_changed(
    row: tuple[str, ...], tmp_path: Path, keys: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    faults = [FAULTS[name] for name in row]
    tool = next((fault.tool for fault in faults if fault.tool != ":"), ":")
    system = next((fault.system for fault in faults if fault.system is not None), System())
    waits = replace(WAITS, session=3.0) if "a tool that hangs" in row else WAITS
    with standing(tmp_path / "phone", keys, system, tool) as stand:
        for fault in faults:
            fault.before(stand)
        device = stand.device(waits)
        found = outcome(device, stand, faults, models)
        refusing = [fault.says for fault in faults if fault.refused]
        if refusing:
            assert isinstance(found, DeviceError), found
            assert any(re.search(str(says), str(found)) for says in refusing), found
            assert "\n" not in str(found)
        else:
            assert found == [1000, 1100, 1200]
            said = [*stand.said, *device.warnings]
            for fault in faults:
                assert fault.says is None or any(re.search(fault.says, line) for line in said), (fault.says, said)
        mend(stand)
        stand.phone.install("exit 1")
        looking = stand.device()
        looking.conditions()
        looking.release()
        assert stand.phone.setting(STAY) is None
        fixed = stand.phone.folder / "fixed-mode"
        assert not fixed.exists() or fixed.read_text() == "false\n"
        assert not (stand.phone.tmp / "cars-hw").exists()
