"""Child processes and their streams: stands in for ``asyncio.subprocess``. See `juggler.asyncio`.

The streams are native, and what a child writes goes from its pipe to the reader without a callback
in between. All else is the standard library's own.
"""

from __future__ import annotations

import asyncio
from asyncio import subprocess
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process

from juggler import _juggler
from juggler.asyncio.streams import _LIMIT, StreamReader, StreamWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Process",
    "SubprocessStreamProtocol",
    "create_subprocess_exec",
    "create_subprocess_shell",
]


@_juggler._set_child_protocol_class
class SubprocessStreamProtocol(subprocess.SubprocessStreamProtocol):
    """The protocol that makes streams of a child's pipes.

    Stands in for `asyncio.subprocess.SubprocessStreamProtocol`, and is a subclass of it.
    """

    _limit: int
    _loop: Any
    _pipe_fds: list[int]
    _transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make the streams."""
        child: Any = transport
        self._transport = child
        self.stdout = self._reader(1)
        self.stderr = self._reader(2)
        stdin = child.get_pipe_transport(0)
        if stdin is not None:
            self.stdin = StreamWriter(stdin, self, None, self._loop)

    def _reader(self, descriptor: int) -> StreamReader | None:
        pipe = self._transport.get_pipe_transport(descriptor)
        if pipe is None:
            return None
        reader = StreamReader(self._limit, self._loop)
        reader.set_transport(pipe)
        self._pipe_fds.append(descriptor)
        if type(self) is SubprocessStreamProtocol and type(pipe) is _juggler.ReadPipeTransport:
            # What was read before is told in this turn of the loop, and nothing is read before it
            # ends.
            pipe._feed(reader)
        return reader


def _factory(limit: int) -> tuple[Any, Callable[[], SubprocessStreamProtocol]]:
    loop: Any = asyncio.get_running_loop()
    return loop, lambda: SubprocessStreamProtocol(limit, loop)


async def create_subprocess_exec(
    program: Any,
    *args: Any,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **kwds: Any,
) -> Process:
    """Start a program as a child process; its pipes are streams.

    Args:
        program: the program.
        *args: its arguments.
        stdin: as for `subprocess.Popen`; with `PIPE` the child's ``stdin`` is a writer.
        stdout: the same; with `PIPE` its ``stdout`` is a reader.
        stderr: the same; with `PIPE` its ``stderr`` is a reader.
        limit: see `open_connection`.
        **kwds: as for `subprocess.Popen`.
    """
    loop, factory = _factory(limit)
    transport, protocol = await loop.subprocess_exec(
        factory, program, *args, stdin=stdin, stdout=stdout, stderr=stderr, **kwds
    )
    return Process(transport, protocol, loop)


async def create_subprocess_shell(
    cmd: Any,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **kwds: Any,
) -> Process:
    """As `create_subprocess_exec`, for a command of the shell."""
    loop, factory = _factory(limit)
    transport, protocol = await loop.subprocess_shell(
        factory, cmd, stdin=stdin, stdout=stdout, stderr=stderr, **kwds
    )
    return Process(transport, protocol, loop)
