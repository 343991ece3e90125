"""The care of a machine behind a remote shell: connection, lock, files, state, and waiting until it is ready.

:class:`RemoteMachine` is the base of :class:`cars_hw.devices.scripted.ScriptedDevice`, which runs sessions.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from cars_hw.devices.android.cores import describe, fastest_cores
from cars_hw.devices.android.phone import Phone, PhoneState
from cars_hw.devices.remote import RemoteShell
from cars_hw.devices.remote_folder import RemoteFolder
from cars_hw.errors import (
    ConnectionLostError,
    DeviceError,
    DeviceStateError,
    InputError,
    NoDeviceError,
    OfflineError,
    RunnerError,
    UsbHeldError,
)
from cars_hw.progress import Log

GONE: Final = (ConnectionLostError, NoDeviceError, OfflineError)
"""What a machine that was there before fails with while it is away: it may come back."""

MIN_FREE_MB: Final = 1.0
"""With less room in MB the output of the tool may be cut off."""


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
    restores the phone. ``state`` is how long a good state of the phone is taken to last: reading it costs time.
    """

    cool_down: float = 600.0
    reconnect: float = 60.0
    session: float = 120.0
    pause: float = 5.0
    old_script: int = 10
    state: float = 0.0


WAITS: Final = Waits(state=5.0)


@dataclass(frozen=True)
class Place:
    """Where a device works on its machine, and what it changes there.

    Attributes:
        parent: the folder of its folder.
        restore: shell text with the function ``restore``; see :class:`cars_hw.devices.remote_folder.RemoteFolder`.
        change: shell text that records and changes settings before the sessions of a script; empty for none.
    """

    parent: str
    restore: str
    change: str

    @property
    def changes_settings(self) -> bool:
        """Whether settings of the machine are changed."""
        return bool(self.change)

    @property
    def folder(self) -> str:
        """The folder of all files of cars-hw; it is removed at the end."""
        return f"{self.parent}/cars-hw"


