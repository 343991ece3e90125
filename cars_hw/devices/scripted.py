"""A device behind a remote shell: ``benchmark_model`` runs TFLite models there, one block of sessions per script.

:class:`ScriptedDevice` has what phones and boards share; a subclass knows the machine.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android import benchmark_model
from cars_hw.devices.android.benchmark_model import Delegate
from cars_hw.devices.android.cores import CPUS, core_list, describe, fastest_cores
from cars_hw.devices.android.phone import Phone, PhoneState
from cars_hw.devices.host.conditions import now
from cars_hw.devices.protocol import ModelFormat, Sample, SessionCounter
from cars_hw.devices.remote import (
    NoOutputError,
    RemoteShell,
    ScriptEndedError,
    Session,
    SessionResult,
    last_lines,
    script,
    session_results,
)
from cars_hw.devices.remote_folder import RemoteFolder
from cars_hw.devices.session import MAX_DOUBLINGS, STEADY
from cars_hw.errors import (
    ConnectionLostError,
    DeviceError,
    DeviceStateError,
    InputError,
    NoDeviceError,
    OfflineError,
    RunnerError,
)
from cars_hw.progress import Log

DELEGATES: Final = get_args(Delegate)

MIN_FREE_MB: Final = 1.0
"""With less room in MB the output of the tool may be cut off."""

MAX_LOST_CONNECTIONS: Final = 5
"""After so many lost connections without a session in between, the measurement fails."""

_BEFORE: Final = """\
cd "${0%/*}" || exit 97
if ! is_owner || ! stop_script; then trap - EXIT; echo MARK busy; exit 98; fi
{ echo $$ > HERE/lock/pid; } 2>/dev/null"""

# The number stays until all is restored: whoever stops a script waits until it is gone.
_AFTER: Final = """\
if is_owner; then
  restore
  rm -f HERE/lock/pid
