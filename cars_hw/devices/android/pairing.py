"""Pairing with a phone for wireless debugging (Android 11 and later), by the program ``adb``.

Pairing is SPAKE2 inside TLS 1.3 with exported keying material, and later connections are TLS. No maintained library
for Python has both: the package that has them is experimental and needs a compiled one. So ``adb`` pairs, and its
server holds the connection; see :mod:`cars_hw.devices.android.adb_server`.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from typing import Final

from cars_hw.devices.android.adb import Address
from cars_hw.devices.remote import last_lines
from cars_hw.errors import DeviceError, InputError, OfflineError, UnauthorizedError

PAIR_S: Final = 60.0
"""The longest time that ``adb`` may take, in seconds."""

LISTENS_S: Final = 3.0
"""Time limit in seconds to find out whether a phone listens."""


def pair(text: str, code: str) -> str:
    """Pair with the phone whose dialog shows the address ``text``, HOST:PORT, and ``code``; return what adb says.

    Raises:
        InputError: the address or the code cannot be one.
        UnauthorizedError: the phone refuses the code.
        OfflineError: nothing answers at the address.
        DeviceError: ``adb`` is not installed, or is too old to pair.
    """
    address = Address.parse(text)
    if address.host is None:
        raise InputError(f"'{text}' is not an address: write HOST:PORT, as the phone's dialog shows it")
    if not re.fullmatch(r"\d{6}", code):
        raise InputError(f"'{code}' is not a pairing code: it has six digits")
    adb = shutil.which("adb")
    if adb is None:
        raise DeviceError("pairing needs the program adb, which is not installed", remedy="get-adb")
    try:
        done = subprocess.run(
            [adb, "pair", str(address), code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PAIR_S,
        )
    except subprocess.TimeoutExpired as error:
        # The text of the exception has the code.
        raise OfflineError(f"adb did not pair with the phone at {address} within {PAIR_S:.0f} s") from error
    except OSError as error:
        raise DeviceError(f"adb does not start ({error.strerror}): {adb}", remedy="get-adb") from error
    said = last_lines(f"{done.stdout} {done.stderr}")
    # Some versions of adb end with 0 although the phone has refused.
    if "Successfully paired" in said:
        return said
    if "unknown command" in said:
        raise DeviceError(f"{adb} is too old to pair, which needs version 30 or newer", remedy="get-adb")
    # Version 36 has one text for all failures; whether somebody listens tells them apart.
    unsaid = "protocol fault" in said and _listens(address)
    if unsaid or "password" in said.lower() or "pairing code" in said.lower():
        raise UnauthorizedError(
            f"the phone at {address} refuses the code ({said}); a code is valid as long as its dialog is open: "
            "open it again, and give the new address and code"
        )
    raise OfflineError(
        f"the phone at {address} does not pair ({said}); leave the dialog open, use the address that it shows, and "
        "connect both to the same network"
    )


def _listens(address: Address) -> bool:
    """Return whether something listens at ``address``."""
    try:
        with socket.create_connection((str(address.host), int(address.port or 0)), LISTENS_S):
            return True
    except OSError:
        return False