class RemoteMachine(ABC):
    """The machine behind ``shell``, with the ``name`` that tables have, and its ``threads`` fastest cores.

    Raises:
        InputError: less than one thread.
    """

    place: Place
    contact = ""
    """Which command does nothing but contact the machine, after a comma."""
    cores_help = "switch it on, or open it to the shell"
    """What brings back a core."""

    def __init__(self, shell: RemoteShell, name: str, threads: int, *, log: Log, waits: Waits) -> None:
        if threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}")
        self.name = name
        self._shell = shell
        self._threads = threads
        self._log = log
        self._waits = waits
        self._folder = RemoteFolder(
            shell, self.place.folder, restore=self.place.restore, log=log, stop_s=waits.old_script
        )
        self._phone: Phone | None = None
        self._serial: str | None = None
        self._cores: list[int] | None = None
        self._warnings: list[str] = []
        self._warmest_c: dict[str, float] = {}
        self._good: tuple[float, PhoneState] | None = None
        self._woken = False
        self._waited_for_cooling = False
        self._tool: Tool | None = None
        self._pushed: set[str] = set()

    @property
    def warnings(self) -> Sequence[str]:
        """Why latencies are not those of the machine at its best, as far as it has told; each in a few words."""
        return tuple(self._warnings)

    def release(self) -> None:
        """Restore the phone and remove the pushed files; if that fails, log it. The next contact does it then."""
        try:
            if not self._folder.is_claimed:
                return
            if isinstance(sys.exception(), KeyboardInterrupt | SystemExit):
                what = (
                    f"restoring the settings of {self._shell.where} and removing the files"
                    if self.place.changes_settings
                    else f"removing the files from {self._shell.where}"
                )
                self._log(
                    f"Stopping: {what}, for some seconds. Ctrl-C again leaves this to the next contact with it"
                )
            self._leave()
        except DeviceError as error:
            restores = "restores its settings and " if self.place.changes_settings else ""
            self._log(
                f"{self._shell.where} could not be cleaned up ({error}); the next contact with it{self.contact} "
                f"{restores}removes {self.place.folder}"
            )
        finally:
            self._folder.give_up()
            self._pushed.clear()
            self._disconnect()

    def _leave(self) -> None:
        """Restore and remove what is there. A connection that was open may be dead after hours without a word."""
        if self._phone is not None:
            try:
                self._folder.leave()
            except GONE:
                self._disconnect()
            else:
                return
        self._read_phone()
        self._folder.leave()

    def _reach(self) -> tuple[Phone, PhoneState]:
        """Return the phone and its state; wait for one that was there before and is away.

        Raises:
            DeviceError: it does not come back, or was never there.
        """
        try:
            return self._read_phone()
        except GONE as error:
            if self._serial is None:
                raise
            return self._wait_for_return(error)

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

    def _warned(self, state: PhoneState, cores: Sequence[int]) -> None:
        """Log what is new about ``state``."""
        for text in state.warnings(cores):
            self._warn(text)

    def _warn(self, text: str) -> None:
        """Log that latencies are not those of the machine at its best, unless it is known."""
        if text not in self._warnings:
            self._warnings.append(text)
            self._log(f"{self._shell.where}: {text}; latencies are those of this state")

    def _trouble(self, phone: Phone, state: PhoneState) -> str | None:
        """Return why the phone cannot measure at this moment; None if it can."""
        if state.is_hot:
            return f"is hot ({state.describe()})"
        lost = state.missing(self._chosen_cores(phone)) if phone.can_pin else None
        return None if lost is None else f"has {lost}, on which this measurement runs"

    def _slowness(self, state: PhoneState) -> str | None:
        """Return what slows the phone down that may pass, and has not been waited for; None if nothing does."""
        if state.is_dozing and not self._woken:
            return "is in doze, the idle mode of Android"
        if state.cooling and not self._waited_for_cooling:
            return f"lowers the clock of its processor ({', '.join(state.cooling)}; {state.describe()})"
        return None

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
        self._good = None

    def _prepare(self, names: Mapping[Path, str], *, rested: bool = True) -> PhoneState:
        """Connect, check the battery, wait while the phone is hot unless not ``rested``, and push missing files.

        Return the state before.
        """
        state = self._ready_state(rested=rested)
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
        return state

    def _ready_state(self, *, rested: bool) -> PhoneState:
        """Return a state in which can be measured, with the lock held: that of a moment ago, or a new one.

        A script checks the lock by itself, and renews it.
        """
        if self._good is not None and rested and time.monotonic() - self._good[0] < self._waits.state:
            return self._good[1]
        if self._phone is None:
            self._read_phone()
        self._claim()
        state = self._wait_until_ready() if rested else self._look()
        self._good = (time.monotonic(), state) if rested else None
        return state

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
            slowness = None if trouble else self._slowness(state)
            if trouble is None and (slowness is None or time.monotonic() >= deadline):
                self._accept(state)
                return state
            if time.monotonic() >= deadline:
                cool = "let it cool: take a phone out of its case and put it in the shade"
                raise DeviceStateError(
                    f"{self._shell.where} still {trouble}, after {self._waits.cool_down:.0f} s; "
                    f"{cool if state.is_hot else self.cores_help}",
                    remedy="resume",
                )
            if not warned:
                why = trouble or slowness
                self._log(f"{self._shell.where} {why}; waiting for up to {self._waits.cool_down:.0f} s")
                warned = True
                # Some phones switch cores off while their screen is off.
                self._wake()
                self._woken = True
            time.sleep(self._waits.pause)
            self._claim()

    def _look(self) -> PhoneState:
        """Check the battery, keep the temperatures, and return the state: load is to make the phone hot."""
        assert self._phone is not None
        state = self._read_state()
        state.require_charge(self._shell.where)
        # A clock that heat limits is what is measured. A limit that is there without load is found before it.
        self._warned(state._replace(limits_mhz={}), self._chosen_cores(self._phone))
        self._keep_temperatures(state)
        return state

    def _keep_temperatures(self, state: PhoneState) -> None:
        for part, value in state.temperatures().items():
            self._warmest_c[part] = max(value, self._warmest_c.get(part, value))

    def _accept(self, state: PhoneState) -> None:
        """Keep the temperatures of ``state``, in which is measured; warn of what has not passed meanwhile."""
        self._keep_temperatures(state)
        if state.is_dozing:
            self._warn("the phone is in doze, the idle mode of Android, and does not wake")
        if state.cooling:
            self._waited_for_cooling = True
            self._warn(f"the phone lowers the clock of its processor against heat ({', '.join(state.cooling)})")

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

    def _wait_for_return(self, error: DeviceError) -> tuple[Phone, PhoneState]:
        """Try to connect again for ``Waits.reconnect``; return the phone and its state.

        Raises:
            ConnectionLostError: the phone did not answer in that time.
            UsbHeldError: another program still holds it after that time.
            OtherMachineError: another phone has taken its place.
        """
        self._disconnect()
        self._log(f"{error}; waiting for up to {self._waits.reconnect:.0f} s for it to come back")
        deadline = time.monotonic() + self._waits.reconnect
        while True:
            try:
                return self._read_phone()
            # A phone that was plugged in this moment may not be opened before the system has set its rights.
            except (*GONE, UsbHeldError) as again:
                self._disconnect()
                if time.monotonic() >= deadline:
                    if isinstance(again, UsbHeldError):
                        raise
                    raise ConnectionLostError(
                        f"{again} (it did not come back within {self._waits.reconnect:.0f} s)",
                        remedy="resume",
                    ) from again
                time.sleep(min(self._waits.pause, 1.0))


class OtherMachineError(DeviceError):
    """Another machine has taken the place of the first."""
