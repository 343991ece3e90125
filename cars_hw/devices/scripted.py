"""A device behind a remote shell: ``benchmark_model`` runs TFLite models there, one block of sessions per script.

:class:`ScriptedDevice` has what phones and boards share; a subclass knows the machine.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android import benchmark_model
from cars_hw.devices.android.benchmark_model import Delegate, Timed
from cars_hw.devices.android.clocks import ClockWatch
from cars_hw.devices.android.cores import CPUS, core_list, describe
from cars_hw.devices.android.settings_record import FIXED
from cars_hw.devices.host.conditions import now
from cars_hw.devices.load import Spell
from cars_hw.devices.protocol import ModelFormat, Sample, SessionCounter
from cars_hw.devices.remote import (
    CORE,
    NoOutputError,
    RemoteShell,
    ScriptEndedError,
    Session,
    SessionResult,
    last_lines,
    script,
    session_results,
)
from cars_hw.devices.remote_machine import GONE, WAITS, RemoteMachine, Waits
from cars_hw.devices.session import MAX_DOUBLINGS, STEADY
from cars_hw.errors import (
    ConnectionLostError,
    DeviceError,
    DeviceStateError,
    InputError,
    Remedy,
    RunnerError,
)
from cars_hw.progress import Log

DELEGATES: Final = get_args(Delegate)

FEWEST_RUNS: Final = 5
"""With fewer runs, where the plan asks for so many, the shortest one is less certain: it is logged."""

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


class ScriptedDevice(RemoteMachine):
    """The machine behind ``shell``, with the ``name`` that tables have.

    A session is a fresh process of the tool, pinned to the ``threads`` fastest cores. A delegate that runs only a
    part of a model is an error. After a lost connection the block resumes with the missing sessions.

    Raises:
        InputError: less than one thread, an unknown delegate.
    """

    model_format: ModelFormat = "tflite"
    kind: str
    tool_remedy: Remedy | None = None
    """What provides another tool."""
    functions = ""
    """Shell functions that its sessions need."""
    unpinned = "not possible here"
    """Why sessions are not pinned to cores, where they are not."""

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
        super().__init__(shell, name, threads, log=log, waits=waits)
        if delegate not in DELEGATES:
            raise InputError(f"the delegate must be one of {', '.join(DELEGATES)}, not {delegate}")
        self._delegate: Delegate = delegate
        self._warmups_s: dict[float, float] = {}
        self._warmup_s: float | None = None
        self._clocks = ClockWatch()
        self._is_fixed: bool | None = None
        self._modes: set[bool | None] = set()

    def conditions(self) -> dict[str, Any]:
        """Return the conditions, with clocks, memory, free storage and battery of the phone.

        Raises:
            DeviceError: the phone is not attached, or has no tool that runs models.
        """
        phone, state = self._reach()
        cores = self._chosen_cores(phone)
        self._warned(state, cores)
        clocks = {core.number: core.max_mhz for core in phone.cores}
        unusable = [core.number for core in phone.cores if not core.is_usable]
        delegate = "" if self._delegate == "cpu" else f"+{self._delegate}"
        return {
            "processor": f"{phone.name}, {phone.serial}",
            # A phone can have another address the next time, and cores that are switched off.
            "device_identity": f"{self.kind}:{phone.serial or self._shell.where}{delegate}",
            "cores": len(phone.cores),
            # Sessions that are not pinned run on any core.
            "clock_mhz": clocks[cores[-1]] if phone.can_pin else None,
            "governor": phone.governor,
            "load": phone.load,
            "platform": f"{phone.android}, {phone.abi}",
            "time": now(),
            "runtime": f"{self._find_tool().describe()} on {self._delegate}",
            "threads": self._threads,
            "pinned": cores if phone.can_pin else self.unpinned,
            "core_kind": describe(phone.cores, cores) if phone.can_pin else None,
            "unusable_cores": unusable,
            "clocks_mhz": {str(core): clock for core, clock in clocks.items()},
            "memory_mb": phone.memory_mb,
            "free_mb": state.free_mb,
            "battery_percent": state.battery_percent,
            "battery_c": state.battery_c,
            "thermal_status": state.thermal_status,
            "skin_c": state.skin_c,
            "processor_c": state.processor_c,
            "cooling": list(state.cooling),
            "plugged": state.is_plugged,
            "battery_saver": state.is_saving,
            "doze": state.is_dozing,
            **self.learnt(),
        }

    def learnt(self) -> dict[str, Any]:
        """Return what it has learnt while it measured; see :func:`cars_hw.devices.protocol.learnt_by`."""
        return {
            "warmest_c": dict(self._warmest_c),
            "fixed_performance": self._is_fixed,
            "clock_reached_mhz": self._clocks.reached_mhz,
            "warmup_s": self._warmup_s,
            "warnings": list(self.warnings),
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
        names = self._named(models)
        taken: list[Sample] = []
        lost = 0
        while len(taken) < len(models):
            before = len(taken)
            try:
                self._prepare(names)
                if plan.warmup_seconds not in self._warmups_s:
                    found = self._find_warm_up(models[len(taken)], names, plan)
                    self._warmups_s[plan.warmup_seconds] = found
                self._warmup_s = self._warmups_s[plan.warmup_seconds]
                steady = replace(plan, warmup_seconds=self._warmup_s)
                for ran in self._block(models, names, before, steady):
                    if ran.number != len(taken):
                        raise ConnectionLostError(f"{self._shell.where} left out a session")
                    taken.append(self._sample(ran, models[ran.number], steady))
                    if on_session is not None:
                        on_session(len(taken))
                self._warn_of_clock()
                if len(taken) < len(models):
                    raise ConnectionLostError(f"{self._shell.where} left out {len(models) - len(taken)} sessions")
            except GONE as error:
                lost = lost + 1 if len(taken) == before else 0
                if lost >= MAX_LOST_CONNECTIONS or (
                    self._serial is None and not isinstance(error, ConnectionLostError)
                ):
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

    def load(self, model: Path, sessions: int, seconds: float, *, rested: bool) -> list[Spell]:
        """Run ``sessions`` sessions of ``model`` one directly after the other; see
        :class:`cars_hw.devices.load.LoadDevice`.

        Raises:
            ConnectionLostError: the connection was lost: the load was interrupted.
            RunnerError: the tool fails on the model or hangs, or a delegate runs only a part of it.
            DeviceStateError: the phone stays hot, or its battery or storage is too low.
            DeviceError: another failure of the phone.
        """
        names = self._named([model])
        plan = MeasurePlan(
            warmup_seconds=0.0, warmup_runs=1, min_runs=1, min_seconds=seconds, max_seconds=10 * seconds
        )
        try:
            state = self._prepare(names, rested=rested)
            spells = []
            for ran in self._block([model] * sessions, names, 0, plan):
                timed = self._timed(ran, model)
                quantiles = tuple((share, us / 1e3) for share, us in timed.quantiles)
                spells.append(
                    Spell(
                        quantiles,
                        timed.runs,
                        ran.clock_mhz,
                        timed.has_percentiles,
                        state.temperatures(),
                        state.thermal_status,
                    )
                )
        except GONE as error:
            self._disconnect()
            if self._serial is None or isinstance(error, ConnectionLostError):
                raise
            raise ConnectionLostError(str(error), remedy="resume") from error
        except RunnerError as error:
            self._disconnect()
            self._require_room(error)
            raise
        except BaseException:
            # The unread output of the script makes the connection unusable.
            self._disconnect()
            raise
        if len(spells) < sessions:
            self._disconnect()
            raise ConnectionLostError(f"{self._shell.where} left out {sessions - len(spells)} sessions of a load")
        return spells

    def _named(self, models: Sequence[Path]) -> dict[Path, str]:
        """Return the name of each of ``models`` on the machine.

        Raises:
            DeviceError: a file is missing.
        """
        for model in models:
            if not model.is_file():
                raise DeviceError(f"{self.name}: there is no model file {model}")
        # Names follow from the content, so that different models have different names.
        digests = {model: hashlib.sha256(model.read_bytes()).hexdigest() for model in dict.fromkeys(models)}
        return {model: f"m-{digest[:24]}.{self.model_format}" for model, digest in digests.items()}

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
        sessions = []
        for number, model in enumerate(models[first:], start=first):
            own = plan if each is None else each[number]
            sessions.append(Session(number, shlex.join(self._words(names[model], own))))
        yield from self._sessions(sessions, lambda number: str(models[min(number, len(models) - 1)]))

    def _sessions(
        self,
        sessions: Sequence[Session],
        name: Callable[[int], str],
        *,
        functions: str = "",
        after: str = "",
        longer_s: float = 0.0,
    ) -> Iterator[SessionResult]:
        """Yield the result of each of ``sessions``; ``name`` has for the number of a session what it runs.

        ``functions`` are shell functions that they need, ``after`` ends what a stopped script has left running, and
        a session may take ``longer_s`` seconds more than others.
        """
        assert self._phone is not None
        cores = self._chosen_cores(self._phone)
        here = self.place.folder
        mark = f"@cars-hw-{secrets.token_hex(4)}"
        text = script(
            sessions,
            mark,
            before=f"{_BEFORE}\n{self.functions}\n{functions}\n{self.place.change}".replace("HERE", here).replace(
                "MARK", mark
            ),
            after=f"{after}\n{_AFTER}".strip().replace("HERE", here),
            clock_file=f"{CPUS}/cpu{cores[-1] if self._phone.can_pin else CORE}/cpufreq/scaling_cur_freq",
            cores_file=f"{CPUS}/online",
            each=f"{{ uptime_s 1<> {here}/lock/seen; }} 2>/dev/null",
        )
        target = self._path(f"job-{mark[1:]}.sh")
        with tempfile.TemporaryDirectory(prefix="cars-hw-") as folder:
            job = Path(folder) / "job.sh"
            job.write_text(f"{self._folder.functions}\n{text}", encoding="utf-8", newline="\n")
            self._push(job, target)
        begun = sessions[0].number if sessions else 0
        lines = self._shell.lines(f"sh {target}; rm -f {target}", self._waits.session + longer_s)
        self._is_fixed = False if self.place.changes_settings else None
        try:
            for ran in session_results(lines, mark, self._folder.note, self._changed):
                self._keep_mode()
                yield self._placed(ran)
                begun = ran.number + 1
        except ScriptEndedError as error:
            if f"{mark} busy" in error.output:
                raise ConnectionLostError(
                    f"{self._shell.where} is used by another cars-hw, or an earlier script of this one still runs"
                ) from error
            raise ConnectionLostError(f"the script on {self._shell.where} was ended: {error.output}") from error
        except NoOutputError as error:
            self._raise_hang(name(begun), error)

    def _words(self, name: str, plan: MeasurePlan) -> list[str]:
        """Return the words that run a session of the model file ``name`` in the folder of the script."""
        assert self._phone is not None
        program = list(self._find_tool().command)
        if self._phone.can_pin:
            mask = sum(1 << core for core in self._chosen_cores(self._phone))
            program = ["taskset", f"{mask:x}", *program]
        return [*program, *benchmark_model.flags(name, plan, self._threads, self._delegate)]

    def _changed(self, fact: str) -> None:
        """Keep what a script has changed."""
        self._is_fixed = fact == FIXED

    def _keep_mode(self) -> None:
        """Warn if sessions with and without the fixed-performance mode mix: their clocks differ."""
        self._modes.add(self._is_fixed)
        if {True, False} <= self._modes:
            self._warn("the fixed-performance mode was on for a part of the sessions only")

    def _warn_of_clock(self) -> None:
        """Warn if the clock stayed below its maximum. The fixed-performance mode is to do that."""
        if self._is_fixed or self._phone is None or self._cores is None:
            return
        core = next(one for one in self._phone.cores if one.number == self._cores[-1])
        if self._phone.can_pin and (text := self._clocks.shortfall(core.number, core.max_mhz)):
            self._warn(text)

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
            sessions = self._block([model, model], names, 0, plan, each=plans)
            ran = [self._sample(one, model, plan).ms for one in sessions]
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

    def _raise_hang(self, model: str, error: ConnectionLostError) -> None:
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
            DeviceStateError: one was switched off or closed: the session ran on others, or did not begin.
        """
        if self._phone is None or self._cores is None:
            return
        if not self._phone.can_pin:
            self._warn_of_lost_cores(core_list(ran.cores))
            return
        known = [core_list(ran.cores), core_list(ran.allowed)]
        lost = [core for core in self._cores if any(usable is not None and core not in usable for usable in known)]
        failed = ran.status != 0 and "affinity" in ran.output
        if lost or failed:
            raise DeviceStateError(
                f"{self._shell.where} has switched off core {', '.join(map(str, lost or self._cores))}, on which "
                "this measurement runs, or closed it to the shell; keep a phone unlocked and its screen on",
                remedy="resume",
            )

    def _warn_of_lost_cores(self, online: frozenset[int] | None) -> None:
        """Warn of cores that were there before: what is not pinned goes on on the others, maybe on slower ones."""
        assert self._phone is not None
        lost = [
            core.number for core in self._phone.cores if core.is_online and online and core.number not in online
        ]
        if lost:
            self._warn(f"core {', '.join(map(str, lost))} was switched off while models ran, which are not pinned")

    def _placed(self, ran: SessionResult) -> SessionResult:
        """Return ``ran`` with the clock of where it ran, which is checked.

        Raises:
            DeviceStateError: it did not run where it should.
        """
        return ran

    def _timed(self, ran: SessionResult, model: Path) -> Timed:
        """Return what the tool reports of a session.

        Raises:
            RunnerError: it failed, or has measured something else than was asked for.
            DeviceStateError: a core was switched off, or the phone did not run it as it should.
        """
        self._require_cores(ran)
        self._clocks.add(ran.clock_mhz)
        if ran.status != 0:
            raise RunnerError(
                f"{self.name}: {self._find_tool().name} cannot run {model}: "
                f"{benchmark_model.failure_reason(ran.output, ran.status)}: {last_lines(ran.output)}"
            )
        if unknown := benchmark_model.unknown_flags(ran.output):
            raise RunnerError(
                f"{self.name}: {self._find_tool().name} on {model} does not know {', '.join(unknown)}, so that it "
                "measures something else than was asked for; use another build of it",
                remedy=self.tool_remedy,
            )
        try:
            timed = benchmark_model.parse(ran.output)
        except RunnerError as error:
            raise RunnerError(
                f"{self.name}: {self._find_tool().name} on {model}: {error}: {last_lines(ran.output)}"
            ) from error
        if self._delegate != "cpu" and timed.delegated != "all":
            how = {"part": "takes only a part of", "none": "does not take"}.get(
                timed.delegated or "", "does not report that it takes"
            )
            raise RunnerError(
                f"{self.name}: the {self._delegate} delegate {how} {model}, so the processor runs the rest; that "
                f"is not counted as {self._delegate} latency. Measure without the delegate, or another precision"
            )
        return timed

    def _sample(self, ran: SessionResult, model: Path, plan: MeasurePlan) -> Sample:
        timed = self._timed(ran, model)
        if timed.runs < min(plan.min_runs, FEWEST_RUNS):
            self._folder.note(
                f"some sessions have fewer than {FEWEST_RUNS} runs: {self._find_tool().name} ends the session of a "
                f"slow model after {plan.max_seconds:g} s"
            )
        return Sample(round(timed.us / 1e3, 6), now("milliseconds"), ran.load, ran.clock_mhz)
