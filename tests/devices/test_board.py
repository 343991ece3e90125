"""A Linux board over ssh, against a real sshd of this machine; skipped where there is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from long_runs import amount
from ssh_server import Server, needs_sshd

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices import LitertDevice, format_of, open_device
from cars_hw.devices.board.device import PYTHON_RUNNER, BoardDevice
from cars_hw.devices.board.ssh import SshShell
from cars_hw.devices.remote import Answer, NoOutputError
from cars_hw.devices.remote_machine import Waits
from cars_hw.errors import (
    ConnectionLostError,
    DeviceError,
    DeviceStateError,
    InputError,
    NoDeviceError,
    RunnerError,
    UnauthorizedError,
)
from cars_hw.latency.keys import spec_keys
from cars_hw.latency.models import build_model
from cars_hw.measurement.schedule import measure
from cars_hw.space.network_spec import NETWORKS

PLAN = MeasurePlan(sessions=2, min_runs=5, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0, patience_seconds=0)
WAITS = Waits(cool_down=0.3, reconnect=5.0, session=30.0, pause=0.05, old_script=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("sshd"))
    made.python(sys.executable)
    yield made
    made.stop()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the board calls /tmp: tests beside this one have boards, too."""

    folder = tmp_path / "board"
    folder.mkdir()
    monkeypatch.setattr(BoardDevice, "place", replace(BoardDevice.place, parent=str(folder)))
    return folder


@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "a b", "user@", "host:port", "a@b@c", "host;ls"])
def test_what_is_no_destination_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="USER@HOST"):
        SshShell(text)


def test_boards_run_tflite_models() -> None:
    assert format_of("ssh:pi@raspberrypi") == "tflite"
    with pytest.raises(InputError, match="USER@HOST"):
        open_device("ssh:")


@needs_sshd
def test_commands_lines_and_files_go_over_one_connection(server: Server, tmp_path: Path) -> None:
    shell = server.shell()
    with pytest.raises(ConnectionLostError, match="not connected"):
        shell.call("echo")
    shell.open()
    assert shell.call("echo one; echo two >&2; exit 3") == Answer("one\ntwo\n", 3)
    began = time.monotonic()
    times = [time.monotonic() - began for _ in shell.lines("echo a; sleep 0.5; echo b", 5.0)]
    assert len(times) == 2
    assert times[1] - times[0] > 0.3
    source = tmp_path / "file"
    source.write_bytes(os.urandom(500_000))
    shell.push(source, f"{tmp_path}/it's here", executable=True)
    assert (tmp_path / "it's here").read_bytes() == source.read_bytes()
    assert os.access(tmp_path / "it's here", os.X_OK)
    with pytest.raises(DeviceError, match="refuses a file"):
        shell.push(source, "/nowhere/file")
    with pytest.raises(NoOutputError):
        shell.call("sleep 5", 0.3)
    shell.close()
    shell.close()


@needs_sshd
def test_a_board_that_greets_is_measured_too(server: Server, models: list[Path], place: Path) -> None:
    server.install()
    server.greet("Welcome to the board\nready\n")
    try:
        device = BoardDevice(server.shell(), "ssh:board", log=lambda _: None, waits=WAITS)
        assert [round(1e3 * sample.ms) for sample in device.run(models[:1], PLAN, 0)] == [1000]
        device.release()
    finally:
        server.greet("")
    assert list(place.iterdir()) == []


@needs_sshd
def test_keys_and_hosts_that_do_not_fit_are_told_apart(server: Server, tmp_path: Path) -> None:
    options = server.options
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    with pytest.raises(UnauthorizedError, match="ssh-copy-id"):
        SshShell(server.destination, options=["-i", str(tmp_path / "other"), *options[2:]]).open()
    with pytest.raises(UnauthorizedError, match=r"not known to this computer.*by hand: ssh"):
        SshShell(server.destination, options=[*options[:2], "-o", "UserKnownHostsFile=/dev/null"]).open()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NoDeviceError, match="is not there"):
        SshShell(f"root@127.0.0.1:{port}", options=options).open()


@needs_sshd
def test_a_board_is_measured_and_nothing_is_left(server: Server, models: list[Path], place: Path) -> None:
    server.install()
    device = BoardDevice(server.shell(), "ssh:board", log=lambda _: None, waits=WAITS)
    conditions = device.conditions()
    assert conditions["platform"].endswith(f", {os.uname().machine}")
    assert conditions["cores"] >= len(os.sched_getaffinity(0))
    assert conditions["runtime"].startswith("benchmark_model ")
    assert conditions["device_identity"].startswith("ssh:")
    samples = device.run([*models, models[0]], PLAN, 0)
    assert [round(1e3 * sample.ms) for sample in samples] == [1000, 1100, 1200, 1000]
    other = BoardDevice(server.shell(), "ssh:board", log=lambda _: None, waits=WAITS)
    with pytest.raises(DeviceStateError, match="another cars-hw"):
        other.run(models, PLAN, 0)
    other.release()
    device.release()
    assert list(place.iterdir()) == []


@needs_sshd
def test_a_tool_without_a_digest_is_used_and_not_replaced_by_python(server: Server, place: Path) -> None:
    server.install()
    missing = server.bin / "sha256sum"
    missing.write_text("#!/bin/sh\nexit 127\n")
    missing.chmod(0o755)
    try:
        device = BoardDevice(server.shell(), "ssh:board", log=lambda _: None, waits=WAITS)
        assert device.conditions()["runtime"] == "benchmark_model of unknown content on cpu"
        device.release()
    finally:
        missing.unlink()


