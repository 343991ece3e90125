"""The tool for phones: nothing unasked, nothing unchecked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from cars_hw.cli.main import main
from cars_hw.cli.runner import FetchSettings
from cars_hw.devices.android.runner import fetch, stored, stored_runner, use
from cars_hw.errors import DeviceError, InputError, RunnerError

PROGRAM = b"\x7fELF" + bytes(range(256))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cars-hw" / "runner"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "tool"
    path.write_bytes(PROGRAM)
    return path


def test_a_file_is_stored_with_its_digest(program: Path, cache: Path) -> None:
    assert stored() is None
    assert stored_runner() is None
    runner = use(program)
    assert runner.path.read_bytes() == PROGRAM
    assert runner.sha256 == hashlib.sha256(PROGRAM).hexdigest()
    assert stored() == runner
    assert stored_runner() == cache / "benchmark_model"


def test_what_is_no_program_is_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        use(tmp_path / "nothing")
    (tmp_path / "page").write_text("<html>")
    with pytest.raises(InputError, match="no program"):
        use(tmp_path / "page")
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_stored_file_that_was_changed_is_not_run(program: Path) -> None:
    runner = use(program)
    runner.path.write_bytes(PROGRAM + b"!")
    with pytest.raises(RunnerError, match="is not the file that was stored"):
        stored()
    use(program)
    for text in ("{}", "[" * 100_000):
        runner.path.with_name("benchmark_model.json").write_text(text)
        with pytest.raises(RunnerError, match="damaged"):
            stored()


def test_without_a_digest_nothing_is_kept_and_the_digest_is_said(program: Path) -> None:
    digest = hashlib.sha256(PROGRAM).hexdigest()
    with pytest.raises(RunnerError, match=f"SHA-256 {digest}, .*nothing was kept$"):
        fetch(program.as_uri(), None)
    assert stored() is None


def test_the_digest_is_checked_and_remembered(program: Path) -> None:
    digest = hashlib.sha256(PROGRAM).hexdigest()
    with pytest.raises(RunnerError, match=f"not {'0' * 64}"):
        fetch(program.as_uri(), "0" * 64)
    assert stored() is None
    assert fetch(program.as_uri(), digest.upper()).sha256 == digest
    # From the same address the same again, and nothing else.
    assert fetch(program.as_uri(), None).sha256 == digest
    program.write_bytes(PROGRAM + b"newer")
    with pytest.raises(RunnerError, match=f"not {digest}"):
        fetch(program.as_uri(), None)
    assert stored() is not None


def test_odd_addresses_and_digests_are_refused(program: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="https"):
        fetch("http://example.org/tool", None)
    with pytest.raises(InputError, match="64 hexadecimal"):
        fetch(program.as_uri(), "abc")
    with pytest.raises(DeviceError, match="cannot be fetched"):
        fetch((tmp_path / "nothing").as_uri(), None)


def test_the_command_says_where_from_and_what(program: Path) -> None:
    run = CliRunner()
    shown = run.invoke(main, ["runner", "fetch", "--help"]).output
    assert FetchSettings.address in "".join(shown.split())
    assert "none is stored" in run.invoke(main, ["runner", "show"]).output
    assert run.invoke(main, ["runner", "use", str(program)]).exit_code == 0
    assert hashlib.sha256(PROGRAM).hexdigest() in run.invoke(main, ["runner", "show"]).output
    done = run.invoke(main, ["runner", "fetch", "--from", program.as_uri(), "--sha256", "1" * 64])
    assert done.exit_code == 1
    assert "nothing was kept" in done.output
