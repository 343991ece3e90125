"""Commands as a user gives them, and how they end."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from cars_hw.cli.main import main


def run(*arguments: str | Path) -> Result:
    """Return the result of a command."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: str | Path) -> Result:
    """Return the result of a command that succeeds."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output + result.stderr
    return result


def fails(result: Result, code: int, *parts: str) -> None:
    """Check that a command ended with ``code`` and with one line of error that has all ``parts``."""
    assert result.exit_code == code, result.output + result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]
    assert "Traceback" not in result.output + result.stderr
