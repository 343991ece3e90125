"""What is behind the simulated connection: a folder, a shell with an Android phone's commands, and the runner."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simulated_phone.adbd import hangup

if TYPE_CHECKING:
    from simulated_phone.adbd import _Stream

HERE = Path(__file__).parent
LOCAL = "/data/local/tmp"
CPUS = "/sys/devices/system/cpu"
THERMAL = "/sys/class/thermal"

WARNING = 'WARNING: linker: Warning: unable to normalize "$ORIGIN/../lib" (ignoring)'

GETPROP = 'cat "$PHONE/props"'
DUMPSYS = 'cat "$PHONE/dumpsys-$1" 2>/dev/null || echo "Can\'t find service: $1"'
SETTINGS = """
echo "settings $*" >> "$PHONE/log"
file="$PHONE/setting-$2-$3"
if [ -f "$PHONE/deny-settings" ] && [ "$1" != get ]; then
  echo "java.lang.SecurityException: Permission denial: writing to settings requires:$2"
  exit 255
fi
case "$1" in
  get)
    [ -f "$PHONE/settings-say" ] && { cat "$PHONE/settings-say"; exit; }
    cat "$file" 2>/dev/null || echo null
    ;;
  put) echo "$4" > "$file" ;;
  delete) rm -f "$file"; echo "Deleted 1 rows" ;;
esac
"""
SVC = """
echo "svc $*" >> "$PHONE/log"
if [ -f "$PHONE/deny-settings" ]; then echo Killed; exit 137; fi
[ "$1 $2 $3" = "power stayon true" ] && echo 7 > "$PHONE/setting-global-stay_on_while_plugged_in"
"""
CMD = """
echo "cmd $*" >> "$PHONE/log"
[ -f "$PHONE/no-fixed-mode" ] && { echo "Unknown command"; exit 255; }
[ "$1 $2" = "power set-fixed-performance-mode-enabled" ] && echo "$3" > "$PHONE/fixed-mode"
"""
INPUT = """
echo "input $*" >> "$PHONE/log"
[ -f "$PHONE/sleeps-on" ] || echo ACTIVE > "$PHONE/dumpsys-deviceidle"
"""
DF = """
echo "Filesystem      1K-blocks    Used Available Use% Mounted on"
echo "/dev/block/dm-5 111111111 1111111 $(cat "$PHONE/free-kb")  1% /data"
"""

PM = """
echo "pm $*" >> "$PHONE/log"
[ "$1 $2" = "path org.tensorflow.lite.benchmark" ] && [ -d "$PHONE/app" ] && echo "package:$PHONE/app/base.apk"
"""
LOG = """
[ -f "$PHONE/log-off" ] && exit
echo "$(date '+%m-%d %H:%M:%S').000 $$ $$ I $2 : $3" >> "$PHONE/logcat"
"""
LOGCAT = """
echo "logcat $*" >> "$PHONE/log"
echo "--------- beginning of main"
[ -f "$PHONE/log-off" ] && exec sleep 100
if [ -f "$PHONE/log-overflows" ]; then
  # A program of its own would outlive this one.
  for look in 1 2 3 4 5; do cat "$PHONE/logcat"; sleep 0.1; done
  echo "read: unexpected EOF!"
  exit 1
fi
exec tail -n +1 -f "$PHONE/logcat"
"""
AM = """
echo "am $*" >> "$PHONE/log"
kill -9 -- "-$(cat "$PHONE/app-pid" 2>/dev/null)" 2>/dev/null
rm -f "$PHONE/app-pid"
[ "$1" = start ] || exit 0
echo "Starting: Intent { cmp=org.tensorflow.lite.benchmark/.BenchmarkModelActivity (has extras) }"
if [ ! -f "$PHONE/app/may-start" ]; then
  echo "Error type 3"
  echo "Error: Activity class {org.tensorflow.lite.benchmark/org.tensorflow.lite.benchmark.BenchmarkModelActivity} \
does not exist."
  exit 1
