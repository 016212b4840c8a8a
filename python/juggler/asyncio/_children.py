"""Child processes of an event loop: each is watched by a descriptor that is readable at its end."""

from __future__ import annotations

import asyncio
import os
from asyncio import unix_events
from asyncio.log import logger

from juggler.asyncio._event_loop import Base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


_Transport: Callable[..., Any] = getattr(unix_events, "_UnixSubprocessTransport")  # noqa: B009, private
_exit_code: Callable[[int], int] = getattr(unix_events, "waitstatus_to_exitcode")  # noqa: B009


class ChildWatching(Base):
    """The part of a loop that starts child processes.

    No signal handler, thread or child watcher of a policy is needed, so this works in any thread
    and on every version alike.
    """

    _child_descriptors: set[int]

    async def _make_subprocess_transport(
        self,
        protocol: asyncio.SubprocessProtocol,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: Any = None,
        **kwargs: Any,
    ) -> Any:
        waiter = self.create_future()
        transport = _Transport(
            self, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter, extra, **kwargs
        )
        try:
            descriptor = os.pidfd_open(transport.get_pid())
            self._child_descriptors.add(descriptor)
            self._add_reader(descriptor, self._child_ended, descriptor, transport)
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await asyncio.shield(transport._wait())
            raise
        return transport

    def _child_ended(self, descriptor: int, transport: Any) -> None:
        self._remove_reader(descriptor)
        self._child_descriptors.discard(descriptor)
        os.close(descriptor)
        pid = transport.get_pid()
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            returncode = 255
            logger.warning("child process pid %d exit status already read: will report 255", pid)
        else:
            returncode = _exit_code(status)
        transport._process_exited(returncode)
