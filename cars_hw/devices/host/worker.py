"""A worker process that answers each JSON line with a JSON line, within a time limit."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, Self

from cars_hw.child_processes import python_environment
from cars_hw.config.codec import parse_json
from cars_hw.errors import DeviceError


class Worker:
    """A child process for the time of a ``with`` block, which kills it at its end.

    The first line of ``command``, ``self.hello``, must be JSON. ``device_name`` is for errors, and ``time_limit_s``
    is the time limit of every answer in seconds.

    Raises:
        DeviceError: the process does not start, ends, or hangs, or its answer is not a JSON object.
    """

    def __init__(self, command: Sequence[str], *, device_name: str, time_limit_s: float) -> None:
        self._device_name = device_name
        self._time_limit_s = time_limit_s
        self._command = list(command)
        self._pending = b""

    def __enter__(self) -> Self:
        # Errors go to a file: a pipe that is not read would block the worker when it is full.
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=python_environment(),
            )
        except OSError as error:
            self._errors.close()
            raise DeviceError(f"{self._device_name}: the worker does not start: {error}") from error
        try:
            self.hello = self._receive("starting")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def ask(self, request: dict[str, Any], about: str) -> dict[str, Any]:
        """Send ``request`` and return the answer; ``about`` is the subject in an error."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._died(about) from error
        return self._receive(about)

    def _receive(self, about: str) -> dict[str, Any]:
        line = self._read_line(about)
        try:
            answer = parse_json(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise DeviceError(f"{self._device_name}: the worker gave an invalid answer for {about}: {line[:80]!r}")
        return answer

    def _read_line(self, about: str) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        deadline = time.monotonic() + self._time_limit_s
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise DeviceError(
                    f"{self._device_name}: no answer within {self._time_limit_s:g} s for {about}; "
                    "measure a smaller network, or fewer runs"
                )
            received = os.read(pipe, 65536)
            if not received:
                raise self._died(about)
            self._pending += received
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _died(self, about: str) -> DeviceError:
        try:
            status = f"exit status {self._process.wait(timeout=5)}"
        except subprocess.TimeoutExpired:
            status = "its output closed"
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        last_line = lines[-1] if lines else "no output"
        return DeviceError(f"{self._device_name}: the worker failed for {about} ({status}): {last_line}")

    def _stop(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue
        self._process.wait()
        self._errors.close()
