"""A system that lacks something: what file systems refuse, a seccomp filter refuses anywhere."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass

_LIBC = ctypes.CDLL(None, use_errno=True)
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_ARGUMENTS = 16
"""Where the arguments begin in what a filter sees of a call (``struct seccomp_data``)."""

_NUMBERS = {
    "x86_64": {
        "openat": 257,
        "fallocate": 285,
        "sync_file_range": 277,
        "renameat2": 316,
        "fsync": 74,
        "fdatasync": 75,
        "syncfs": 306,
    },
    "aarch64": {
        "openat": 56,
        "fallocate": 47,
        "sync_file_range": 84,
        "renameat2": 276,
        "fsync": 82,
        "fdatasync": 83,
        "syncfs": 267,
    },
}


@dataclass(frozen=True)
class _Rule:
    """Calls in which the third argument has all bits of `mask` fail with `error`."""

    call: str
    mask: int
    error: int

    @property
    def number(self) -> int:
        return _NUMBERS[platform.machine()][self.call]

    def program(self) -> list[tuple[int, int, int, int]]:
        return [
            (_LOAD, 0, 0, 0),
            (_JUMP_IF_EQUAL, 0, 4, self.number),
            (_LOAD, 0, 0, _ARGUMENTS + 2 * 8),
            (_AND, 0, 0, self.mask),
            (_JUMP_IF_EQUAL, 0, 1, self.mask),
            (_RETURN, 0, 0, _ERROR | self.error),
        ]


_RULES = {
    "O_TMPFILE": _Rule("openat", os.O_TMPFILE, errno.EOPNOTSUPP),
    "sync_file_range": _Rule("sync_file_range", 0, errno.ESPIPE),
    "fallocate": _Rule("fallocate", 0, errno.EOPNOTSUPP),
    "renameat2": _Rule("renameat2", 0, errno.ENOSYS),
}
LACKING = list(_RULES)
"""What file systems may lack."""

_RULES["room"] = _Rule("fallocate", 0, errno.ENOSPC)
SYNCS = ["fsync", "fdatasync", "syncfs"]
"""What waits for the disk."""

_RULES |= {name: _Rule(name, 0, errno.EIO) for name in SYNCS}


def refusing(*names: str) -> Callable[[], None]:
    """What `subprocess` does before a program that is refused `LACKING`, `SYNCS` or room."""
    rules = [_RULES[name] for name in names]
    program = [step for rule in rules for step in rule.program()] + [(_RETURN, 0, 0, _ALLOW)]
    steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    head = struct.pack("@HP", len(program), ctypes.addressof(steps))

    def refuse() -> None:
        assert steps, "lives as long as its address is used"
        _done(_LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        _done(_LIBC.prctl(_SET_SECCOMP, _FILTER, head, 0, 0))
        for rule in rules:
            # Unfiltered, it would fail for another reason.
            assert _LIBC.syscall(rule.number, -1, b"x", rule.mask, 0, 0) == -1
            assert ctypes.get_errno() == rule.error, rule

    return refuse


def _done(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "no seccomp filter")
