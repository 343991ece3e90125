"""What is behind the simulated connection: a folder, a shell with an Android phone's commands, and the runner."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from simulated_phone.adbd import hangup

if TYPE_CHECKING:
    from simulated_phone.adbd import _Stream

HERE = Path(__file__).parent
LOCAL = "/data/local/tmp"
CPUS = "/sys/devices/system/cpu"

GETPROP = 'cat "$PHONE/props"'
DUMPSYS = 'cat "$PHONE/dumpsys-$1" 2>/dev/null || echo "no such service: $1"'
SETTINGS = """
echo "settings $*" >> "$PHONE/log"
file="$PHONE/setting-$2-$3"
case "$1" in
  get) cat "$file" 2>/dev/null || echo null ;;
  put) echo "$4" > "$file" ;;
  delete) rm -f "$file" ;;
esac
"""
SVC = """
echo "svc $*" >> "$PHONE/log"
[ "$1 $2 $3" = "power stayon true" ] && echo 7 > "$PHONE/setting-global-stay_on_while_plugged_in"
"""
CMD = """
echo "cmd $*" >> "$PHONE/log"
[ -f "$PHONE/no-fixed-mode" ] && { echo "Unknown command"; exit 255; }
[ "$1 $2" = "power set-fixed-performance-mode-enabled" ] && echo "$3" > "$PHONE/fixed-mode"
"""
INPUT = 'echo "input $*" >> "$PHONE/log"'
DF = """
echo "Filesystem      1K-blocks    Used Available Use% Mounted on"
echo "/dev/block/dm-5 111111111 1111111 $(cat "$PHONE/free-kb")  1% /data"
"""


class Phone:
    """A phone in ``folder``; its state can be changed while it runs.

    ``slower`` makes its runner take so many times as long as it does.
    """

    def __init__(
        self, folder: Path, *, serial: str = "SIM0001", model: str = "Simulated One", slower: float = 1.0
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
        self._slower = slower
        self._shells: dict[int, subprocess.Popen[bytes]] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._make()

    @property
    def tmp(self) -> Path:
        """The folder that the phone calls /data/local/tmp."""
        return self.folder / "tmp"

    def battery(self, level: int = 80, tenths: int = 270, *, present: bool = True) -> None:
        """Set the battery's charge in percent and its temperature in tenths of a degree."""
        self._write(
            "dumpsys-battery",
            "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  status: 2\n"
            f"  present: {str(present).lower()}\n  level: {level}\n  scale: 100\n  voltage: 4236\n"
            f"  temperature: {tenths}\n  technology: Li-ion\n",
        )

    def thermal(self, status: int = 0) -> None:
        """Set how far the phone slows itself down."""
        self._write(
            "dumpsys-thermalservice",
            f"IsStatusOverride: false\nThermalEventListeners:\n\tcallbacks: 1\nThermal Status: {status}\n"
            "Cached temperatures:\n\tTemperature{mValue=25.6, mType=0, mName=AP, mStatus=0}\n"
            "HAL Ready: true\nCurrent temperatures from HAL:\n"
            "\tTemperature{mValue=25.6, mType=0, mName=AP, mStatus=0}\n",
        )

    def storage(self, free_kb: int) -> None:
        """Set how much room there is."""
        self._write("free-kb", str(free_kb))

    def setting(self, name: str) -> str | None:
        """Return a global setting, None where it is not set."""
        path = self.folder / f"setting-global-{name}"
        return path.read_text().strip() if path.exists() else None

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

    def runner(self) -> str:
        """Return the runner as a program, which asks a server that has LiteRT loaded."""
        client = (HERE / "client.py").read_text()
        return f"#!{sys.executable} -IS\nFOLDER = {str(self.folder)!r}\n{client}"

    def local(self, name: str) -> Path:
        """Return the file that the phone calls ``name``."""
        return Path(self._mapped(name))

    def store(self, name: str, data: bytes, mode: int) -> str | None:
        """Write a file that was sent; return what is wrong, if anything."""
        free = int((self.folder / "free-kb").read_text()) * 1024
        if len(data) > free:
            return "couldn't write file: No space left on device"
        path = self.local(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode & 0o777)
        return None

    def shell(self, command: str, stream: _Stream) -> None:
        """Run ``command`` and send what it prints; tell it to stop if the connection goes."""
        self._serve()
        process = subprocess.Popen(
            ["sh", "-c", self._mapped(command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={**os.environ, "PHONE": str(self.folder), "PATH": f"{self.folder}/bin:{os.environ['PATH']}"},
            start_new_session=True,
        )
        self._shells[process.pid] = process
        watch = threading.Thread(target=self._hang_up, args=(process, stream), daemon=True)
        watch.start()
        assert process.stdout is not None
        try:
            while part := os.read(process.stdout.fileno(), 65536):
                stream.write(part)
        finally:
            stream.closed.set()
            hangup(process.pid)
            process.stdout.close()
            process.wait()
            watch.join()
            self._shells.pop(process.pid, None)

    def close(self) -> None:
        """Switch it off."""
        for process in list(self._shells.values()):
            hangup(process.pid)
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def _hang_up(self, process: subprocess.Popen[bytes], stream: _Stream) -> None:
        stream.closed.wait()
        if process.poll() is None:
            hangup(process.pid)

    def _serve(self) -> None:
        """Start the server behind the runner, if there is none."""
        with self._starting:
            if self._server is not None:
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
        return text.replace(LOCAL, str(self.tmp)).replace(CPUS, str(self.folder / "cpus"))

    def _write(self, name: str, text: str) -> None:
        temporary = self.folder / f".{name}"
        temporary.write_text(text)
        temporary.replace(self.folder / name)

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
        }
        for name, body in commands.items():
            path = self.folder / "bin" / name
            path.write_text(f"#!/bin/sh\n{body}\n")
            path.chmod(0o755)
        self.battery()
        self.thermal()
        self.storage(4_000_000)
        # The cores are this machine's, and the last are the fast ones.
        allowed = sorted(os.sched_getaffinity(0))
        for core in allowed:
            folder = self.folder / "cpus" / f"cpu{core}" / "cpufreq"
            folder.mkdir(parents=True)
            (folder / "cpuinfo_max_freq").write_text("2800000" if core == allowed[-1] else "1800000")
        (self.folder / "cpus" / "online").write_text(",".join(map(str, allowed)))
        (self.folder / "cpus" / f"cpu{allowed[0]}" / "cpufreq" / "scaling_governor").write_text("schedutil")