fi
for args; do :; done
on=
[ -f "$PHONE/app-core" ] && on="taskset -c $(cat "$PHONE/app-core")"
[ -f "$PHONE/app-stays-out" ] || setsid $on "$PHONE/app/run" "$args" </dev/null >/dev/null 2>&1 &
"""
APP = """#!/bin/sh
PATH=/usr/bin:/bin
echo $$ > "$PHONE/app-pid"
say() {
  while IFS= read -r line; do
    echo "$(date '+%m-%d %H:%M:%S').000 $1 $1 $2 $3: $line" >> "$PHONE/logcat"
  done
}
sleep 0.05
echo "Running TensorFlow Lite benchmark with args: $1" | say $$ I tflite_BenchmarkModelActivity
[ -f "$PHONE/app-is-killed" ] && kill -9 $$
"$PHONE/app/runner" $1 > "$PHONE/app/output" 2>&1
status=$?
# Another program runs models, too.
sed 's/[0-9][0-9]*/7/g' "$PHONE/app/output" | say 99999 I "tflite  "
sleep 0.15
if [ $status = 0 ]; then level=I; else level=E; fi
say $$ $level "tflite  " < "$PHONE/app/output"
exec sleep 100
"""

# Refuses as Linux does, and silently runs on fewer cores than it was asked for if some of them are open.
TASKSET = """
open=$((0x$1 & 0x$(cat "$PHONE/open-cores")))
if [ $open = 0 ]; then echo "taskset: failed to set pid $$'s affinity: Invalid argument"; exit 1; fi
shift
exec taskset $(printf %x $open) "$@"
"""

BASIC = (
    "cat",
    "chmod",
    "date",
    "kill",
    "ls",
    "mkdir",
    "mv",
    "printf",
    "rm",
    "rmdir",
    "sleep",
    "sync",
    "touch",
    "wc",
)
TOOLS = (*BASIC, "fsync", "md5sum", "sha1sum", "sha256sum", "taskset")
"""The programs of Android 8 and later that the shell's commands and the tests use, all of them toybox."""


@dataclass(frozen=True)
class System:
    """What the system of a phone is like.

    ``terminal`` is whether the shell runs in a terminal of 80 columns, as with every adb-shell; ``without`` are the
    programs that it lacks; ``warns`` is whether its linker warns on standard output before every program's own.
    """

    terminal: bool = True
    without: tuple[str, ...] = ()
    warns: bool = False


MODERN = System()