fi"""


class Tool(NamedTuple):
    """The tool that runs models.

    Attributes:
        source: its file on this machine, which is copied; None is one that is there.
        target: its path on the machine.
        command: the words that run it from the folder of a script.
        digest: what tells it from others.
        name: what it is called.
    """

    source: Path | None
    target: str
    command: tuple[str, ...]
    digest: str
    name: str = "benchmark_model"

    def describe(self) -> str:
        """Return its name and digest."""
        return f"{self.name} {self.digest}"


@dataclass(frozen=True)
class Waits:
    """How long to wait, in seconds.

    ``cool_down`` is for the phone to cool down, ``reconnect`` for the cable to be plugged in again, ``session`` for
    the end of one session, ``pause`` between two checks, ``old_script`` for a script that was told to stop and
    restores the phone.
    """

    cool_down: float = 600.0
    reconnect: float = 60.0
    session: float = 120.0
    pause: float = 5.0
    old_script: int = 10


WAITS: Final = Waits()


@dataclass(frozen=True)
class Place:
    """Where a device works on its machine, and what it changes there.

    Attributes:
        parent: the folder of its folder.
        restore: shell text with the function ``restore``; see :class:`cars_hw.devices.remote_folder.RemoteFolder`.
        change: shell text that records and changes settings before the sessions of a script.
    """

    parent: str
    restore: str
    change: str

    @property
    def folder(self) -> str:
        """The folder of all files of cars-hw; it is removed at the end."""
        return f"{self.parent}/cars-hw"


class ScriptedDevice(ABC):
    """The machine behind ``shell``, with the ``name`` that tables have.

    A session is a fresh process of the tool, pinned to the ``threads`` fastest cores. A delegate that runs only a
    part of a model is an error. After a lost connection the block resumes with the missing sessions.

    Raises:
        InputError: less than one thread, an unknown delegate.
    """

    model_format: ModelFormat = "tflite"
    kind: str
    place: Place

    def __init__(
        self,
        shell: RemoteShell,
        name: str,
        threads: int = 1,
        *,
        delegate: Delegate = "cpu",
        log: Log,
        waits: Waits = WAITS,
    ) -> None:
        if threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}")
        if delegate not in DELEGATES:
            raise InputError(f"the delegate must be one of {', '.join(DELEGATES)}, not {delegate}")
        self.name = name
        self._shell = shell
        self._threads = threads
        self._delegate: Delegate = delegate
        self._log = log
        self._waits = waits
        self._folder = RemoteFolder(
            shell, self.place.folder, restore=self.place.restore, log=log, stop_s=waits.old_script
        )
        self._phone: Phone | None = None
        self._serial: str | None = None
        self._cores: list[int] | None = None
        self._warnings: list[str] = []
        self._warmup_s: float | None = None
        self._tool: Tool | None = None
        self._pushed: set[str] = set()

    def conditions(self) -> dict[str, Any]:
        """Return the conditions, with clocks, memory, free storage and battery of the phone.

        Raises:
            DeviceError: the phone is not attached, or has no tool that runs models.
        """
        phone, state = self._read_phone()
        cores = self._chosen_cores(phone)
        clocks = {core.number: core.max_mhz for core in phone.cores}
        unusable = [core.number for core in phone.cores if not core.is_usable]
        delegate = "" if self._delegate == "cpu" else f"+{self._delegate}"
        return {
            "processor": f"{phone.name}, {phone.serial}",
            # A phone can have another address the next time, and cores that are switched off.
            "device_identity": f"{self.kind}:{phone.serial or self._shell.where}{delegate}",
            "cores": len(phone.cores),
            "clock_mhz": clocks[cores[-1]],
            "governor": phone.governor,
            "load": phone.load,
            "platform": f"{phone.android}, {phone.abi}",
            "time": now(),
            "runtime": f"{self._find_tool().describe()} on {self._delegate}",
            "threads": self._threads,
            "pinned": cores if phone.can_pin else "not possible here",
            "core_kind": describe(phone.cores, cores),
            "unusable_cores": unusable,
            "clocks_mhz": {str(core): clock for core, clock in clocks.items()},
            "memory_mb": phone.memory_mb,
            "free_mb": state.free_mb,
            "battery_percent": state.battery_percent,
            "battery_c": state.battery_c,
            "thermal_status": state.thermal_status,
            "skin_c": state.skin_c,
            "plugged": state.is_plugged,
            "battery_saver": state.is_saving,
            "warmup_s": self._warmup_s,
            "warnings": self._warned(state, cores),
        }

    def run(
        self,
        models: Sequence[Path],
        plan: MeasurePlan,
        seed: int,  # noqa: ARG002 -- the tool draws its own inputs
        on_session: SessionCounter | None = None,
    ) -> list[Sample]:
        """Return one sample of each of ``models``; see :class:`cars_hw.devices.protocol.Device`.

        ``seed`` is not used: the tool draws its own inputs.

        Raises:
            ConnectionLostError: the connection was lost for longer than ``Waits.reconnect``.
            RunnerError: the tool fails on a model or hangs, or a delegate runs only a part of it.
            DeviceStateError: the phone stays hot, or its battery or storage is too low.
            DeviceError: another failure of the phone.
        """
        for model in models:
            if not model.is_file():
                raise DeviceError(f"{self.name}: there is no model file {model}")
        # Names follow from the content, so that different models have different names.
        digests = {model: hashlib.sha256(model.read_bytes()).hexdigest() for model in dict.fromkeys(models)}
        names = {model: f"m-{digest[:24]}.{self.model_format}" for model, digest in digests.items()}
        taken: list[Sample] = []
        lost = 0
        while len(taken) < len(models):
            before = len(taken)
            try:
                self._prepare(names)
                if self._warmup_s is None:
                    self._warmup_s = self._find_warm_up(models[len(taken)], names, plan)
                steady = replace(plan, warmup_seconds=self._warmup_s)
                for ran in self._block(models, names, before, steady):
                    if ran.number != len(taken):
                        raise ConnectionLostError(f"{self._shell.where} left out a session")
                    taken.append(self._sample(ran, models[ran.number]))
                    if on_session is not None:
                        on_session(len(taken))
                if len(taken) < len(models):
                    raise ConnectionLostError(f"{self._shell.where} left out {len(models) - len(taken)} sessions")
            except ConnectionLostError as error:
                lost = lost + 1 if len(taken) == before else 0
                if lost >= MAX_LOST_CONNECTIONS:
                    raise
                self._wait_for_return(error)
            except RunnerError as error:
                self._disconnect()
                self._require_room(error)
                raise
            except BaseException:
                # The unread output of the script makes the connection unusable.
                self._disconnect()
                raise
        return taken

    def release(self) -> None:
        """Restore the phone and remove the pushed files; if that fails, log it. The next contact does it then."""
        try:
            if not self._folder.is_claimed:
                return
            if isinstance(sys.exception(), KeyboardInterrupt | SystemExit):
                self._log(
                    f"Stopping: restoring the settings of {self._shell.where} and removing the files, for some "
                    "seconds. Ctrl-C again leaves both to the next contact with it"
                )
            if self._phone is None:
                self._read_phone()
            self._folder.leave()
        except DeviceError as error:
            self._log(
                f"{self._shell.where} could not be cleaned up ({error}); the next contact with it, such as cars-hw "
                f"devices, restores its settings and removes {self.place.folder}"
            )
        finally:
            self._folder.give_up()
            self._pushed.clear()
            self._disconnect()

    def _read_phone(self) -> tuple[Phone, PhoneState]:
        """Connect if necessary, and return the phone and its state.

        Raises:
            OtherMachineError: another phone has taken the place of the first.
        """
        connected = self._phone is not None
        if not connected:
            self._shell.open()
        phone, state = self._read()
        if self._serial not in (None, phone.serial):
            self._disconnect()
            raise OtherMachineError(
                f"another machine ({phone.serial}) answers at {self._shell.where} than before ({self._serial}); "
                "connect the first one again",
                remedy="resume",
            )
        self._phone, self._serial = phone, phone.serial
        if not connected:
            self._folder.tidy()
        return phone, state

    def _chosen_cores(self, phone: Phone) -> list[int]:
        """Return the cores to measure on, which stay the same for all sessions of this device."""
        if self._cores is None:
            self._cores = fastest_cores(phone.cores, self._threads, phone.name)
            unusable = [core for core in phone.cores if not core.is_usable]
            if unusable and phone.can_pin:
                numbers = ", ".join(str(core.number) for core in unusable)
                self._log(
                    f"{self._shell.where}: core {numbers} of {len(phone.cores)} cannot be used now (switched off, "
                    f"or closed to the shell); measuring on {describe(phone.cores, self._cores)}"
                )
        return self._cores

    def _warned(self, state: PhoneState, cores: Sequence[int]) -> list[str]:
        """Log what is new about ``state``; return all warnings so far."""
        for text in state.warnings(cores):
            if text not in self._warnings:
                self._warnings.append(text)
                self._log(f"{self._shell.where}: {text}; latencies are those of this state")
        return list(self._warnings)

    def _trouble(self, phone: Phone, state: PhoneState) -> str | None:
        """Return why the phone cannot measure at this moment; None if it can."""
        if state.is_hot:
            return f"is hot ({state.describe()})"
        lost = state.missing(self._chosen_cores(phone)) if phone.can_pin else None
        return None if lost is None else f"has {lost}, on which this measurement runs"

    def _require_room(self, error: RunnerError) -> None:
        """Find out whether a full storage is the reason of ``error``: the output of a runner is kept in a file.

        Raises:
            DeviceStateError: the storage is full.
        """
        try:
            _, state = self._read_phone()
        except DeviceError:
            return
        if state.free_mb is not None and state.free_mb < MIN_FREE_MB:
            raise DeviceStateError(
                f"{self._shell.where} has {state.free_mb:g} MB left in {self.place.parent}, and the output of the "
                "tool cannot be kept; free some storage",
                remedy="resume",
            ) from error

    def _disconnect(self) -> None:
        self._shell.close()
        self._phone = None

    def _prepare(self, names: Mapping[Path, str]) -> None:
        """Connect, check battery and temperature, wait while the phone is hot, and push the missing files."""
        if self._phone is None:
            self._read_phone()
        self._claim()
        state = self._wait_until_ready()
        tool = self._find_tool()
        missing = {model: self._path(name) for model, name in names.items() if self._path(name) not in self._pushed}
        if tool.source is not None and tool.target not in self._pushed:
            missing[tool.source] = tool.target
        size_mb = sum(source.stat().st_size for source in missing) / 2**20
        if state.free_mb is not None and size_mb > state.free_mb:
            raise DeviceStateError(
                f"{self._shell.where} has {state.free_mb:.0f} MB left in {self.place.parent} and the models need "
                f"{size_mb:.0f} MB; "
                "free some storage"
            )
        for source, target in missing.items():
            self._push(source, target, executable=source == tool.source)

    def _wait_until_ready(self) -> PhoneState:
        """Wait while the phone is hot or its cores are switched off; return its state."""
        assert self._phone is not None
        deadline = time.monotonic() + self._waits.cool_down
        warned = False
        while True:
            state = self._read_state()
            state.require_charge(self._shell.where)
            trouble = self._trouble(self._phone, state)
            self._warned(state, self._chosen_cores(self._phone))
            if trouble is None:
                return state
            if time.monotonic() >= deadline:
                help_ = (
                    "let it cool: take a phone out of its case and put it in the shade"
                    if state.is_hot
                    else "unlock it"
                )
                raise DeviceStateError(
                    f"{self._shell.where} still {trouble}, after {self._waits.cool_down:.0f} s; {help_}",
                    remedy="resume",
                )
            if not warned:
                self._log(f"{self._shell.where} {trouble}; waiting for up to {self._waits.cool_down:.0f} s")
                warned = True
                # Some phones switch cores off while their screen is off.
                self._wake()
            time.sleep(self._waits.pause)
            self._claim()

    def _claim(self) -> None:
        if self._folder.claim():
            self._pushed.clear()

    def _path(self, name: str) -> str:
        return f"{self._folder.own}/{name}"

    def _push(self, source: Path, target: str, *, executable: bool = False) -> None:
        self._shell.push(source, target, executable=executable)
        self._pushed.add(target)

    def _find_tool(self) -> Tool:
        """Return the tool, found once."""
        if self._tool is None:
            self._tool = self._look_for_tool()
        return self._tool

    @abstractmethod
    def _look_for_tool(self) -> Tool:
        """Return the tool.

        Raises:
            RunnerError: there is none.
        """

    @abstractmethod
    def _read(self) -> tuple[Phone, PhoneState]:
        """Return properties and state of the machine, in one call."""

    @abstractmethod
    def _read_state(self) -> PhoneState:
        """Return the present state of the machine."""

    def _wake(self) -> None:  # noqa: B027 -- most machines do not sleep
        """Wake the machine."""

    def _block(
        self,
        models: Sequence[Path],
        names: Mapping[Path, str],
        first: int,
        plan: MeasurePlan,
        *,
        each: Sequence[MeasurePlan] | None = None,
    ) -> Iterator[SessionResult]:
        """Yield the result of each session, from that of the model ``first`` on; ``each`` has a plan for each."""
        assert self._phone is not None
        cores = self._chosen_cores(self._phone)
        # The script runs in its own folder, so that paths are relative to it.
        program = list(self._find_tool().command)
        if self._phone.can_pin:
            program = ["taskset", f"{sum(1 << core for core in cores):x}", *program]
        sessions = []
        for number, model in enumerate(models[first:], start=first):
            own = plan if each is None else each[number]
            flags = benchmark_model.flags(names[model], own, self._threads, self._delegate)
            sessions.append(Session(number, shlex.join([*program, *flags])))
        here = self.place.folder
        mark = f"@cars-hw-{secrets.token_hex(4)}"
        text = script(
            sessions,
            mark,
            before=f"{_BEFORE}\n{self.place.change}".replace("HERE", here).replace("MARK", mark),
            after=_AFTER.replace("HERE", here),
            clock_file=f"{CPUS}/cpu{cores[-1]}/cpufreq/scaling_cur_freq",
            cores_file=f"{CPUS}/online",
            each=f"{{ uptime_s > {here}/lock/seen; }} 2>/dev/null",
        )
        target = self._path(f"job-{mark[1:]}.sh")
        with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
            job = Path(folder) / "job.sh"
            job.write_text(f"{self._folder.functions}\n{text}", encoding="utf-8", newline="\n")
            self._push(job, target)
        begun = first
        lines = self._shell.lines(f"sh {target}; rm -f {target}", self._waits.session)
        try:
            for ran in session_results(lines, mark, self._folder.note):
                yield ran
                begun = ran.number + 1
        except ScriptEndedError as error:
            if f"{mark} busy" in error.output:
                raise ConnectionLostError(
                    f"{self._shell.where} is used by another cars-hw, or an earlier script of this one still runs"
                ) from error
            raise ConnectionLostError(f"the script on {self._shell.where} was ended: {error.output}") from error
        except NoOutputError as error:
            self._raise_hang(models[min(begun, len(models) - 1)], error)

    def _find_warm_up(self, model: Path, names: Mapping[Path, str], plan: MeasurePlan) -> float:
        """Return the warm-up in seconds after which the latency of ``model`` no longer falls.

        A core that was idle raises its clock over 10 to 300 ms or more, and every session begins with one that was.
        Sessions with longer and longer warm-ups are compared. A plan without a warm-up has none.
        """
        if plan.warmup_seconds <= 0:
            return 0.0
        tried: list[float] = []
        taken: list[float] = []
        for step in range(0, MAX_DOUBLINGS + 1, 2):
            longer = [plan.warmup_seconds * 2**step, plan.warmup_seconds * 2 ** (step + 1)]
            plans = [replace(plan, warmup_seconds=seconds) for seconds in longer]
            ran = [self._sample(one, model).ms for one in self._block([model, model], names, 0, plan, each=plans)]
            if len(ran) < len(longer):
                raise ConnectionLostError(f"{self._shell.where} left out a session")
            tried, taken = tried + longer, taken + ran
            steady = [
                seconds for place, seconds in enumerate(tried) if (1 - STEADY) * taken[place] <= min(taken[place:])
            ]
            if steady[0] < tried[-1]:
                return steady[0]
        self._log(f"{self._shell.where}: the latency still falls after {tried[-1]:g} s of warm-up, the longest")
        return tried[-1]

    def _raise_hang(self, model: Path, error: ConnectionLostError) -> None:
        """Find out whether the phone is gone or the model hangs: a phone that answers runs a model that hangs.

        Raises:
            RunnerError: the phone answers.
            ConnectionLostError: the phone does not answer.
        """
        self._disconnect()
        try:
            self._read_phone()
            self._shell.call(f"{self._folder.functions}\nstop_script")
        except DeviceError:
            self._disconnect()
            raise error from None
        raise RunnerError(
            f"{self.name}: no end of {model} within {self._waits.session:g} s; a smaller network, or fewer runs, "
            "may fit"
        ) from error

    def _require_cores(self, ran: SessionResult) -> None:
        """Check that the cores were there until the end of the session.

        Raises:
            DeviceStateError: one was switched off: the session ran on another, or did not begin.
        """
        if self._phone is None or not self._phone.can_pin or self._cores is None:
            return
        online = core_list(ran.cores)
        lost = [core for core in self._cores if online is not None and core not in online]
        failed = ran.status != 0 and "affinity" in ran.output
        if lost or failed:
            raise DeviceStateError(
                f"{self._shell.where} has switched off core {', '.join(map(str, lost or self._cores))}, on which "
                "this measurement runs, or closed it to the shell; keep a phone unlocked and its screen on",
                remedy="resume",
            )

    def _sample(self, ran: SessionResult, model: Path) -> Sample:
        self._require_cores(ran)
        if ran.status != 0:
            raise RunnerError(
                f"{self.name}: benchmark_model cannot run {model}: "
                f"{benchmark_model.failure_reason(ran.output, ran.status)}: {last_lines(ran.output)}"
            )
        if unknown := benchmark_model.unknown_flags(ran.output):
            raise RunnerError(
                f"{self.name}: benchmark_model on {model} does not know {', '.join(unknown)}, so that it measures "
                "something else than was asked for; use another build of it",
                remedy="get-runner",
            )
        try:
            timed = benchmark_model.parse(ran.output)
        except RunnerError as error:
            raise RunnerError(
                f"{self.name}: benchmark_model on {model}: {error}: {last_lines(ran.output)}"
            ) from error
        if self._delegate != "cpu" and timed.delegated != "all":
            how = {"part": "takes only a part of", "none": "does not take"}.get(
                timed.delegated or "", "does not report that it takes"
            )
            raise RunnerError(
                f"{self.name}: the {self._delegate} delegate {how} {model}, so the processor runs the rest; that "
                f"is not counted as {self._delegate} latency. Measure without the delegate, or another precision"
            )
        return Sample(round(timed.us / 1e3, 6), now("milliseconds"), ran.load, ran.clock_mhz)

    def _wait_for_return(self, error: ConnectionLostError) -> None:
        """Try to connect again for ``Waits.reconnect``.

        Raises:
            ConnectionLostError: the phone did not answer in that time.
            OtherMachineError: another phone has taken its place.
        """
        self._disconnect()
        self._log(f"{error}; waiting for up to {self._waits.reconnect:.0f} s for it to come back")
        deadline = time.monotonic() + self._waits.reconnect
        while True:
            try:
                self._read_phone()
                return
            except OtherMachineError:
                raise
            except (NoDeviceError, OfflineError, ConnectionLostError) as again:
                self._disconnect()
                if time.monotonic() >= deadline:
                    raise ConnectionLostError(
                        f"{error}, and it did not come back within {self._waits.reconnect:.0f} s; connect it again",
                        remedy="resume",
                    ) from again
                time.sleep(min(self._waits.pause, 1.0))


class OtherMachineError(DeviceError):
    """Another machine has taken the place of the first."""
