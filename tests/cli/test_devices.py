"""``cars-hw devices --pair``: it pairs by adb, and lists."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoked import done, fails, run

PAIRING = ("devices", "--pair", "192.168.1.20:37099", "--code", "123456")
PAIRED = "Successfully paired to 192.168.1.20:37099 [guid=adb-SIM0001-abcdef]"


def test_the_command_pairs_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cars_hw.devices.available", list)
    program = tmp_path / "adb"
    program.write_text(f"#!/bin/sh\necho '{PAIRED}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    result = done(*PAIRING)
    assert PAIRED in result.stderr
    assert "adb connect HOST:PORT" in result.stderr
    assert done(*PAIRING, "--json").stdout == "[]\n"
    fails(run("devices", "--code", "123456"), 2, "give its address with --pair")
    program.write_text("#!/bin/sh\necho 'Failed: Wrong password or connection was dropped.'\n")
    fails(run(*PAIRING), 1, "refuses the code")
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    fails(run(*PAIRING), 1, "install the platform-tools of Android")