@needs_sshd
def test_messages_about_a_board_name_no_settings_and_no_command_for_phones(
    server: Server, models: list[Path], place: Path
) -> None:
    server.install("echo 'WARNING: Unconsumed cmdline flags: --max_secs=5'")
    said: list[str] = []
    device = BoardDevice(server.shell(), "ssh:board", log=said.append, waits=WAITS)
    with pytest.raises(RunnerError, match=r"does not know --max_secs=5") as raised:
        device.run(models, PLAN, 0)
    assert raised.value.remedy is None
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            device.release()
    assert said == [
        f"Stopping: removing the files from the board at {server.destination}, for some seconds. Ctrl-C again "
        "leaves this to the next contact with it"
    ]
    assert list(place.iterdir()) == []


@needs_sshd
def test_what_to_do_by_hand_names_the_port(server: Server) -> None:
    unknown = ["-o", "UserKnownHostsFile=/dev/null", "-F", "/dev/null"]
    user, _, port = server.destination.replace("@127.0.0.1", "").rpartition(":")
    with pytest.raises(UnauthorizedError, match=rf"by hand: ssh -p {port} {user}@127\.0\.0\.1$"):
        SshShell(server.destination, options=unknown).open()


@needs_sshd
def test_nothing_of_a_connection_remains_where_the_configuration_keeps_connections(
    server: Server, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("ControlMaster auto\nControlPersist yes\n")
    shell = SshShell(server.destination, options=[*server.options[:-1], str(config)])
    shell.open()
    folder = str(shell._folder)
    assert shell.call("echo one") == Answer("one\n", 0)
    shell.close()
    remaining = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # Other processes end meanwhile.
        with suppress(OSError):
            remaining += [path.parent.name] if folder.encode() in path.read_bytes() else []
    assert remaining == []


@needs_sshd
def test_a_connection_that_breaks_is_made_again(server: Server, models: list[Path], place: Path) -> None:
    server.install("sleep 0.3")
    said: list[str] = []
    device = BoardDevice(server.shell(), "ssh:board", log=said.append, waits=WAITS)

    def cut(done: int) -> None:
        if done == 1 and not said:
            # The process of the connection, of which ssh has one.
            device._shell._connection.kill()  # type: ignore[attr-defined]

    samples = device.run(models, PLAN, 0, cut)
    assert [round(1e3 * sample.ms) for sample in samples] == [1000, 1100, 1200]
    assert any("come back" in line for line in said)
    device.release()
    assert list(place.iterdir()) == []


@needs_sshd
@pytest.mark.skipif(not amount(0, 1), reason="takes some seconds: pytest --long")
def test_a_board_that_is_away_when_a_measurement_begins_is_waited_for(
    server: Server, models: list[Path], place: Path
) -> None:
    server.install()
    said: list[str] = []
    device = BoardDevice(server.shell(), "ssh:board", log=said.append, waits=WAITS)
    device.run(models[:1], PLAN, 0)
    device.release()
    server.stop()

    def start(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            server.start()

    device._log = start
    assert [round(1e3 * sample.ms) for sample in device.run(models, PLAN, 0)] == [1000, 1100, 1200]
    assert "is not there" in said[0]
    assert said[0].endswith("waiting for up to 5 s for it to come back")
    device.release()
    assert list(place.iterdir()) == []


@needs_sshd
def test_without_the_tool_a_python_runtime_runs_the_models_and_agrees_with_the_local_device(
    server: Server, tmp_path: Path, place: Path
) -> None:
    (server.bin / "benchmark_model").unlink(missing_ok=True)
    model = tmp_path / "model.tflite"
    build_model(
        next(key for key in spec_keys(NETWORKS["cifar"]) if str(key) == "sep_conv_5x5/c36/32x32/s1"),
        model,
        "tflite",
    )
    board = BoardDevice(server.shell(), "ssh:board", log=lambda _: None, waits=WAITS)
    assert board.conditions()["runtime"].startswith("ai-edge-litert ")
    plan = MeasurePlan(sessions=1, min_runs=20, min_seconds=0.02, warmup_seconds=0.0, patience_seconds=0)
    there = min(sample.ms for sample in measure(board, [model], plan).models[0].samples)
    here = min(sample.ms for sample in measure(LitertDevice(), [model], plan).models[0].samples)
    # Two processes of a machine that others use: a wrong unit or a wrong model would be far off.
    assert there == pytest.approx(here, rel=0.3)
    assert list(place.iterdir()) == []


@needs_sshd
def test_a_board_without_any_runtime_says_what_to_install(server: Server, place: Path) -> None:
    (server.bin / "benchmark_model").unlink(missing_ok=True)
    server.python("/bin/false")
    try:
        device = BoardDevice(server.shell(), "ssh:board", log=lambda _: None, waits=WAITS)
        with pytest.raises(RunnerError, match="pip install ai-edge-litert"):
            device.conditions()
        device.release()
    finally:
        server.python(sys.executable)


def test_the_runner_says_which_flags_it_does_not_know(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PYTHON_RUNNER, f"--graph={tmp_path}/nothing", "--num_threads=1", "--use_gpu=true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Unconsumed cmdline flags: --use_gpu=true" in done.stdout
    assert done.returncode != 0