class Phone:
    """A phone in ``folder``; its state can be changed while it runs.

    ``slower`` makes its runner take so many times as long as it does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        serial: str = "SIM0001",
        model: str = "Simulated One",
        slower: float = 1.0,
        system: System = MODERN,
    ) -> None:
        self.folder = folder
        self.props = {
            "ro.product.manufacturer": "Simulated",
            "ro.product.model": model,
            "ro.product.cpu.abi": "arm64-v8a",
            "ro.soc.model": "SIM-9000",
            "ro.build.version.release": "14",
            "ro.build.version.sdk": "34",
            "ro.serialno": serial,
        }
        self.fills_up = False
        """Whether the storage is full from the moment on at which a script has been copied."""
        self.moved: dict[str, Path] = {}
        """Further paths of the phone, and where they are here."""
        self._slower = slower
        self._system = system
        self._shells: dict[int, subprocess.Popen[bytes]] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._began: float | None = None
        self._starting = threading.Lock()
        self._make()

    @property
    def tmp(self) -> Path:
        """The folder that the phone calls /data/local/tmp."""
        return self.folder / "tmp"

    def battery(self, level: int = 80, tenths: int = 270, *, present: bool = True, usb: bool = True) -> None:
        """Set the battery's charge in percent and its temperature in tenths of a degree."""
        self._write(
            "dumpsys-battery",
            f"Current Battery Service state:\n  AC powered: false\n  USB powered: {str(usb).lower()}\n"
            f"  Wireless powered: false\n  status: 2\n"
            f"  present: {str(present).lower()}\n  level: {level}\n  scale: 100\n  voltage: 4236\n"
            f"  temperature: {tenths}\n  technology: Li-ion\n",
        )

    def thermal(self, status: int = 0, skin: float | None = None) -> None:
        """Set how far the phone slows itself down, and the temperature of its case; None is no such sensor."""
        case = "" if skin is None else f"\tTemperature{{mValue={skin}, mType=3, mName=skin, mStatus=0}}\n"
        self._write(
            "dumpsys-thermalservice",
            f"IsStatusOverride: false\nThermalEventListeners:\n\tcallbacks: 1\nThermal Status: {status}\n"
            "Cached temperatures:\n\tTemperature{mValue=25.6, mType=0, mName=AP, mStatus=0}\n"
            "HAL Ready: true\nCurrent temperatures from HAL:\n"
            f"\tTemperature{{mValue=25.6, mType=0, mName=AP, mStatus=0}}\n{case}",
        )

    def no_thermal_service(self) -> None:
        """Take the thermal service away, as before Android 10."""
        (self.folder / "dumpsys-thermalservice").unlink()

    def zones(self, **millidegrees: int) -> None:
        """Set the thermal zones of Linux: the type of each, and its temperature as Linux writes it."""
        for number, (kind, value) in enumerate(millidegrees.items()):
            self._write(f"heat/thermal_zone{number}/type", f"{kind}\n")
            self._write(f"heat/thermal_zone{number}/temp", f"{value}\n")

    def cool(self, level: int, name: str = "thermal-cpufreq-0") -> None:
        """Set the level of a cooling device of Linux; above 0 it is at work."""
        self._write("heat/cooling_device0/type", f"{name}\n")
        self._write("heat/cooling_device0/cur_state", f"{level}\n")

    def doze(self, *, wakes: bool = True) -> None:
        """Put it in doze, from which it wakes by a key, or does not."""
        self._write("dumpsys-deviceidle", "IDLE\n")
        self._switch("sleeps-on", not wakes)

    def no_fixed_mode(self) -> None:
        """Take the fixed-performance mode away, as before Android 11."""
        self._switch("no-fixed-mode", True)

    def runs_at(self, megahertz: int, core: int | None = None) -> None:
        """Set the present clock of a core, or of every one."""
        for number, (folder, _) in self._clocks.items():
            if core in (None, number):
                (folder / "scaling_cur_freq").write_text(f"{megahertz * 1000}\n")

    def storage(self, free_kb: int) -> None:
        """Set how much room there is; with none, no file can be written, and folders still can be made.

        What runs at that moment has no room either.
        """
        self._write("free-kb", str(free_kb))
        limit = 0 if free_kb == 0 else resource.RLIM_INFINITY
        for process in self._running():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(process, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def open_cores(self, cores: Iterable[int]) -> None:
        """Let what the shell starts run on these cores only, as a cpuset does."""
        found = sorted(cores)
        self._write("open-cores", f"{sum(1 << core for core in found):x}\n")
        self._write("shell-status", f"Name:\tsh\nCpus_allowed_list:\t{','.join(map(str, found))}\n")
        if not (self.folder / "bin" / "taskset").is_symlink():
            return
        (self.folder / "bin" / "taskset").unlink()
        self._command("taskset", TASKSET)

    def restart(self) -> None:
        """Switch it off without warning, and on again: nothing runs, and the fixed-performance mode is off."""
        self.kill_shells()
        if (app := self.app_pid()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(app, signal.SIGKILL)
            (self.folder / "app-pid").unlink()
        (self.folder / "fixed-mode").unlink(missing_ok=True)
        self._began = time.monotonic()
        self._write("boot-id", f"{self._began}\n")

    def deny_settings(self, denied: bool = True) -> None:
        """Let the shell change no setting, as on phones of makers that ask for a switch of their own."""
        self._switch("deny-settings", denied)

    def answer_settings(self, text: str | None) -> None:
        """Let ``settings get`` print ``text``; None is the value."""
        (self.folder / "settings-say").unlink(missing_ok=True)
        if text is not None:
            self._write("settings-say", text)

    def switch_on(self, cores: Iterable[int]) -> None:
        """Switch these cores on and all others off, which takes their clocks away."""
        on = set(cores)
        self._write("cpus/online", ",".join(map(str, sorted(on))))
        for core, (folder, clocks) in self._clocks.items():
            if core not in on and folder.exists():
                folder.rename(clocks)
            elif core in on and clocks.exists():
                clocks.rename(folder)

    def limit_clocks(self, megahertz: int) -> None:
        """Limit the clock of every core, as for heat or by the maker's own power saving."""
        for folder, _ in self._clocks.values():
            (folder / "scaling_max_freq").write_text(f"{megahertz * 1000}\n")

    def setting(self, name: str) -> str | None:
        """Return a global setting, None where it is not set."""
        path = self.folder / f"setting-global-{name}"
        return path.read_text().strip() if path.exists() else None

    def set(self, name: str, value: str | None) -> None:
        """Set a global setting, as its owner does."""
        path = self.folder / f"setting-global-{name}"
        path.unlink(missing_ok=True)
        if value is not None:
            path.write_text(f"{value}\n")

    def log(self) -> list[str]:
        """Return what the phone's own commands were asked."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def install(self, script: str | None = None) -> Path:
        """Put a benchmark_model where people put it: the real runner, or a shell script."""
        target = self.tmp / "benchmark_model"
        target.write_text(self.runner() if script is None else f"#!/bin/sh\n{script}\n")
        target.chmod(0o755)
        return target

    def install_app(self, script: str | None = None) -> None:
        """Install the app of benchmark_model: its activity runs the real runner, or a shell script."""
        folder = self.folder / "app"
        folder.mkdir(exist_ok=True)
        (folder / "base.apk").write_bytes(b"PK")
        (folder / "may-start").touch()
        for name, text in (("run", APP), ("runner", self.runner() if script is None else f"#!/bin/sh\n{script}\n")):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def app_pid(self) -> int | None:
        """Return the process of the app; None if it does not run."""
        path = self.folder / "app-pid"
        return int(path.read_text()) if path.exists() else None

    def runner(self) -> str:
        """Return the runner as a program, which asks a server that has LiteRT loaded."""
        client = (HERE / "client.py").read_text()
        return f"#!{sys.executable} -IS\nFOLDER = {str(self.folder)!r}\n{client}"

    def local(self, name: str) -> Path:
        """Return the file that the phone calls ``name``."""
        return Path(self._mapped(name))

    def store(self, name: str, data: bytes, mode: int) -> str | None:
        """Write a file that was sent; return what is wrong, if anything."""
        if len(data) > self.room():
            return "couldn't write file: No space left on device"
        path = self.local(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._mapped(data.decode()).encode() if name.endswith(".sh") else data)
        except PermissionError:
            return "couldn't create file: Permission denied"
        path.chmod(mode & 0o777)
        if self.fills_up and name.endswith(".sh"):
            self.storage(0)
        return None

    def room(self) -> int:
        """Return how many bytes fit."""
        return int((self.folder / "free-kb").read_text()) * 1024

    def shell(self, command: str, stream: _Stream) -> None:
        """Run ``command`` and send what it prints; tell it to stop if the connection goes."""
        self._serve()
        reading, writing = _terminal() if self._system.terminal else os.pipe()
        if self._began is not None:
            self._write("uptime", f"{time.monotonic() - self._began + 20:.2f} 0.00\n")
        # A storage without room takes no byte of a file. It may become full while a shell runs.
        limit = f"trap '' XFSZ; {'ulimit -S -f 0; ' if self.room() == 0 else ''}"
        process = subprocess.Popen(
            [self.folder / "bin" / "sh", "-c", f"{limit}{self._mapped(command)}"],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={"PHONE": str(self.folder), "PATH": f"{self.folder}/bin"},
            start_new_session=True,
        )
        os.close(writing)
        self._shells[process.pid] = process
        watch = threading.Thread(target=self._hang_up, args=(process, stream), daemon=True)
        watch.start()
        try:
            while part := _read(reading):
                stream.write(part)
        finally:
            stream.closed.set()
            hangup(process.pid)
            os.close(reading)
            process.wait()
            watch.join()
            self._shells.pop(process.pid, None)

    def close(self) -> None:
        """Switch it off."""
        if (app := self.app_pid()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(app, signal.SIGKILL)
        for process in list(self._shells.values()):
            hangup(process.pid)
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def kill_shells(self) -> None:
        """End all that runs in shells without a chance to do anything, as an empty battery does."""
        for process in list(self._shells.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _running(self) -> list[int]:
        """Return the processes that run in shells."""
        sessions, found = set(self._shells), []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            with contextlib.suppress(OSError, IndexError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) in sessions:
                    found.append(int(folder.name))
        return found

    def _hang_up(self, process: subprocess.Popen[bytes], stream: _Stream) -> None:
        stream.closed.wait()
        if process.poll() is None:
            hangup(process.pid)

    def _serve(self) -> None:
        """Start the server behind the runner, if there is none and the runner is the real one."""
        with self._starting:
            tools = [*self.tmp.rglob("benchmark_model")]
            if self._server is not None or not any(b"python" in tool.read_bytes()[:200] for tool in tools):
                return
            (self.folder / "ready").unlink(missing_ok=True)
            self._server = subprocess.Popen(
                [sys.executable, HERE / "server.py", self.folder, str(self._slower)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                # LiteRT says on every run that it has made a delegate.
                stderr=subprocess.DEVNULL,
            )
            assert self._server.stdout is not None
            self._server.stdout.readline()
            self._server.stdout.close()

    def _mapped(self, text: str) -> str:
        for path, here in self.moved.items():
            text = text.replace(path, str(here))
        if self._began is not None:
            text = text.replace("/proc/uptime", str(self.folder / "uptime"))
            text = text.replace("/proc/sys/kernel/random/boot_id", str(self.folder / "boot-id"))
        if (self.folder / "shell-status").exists():
            text = text.replace("/proc/self/status", str(self.folder / "shell-status"))
        return (
            text.replace(LOCAL, str(self.tmp))
            .replace(CPUS, str(self.folder / "cpus"))
            .replace(THERMAL, str(self.folder / "heat"))
            .replace("/proc/$app/cpuset", str(self.folder / "app-cpuset"))
            .replace("/proc/self/cpuset", str(self.folder / "shell-cpuset"))
        )

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{Path(name).name}"
        temporary.write_text(text)
        temporary.replace(self.folder / name)

    def _switch(self, name: str, on: bool) -> None:
        if on:
            (self.folder / name).touch()
        else:
            (self.folder / name).unlink(missing_ok=True)

    def _make(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)
        (self.folder / "bin").mkdir(parents=True)
        self.tmp.mkdir()
        self._write("props", "".join(f"[{name}]: [{value}]\n" for name, value in self.props.items()))
        commands = {
            "getprop": GETPROP,
            "dumpsys": DUMPSYS,
            "settings": SETTINGS,
            "svc": SVC,
            "cmd": CMD,
            "input": INPUT,
            "df": DF,
            "pm": PM,
            "am": AM,
            "log": LOG,
            "logcat": LOGCAT,
            "wm": 'echo "wm $*" >> "$PHONE/log"',
        }
        for name, body in commands.items():
            # The system has room of its own.
            self._command(name, f"ulimit -S -f unlimited\n{body}")
        self._programs(self._system)
        self.battery()
        self.thermal()
        self._write("dumpsys-deviceidle", "ACTIVE\n")
        self._write("logcat", "")
        self._write("app-cpuset", "/top-app\n")
        self._write("shell-cpuset", "/foreground\n")
        self.storage(4_000_000)
        self._clocks: dict[int, tuple[Path, Path]] = {}
        # The cores are this machine's, and the last are the fast ones.
        allowed = sorted(os.sched_getaffinity(0))
        for core in allowed:
            folder = self.folder / "cpus" / f"cpu{core}" / "cpufreq"
            folder.mkdir(parents=True)
            self._clocks[core] = folder, self.folder / "cpus" / f".off{core}"
            (folder / "cpuinfo_max_freq").write_text("2800000\n" if core == allowed[-1] else "1800000\n")
        (self.folder / "cpus" / "online").write_text(",".join(map(str, allowed)))
        (self.folder / "cpus" / f"cpu{allowed[0]}" / "cpufreq" / "scaling_governor").write_text("schedutil\n")

    def _command(self, name: str, body: str) -> None:
        path = self.folder / "bin" / name
        # Its own programs are not those that warn.
        warning = f"echo {_quoted(WARNING)}\n" if self._system.warns else ""
        path.write_text(f"#!/bin/sh\n{warning}PATH=/usr/bin:/bin\n{body}\n")
        path.chmod(0o755)

    def _programs(self, system: System) -> None:
        """Put the programs of a phone where its shell finds them: those of toybox and mksh, if they are here."""
        (self.folder / "bin" / "sh").symlink_to(shutil.which("mksh") or "/bin/sh")
        toybox = shutil.which("toybox")
        known = (
            subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split() if toybox else []
        )
        for name in set(TOOLS) - set(system.without):
            program = toybox if name in known else shutil.which(name)
            if program is None:
                continue
            run = f"{program} {name}" if program == toybox else program
            if name in ("sync", "fsync"):
                self._command(name, f'{{ echo "{name} $*" >> "$PHONE/log"; }} 2>/dev/null\nexec {run} "$@"')
                continue
            if system.warns:
                self._command(name, f'exec {run} "$@"')
            else:
                (self.folder / "bin" / name).symlink_to(program)


def _terminal() -> tuple[int, int]:
    """Return both ends of a terminal of 80 columns, which ends its lines with a carriage return."""
    reading, writing = os.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    return reading, writing


def _read(descriptor: int) -> bytes:
    """Return what arrives; nothing at the end, which a terminal reports as an error.

    Linux may report the end before the last bytes, in one of some ten thousand shells on a machine under load. The
    next read then has them.
    """
    for _ in range(2):
        try:
            return os.read(descriptor, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            time.sleep(0.001)
    return b""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
