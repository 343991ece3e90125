"""A filter of the kernel that kills this process when it opens an internet socket."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys

KILLED = -signal.SIGSYS if hasattr(signal, "SIGSYS") else None
"""The exit status of a process that the filter has killed."""

_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""By machine: how audit names it, and the number of the call ``socket``."""

POSSIBLE = sys.platform == "linux" and platform.machine() in _SOCKET


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def forbid_internet() -> None:
    """Let the kernel kill this process or its children at ``socket(AF_INET...)`` or ``socket(AF_INET6...)``.

    It holds for the calling thread and for what it starts later, and cannot be taken back. ``connect`` needs a
    socket first. See seccomp(2) and ``linux/filter.h``.
    """
    audit, socket = _SOCKET[platform.machine()]
    load, jump_if_equal, give = 0x20, 0x15, 0x06
    kill_process, allow = 0x80000000, 0x7FFF0000
    number, machine, first_argument = 0, 4, 16
    code = (
        (load, 0, 0, machine),
        (jump_if_equal, 0, 6, audit),  # else: kill, the numbers of another machine mean other calls
        (load, 0, 0, number),
        (jump_if_equal, 0, 3, socket),  # else: allow
        (load, 0, 0, first_argument),
        (jump_if_equal, 2, 0, 2),  # AF_INET: kill
        (jump_if_equal, 1, 0, 10),  # AF_INET6: kill
        (give, 0, 0, allow),
        (give, 0, 0, kill_process),
    )
    program = _Program(len(code), (_Instruction * len(code))(*(_Instruction(*one) for one in code)))
    libc = ctypes.CDLL(None, use_errno=True)
    set_no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    for call in (
        (set_no_new_privileges, 1, 0, 0, 0),
        (set_seccomp, filter_mode, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
