"""An sshd of this machine for tests, with keys of its own; there is none without the programs sshd and ssh."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from cars_hw.devices.board.ssh import SshShell

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
needs_sshd = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="needs sshd and ssh (Debian: openssh-server)"
)

# Prints what benchmark_model prints: of a model so many microseconds as its file has bytes.
CANNED = """\
#!/bin/sh
for flag in "$@"; do case $flag in --graph=*) graph=${flag#--graph=} ;; esac; done
us=$(wc -c < "$graph")
FAULT
echo "count=2 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
echo "count=5 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
echo "Inference timings in us: Init: 1, First inference: $us, Warmup (avg): $us.5, Inference (avg): $us.5"
"""


class Server:
    """An sshd with keys of its own, whose shells find the programs of ``bin`` first."""

    def __init__(self, folder: Path) -> None:
        assert SSHD is not None
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "user.pub", folder / "authorized")
        host_key = (folder / "host.pub").read_text()
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {host_key}")
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {folder}/authorized\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            # The files of the user's own shell may change its PATH.
            f"ForceCommand [ ! -f {folder}/greeting ] || cat {folder}/greeting; "
            f'PATH={self.bin}:{os.environ["PATH"]} exec sh -c "$SSH_ORIGINAL_COMMAND"\n'
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", self.folder / "config"], stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    @property
    def destination(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def options(self) -> list[str]:
        return [
            *("-i", str(self.folder / "user")),
            *("-o", f"UserKnownHostsFile={self.folder / 'known'}"),
            *("-o", "IdentitiesOnly=yes"),
            *("-F", "/dev/null"),
        ]

    def shell(self) -> SshShell:
        return SshShell(self.destination, options=self.options)

    def python(self, program: str) -> None:
        """Let ``python3`` be ``program``."""
        tool = self.bin / "python3"
        tool.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        tool.chmod(0o755)

    def greet(self, text: str) -> None:
        """Let every login say ``text`` first, as the file of a user's own shell may."""
        (self.folder / "greeting").write_text(text)

    def install(self, fault: str = ":") -> None:
        tool = self.bin / "benchmark_model"
        tool.write_text(CANNED.replace("FAULT", fault))
        tool.chmod(0o755)
