"""The frame of the command line: groups, lazy imports, exit codes, old names, --verbose and --quiet, Ctrl-C."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cars_hw import cli
from cars_hw.cli.exit_codes import ExitCode, exit_code_of
from cars_hw.cli.main import GROUPS, SUMMARIES, main
from cars_hw.cli.renamed import RENAMED_COMMANDS, RENAMED_OPTIONS
from cars_hw.devices import FakeDevice
from cars_hw.errors import BudgetError, DeviceError

HEAVY = {
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "sklearn",
    "pymoo",
    "scipy",
    "rich",
    "PIL",
    "jinja2",
    "matplotlib",
}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def command_of(*path: str) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None, path
        command = found
    return command


def error_line(result: Result) -> str:
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error:"))
    assert "Traceback" not in result.stderr
    return line


def test_the_overview_has_every_command_in_its_group_and_each_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("--help").stdout.splitlines()
    files = Path(cli.__file__).parent.glob("*.py")
    assert {path.stem for path in files if "\ndef command(" in path.read_text()} == set(SUMMARIES)
    for group, commands in GROUPS.items():
        start = lines.index(f"{group}:")
        listed = lines[start + 1 : start + 1 + len(commands)]
        assert [line.split(maxsplit=1) for line in listed] == [list(one) for one in commands.items()]
        assert max(map(len, listed)) <= 80
    start = lines.index("Exit codes:")
    assert [line.split()[0] for line in lines[start:] if re.match(r"  \d", line)] == ["0", "1", "2", "3", "130"]


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_command_begins_its_help_with_the_summary_of_the_overview(name: str) -> None:
    command = command_of(name)
    assert command.name == name
    assert command.help is not None
    assert command.help.split("\n\n")[0].replace("\n", " ").strip() == SUMMARIES[name]
    result = run(name, "--help")
    assert result.exit_code == 0
    assert SUMMARIES[name] in " ".join(result.stdout.split())


def imported_by(*arguments: str) -> set[str]:
    """Return the modules that a fresh process has after the command line ``arguments``."""
    code = (
        "import sys\n"
        "from cars_hw.cli.main import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "print('modules', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_overview_imports_no_command_and_no_heavy_package() -> None:
    imported = imported_by("--help")
    assert "cars_hw.cli.main" in imported
    assert not imported & (HEAVY | {f"cars_hw.cli.{name}" for name in SUMMARIES})


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_help_of_a_command_imports_no_heavy_package(name: str) -> None:
    imported = imported_by(name, "--help")
    assert f"cars_hw.cli.{name}" in imported
    assert not imported & HEAVY


def test_success_is_0() -> None:
    assert run("cost", "CARS_A").exit_code == ExitCode.SUCCESS == 0


def test_an_error_is_1_and_one_line(tmp_path: Path) -> None:
    result = run("report", tmp_path / "nowhere")
    assert result.exit_code == ExitCode.ERROR == 1
    assert "is not a run folder" in error_line(result)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cost"], "Missing argument"),
        (["cost", "CARS_A", "--channels", "none"], "Invalid value for '--channels'"),
        (["reprot", "run"], "No such command 'reprot'. Did you mean report?"),
        (["xyzzy"], "No such command 'xyzzy'."),
        (["profile", "--devcie", "ort"], "No such option"),
        (["cost", "CARS_A", "-q", "-v"], "--quiet and --verbose exclude each other"),
        (["-q", "cost", "CARS_A", "-v"], "--quiet and --verbose exclude each other"),
    ],
)
def test_a_usage_error_is_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == ExitCode.USAGE == 2
    assert message in error_line(result)


def test_a_mistyped_option_names_the_right_one() -> None:
    assert "--device" in error_line(run("profile", "--devcie", "ort", "--out", "t.json"))


def test_a_missed_budget_is_3_and_every_other_error_1() -> None:
    assert exit_code_of(BudgetError("no architecture", (1.0,))) == ExitCode.MISSED == 3
    assert exit_code_of(DeviceError("busy")) == exit_code_of(OSError(28, "No space left")) == ExitCode.ERROR


def test_an_unreliable_measurement_is_3_with_strict_only(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("--channels", "4", "--layers", "3", "--resolution", "8", "--sessions", "3", "--patience", "0")
    measure = ("measure", "--device", "fake", *small, "CARS_A")
    quiet_device = run(*measure, "--strict")
    assert (quiet_device.exit_code, quiet_device.stderr.count("Warning")) == (0, 0)
    monkeypatch.setattr("cars_hw.devices.open_device", lambda *_: FakeDevice(noise=0.5))
    noisy = run(*measure)
    assert noisy.exit_code == 0
    assert "Warning: CARS_A: repeated sessions differ by" in noisy.stderr
    strict = run(*measure, "--strict", "--json")
    assert strict.exit_code == ExitCode.MISSED
    assert "CARS_A: repeated sessions differ by" in error_line(strict)
    # The result is printed all the same.
    assert json.loads(strict.stdout)[0]["name"] == "CARS_A"


@pytest.mark.parametrize("name", ["profile", "measure", "validate", "verify", "predict", "search", "report"])
def test_every_command_that_uses_measurements_takes_strict(name: str) -> None:
    assert "--strict" in {option for parameter in command_of(name).params for option in parameter.opts}


@pytest.mark.parametrize(("old", "new"), RENAMED_COMMANDS.items())
def test_an_old_command_is_a_usage_error_that_names_the_new_one(old: str, new: str) -> None:
    result = run(old, "model.onnx", "image.png")
    assert result.exit_code == ExitCode.USAGE
    assert f"'{old}' is now '{new}'" in error_line(result)
    assert old not in SUMMARIES
    command_of(*new.split())


RENAMED = [(command, old, new) for command, options in RENAMED_OPTIONS.items() for old, new in options.items()]


@pytest.mark.parametrize(("command", "old", "new"), RENAMED)
def test_an_old_option_is_a_usage_error_that_names_the_new_one(command: str, old: str, new: str) -> None:
    for given in (old.split(" "), [old.replace(" ", "=", 1)]):
        result = run(*command.split(), *given)
        assert result.exit_code == ExitCode.USAGE
        assert f"'{old}' is now '{new}'" in error_line(result)
    known = {option for parameter in command_of(*command.split()).params for option in parameter.opts}
    assert new.split(maxsplit=1)[0] in known


def test_quiet_leaves_results_and_errors(tmp_path: Path) -> None:
    small = ("--channels", "4", "--layers", "3", "--resolution", "8")
    profile = ("profile", "--device", "fake", *small, "--calibration", "6", "--out")
    assert "operations" in run(*profile, tmp_path / "loud.json").stderr
    for arguments in ((*profile, tmp_path / "after.json", "--quiet"), ("-q", *profile, tmp_path / "before.json")):
        result = run(*arguments)
        assert result.exit_code == 0
        assert result.stderr == ""
        assert "operations" in result.stdout
    assert "is not a run folder" in error_line(run("report", tmp_path, "-q"))


def test_verbose_prints_debug_lines_and_a_traceback(tmp_path: Path) -> None:
    level, handlers = logging.getLogger("cars_hw").level, list(logging.getLogger("cars_hw").handlers)
    for arguments in (("report", tmp_path, "--verbose"), ("-v", "report", tmp_path)):
        result = run(*arguments)
        assert result.exit_code == ExitCode.ERROR
        assert "Traceback (most recent call last):" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("Error: ")
    out = tmp_path / "tables.json"
    debug = run("experiment", "tables", "--paper-table", "figure1", "--out", out, "-v").stderr
    assert f"cars_hw.config.files: wrote {out}" in debug
    assert "wrote" not in run("experiment", "tables", "--paper-table", "figure1", "--out", out).stderr
    assert (logging.getLogger("cars_hw").level, logging.getLogger("cars_hw").handlers) == (level, handlers)


def test_ctrl_c_is_130_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cars_hw.devices.available", stop)
    before = signal.getsignal(signal.SIGINT)
    try:
        result = run("devices")
        # A second Ctrl-C ends the process at once.
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == ExitCode.INTERRUPTED == 130
    assert result.stderr == "Stopped.\n"


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_no_traceback_of_any_process(times: int, tmp_path: Path) -> None:
    # A process group of its own, as a terminal gives it: the device's worker gets the signal as well.
    command = [sys.executable, "-m", "cars_hw", "profile", "--device", "ort", "--network", "tiny"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "table.json")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts jobs in the background with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "operations" in line, line
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    _, rest = process.communicate(timeout=60)
    assert "Traceback" not in rest
    # The second signal may end the process before it says so.
    assert process.returncode in ((130,) if times == 1 else (130, -signal.SIGINT))
    assert [line for line in rest.splitlines() if not line.startswith(("operations", "networks"))] in (
        [["Stopped."]] if times == 1 else [["Stopped."], []]
    )


def test_names_that_a_terminal_cannot_show_are_escaped_and_pillow_does_not_warn(tmp_path: Path) -> None:
    for name, shade in (("caf\u00e9", 1), ("tea", 0)):
        for number in range(4):
            path = tmp_path / name / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("1", (30, 30), shade).save(path)
    # The largest image that Pillow takes has twice the pixels of those that it warns of.
    Image.new("1", (10_000, 9_500)).save(tmp_path / "tea" / "large.png")
    (tmp_path / "tea" / "0.png").rename(tmp_path / "tea" / os.fsdecode(b"\xe9.png"))
    for encoding, shown in (("ascii", "caf\\xe9"), ("utf-8:strict", "\\udce9.png")):
        found = subprocess.run(
            [sys.executable, "-m", "cars_hw", "data", "check", str(tmp_path)],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert found.returncode == 0, found.stderr.decode()
        assert shown in found.stdout.decode()
        assert b"Warning" not in found.stderr
