"""The program that runs models on a phone: fetched or copied, checked by its SHA-256, and stored.

Nothing is fetched unless the user asks for it, and nothing is stored unless the user has given its SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final, NamedTuple

from cars_hw.config.codec import parse_json
from cars_hw.config.files import replacing, write_json
from cars_hw.errors import DeviceError, InputError, RunnerError

LARGEST: Final = 200 * 2**20
"""The largest accepted size in bytes; the tool has about six million."""

_ELF: Final = b"\x7fELF"
_SCRIPT: Final = b"#!"


class Runner(NamedTuple):
    """The stored tool: its file, its SHA-256, and its source."""

    path: Path
    sha256: str
    source: str


def folder() -> Path:
    """Return the folder of the stored tool."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cars-hw" / "runner"


def stored() -> Runner | None:
    """Return the stored tool, or None.

    Raises:
        RunnerError: the file has changed since it was stored.
    """
    path, note = folder() / "benchmark_model", folder() / "benchmark_model.json"
    if not (path.exists() and note.exists()):
        return None
    try:
        kept = parse_json(note.read_text(encoding="utf-8"))
        known, source = str(kept["sha256"]), str(kept["source"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunnerError(f"{note} is damaged ({error})", remedy="store-runner") from error
    found = digest_of(path)
    if found != known:
        raise RunnerError(
            f"{path} is not the file that was stored: its SHA-256 is {found}, it was {known}",
            remedy="store-runner",
        )
    return Runner(path, known, source)


def stored_runner() -> Path | None:
    """Return the file of the stored tool, or None; see :func:`stored`."""
    runner = stored()
    return None if runner is None else runner.path


def use(path: Path) -> Runner:
    """Store a copy of the tool at ``path``.

    Raises:
        InputError: the file is missing, or is no program.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    return _keep(path, str(path.resolve()))


def fetch(address: str, sha256: str | None) -> Runner:
    """Fetch the tool from ``address`` and store it if its SHA-256 is ``sha256``, or that of the last fetch.

    Raises:
        InputError: an address that is not https (or a file), a digest that is none.
        RunnerError: the digest is another, or none was given and none is known: the message has it, and nothing is
            kept.
        DeviceError: it cannot be fetched.
    """
    if not address.startswith(("https://", "file://")):
        raise InputError(f"'{address}' is not an address to fetch from; it must begin with https://")
    if sha256 is not None and not (len(sha256) == 64 and set(sha256.lower()) <= set("0123456789abcdef")):
        raise InputError(f"'{sha256}' is no SHA-256: write its 64 hexadecimal digits")
    before = stored()
    known = sha256.lower() if sha256 else before.sha256 if before is not None and before.source == address else None
    with tempfile.TemporaryDirectory(prefix="cars-hw-") as scratch:
        fetched = Path(scratch) / "benchmark_model"
        _download(address, fetched)
        found = digest_of(fetched)
        if known is None:
            raise RunnerError(
                f"what is at {address} has SHA-256 {found}, and no digest was given to compare with; "
                "nothing was kept",
                remedy="accept-digest",
                address=address,
                sha256=found,
            )
        if found != known:
            raise RunnerError(f"what is at {address} has SHA-256 {found}, not {known}; nothing was kept")
        return _keep(fetched, address)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _keep(path: Path, source: str) -> Runner:
    with path.open("rb") as opened:
        begin = opened.read(4)
    if begin != _ELF and not begin.startswith(_SCRIPT):
        raise InputError(f"{source} is no program that a phone can run")
    target = folder() / "benchmark_model"
    with replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    runner = Runner(target, digest_of(target), source)
    write_json(folder() / "benchmark_model.json", {"sha256": runner.sha256, "source": source})
    return runner


def _download(address: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer, target.open("wb") as opened:
            size = 0
            while part := answer.read(2**20):
                size += len(part)
                if size > LARGEST:
                    raise DeviceError(
                        f"what is at {address} is larger than {LARGEST // 2**20} MB; that is not the tool"
                    )
                opened.write(part)
    except (urllib.error.URLError, OSError) as error:
        raise DeviceError(f"{address} cannot be fetched: {error}") from error
