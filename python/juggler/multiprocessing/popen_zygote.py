"""A child of the zygote: what ``multiprocessing.popen_forkserver`` is to the forkserver."""

import io
import os
import select
import signal
import socket
from contextlib import suppress
from multiprocessing import popen_fork, spawn, util
from multiprocessing.context import set_spawning_popen
from typing import Any

from juggler.multiprocessing import _child_pickling, zygote
from juggler.multiprocessing._wire import STATUS, Inherited

__all__ = ["Popen"]


class Popen(popen_fork.Popen):
    """The parent's hold on a child of the zygote.

    The descriptor `sentinel` is the socket on which the child's exit status arrives. The status is
    only looked at there, never taken, so any number of threads may wait for it.
    """

    method = "zygote"
    DupFd = Inherited

    def __init__(self, process_obj: Any) -> None:
        self._fds: list[int] = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Has a descriptor sent to the child; returns its place among those sent."""
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process_obj: Any) -> None:
        zygote.prepare()  # it starts while we pickle
        data = spawn.get_preparation_data(process_obj._name)
        # The child doesn't run the main module.
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
        payload = io.BytesIO()
        set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            _child_pickling.dump(data, payload, self._fds)
            _child_pickling.dump(process_obj, payload, self._fds)
        finally:
            set_spawning_popen(None)
        child = zygote.fork(payload.getbuffer(), self._fds)
        self.pid, self._pidfd, self._status = child
        self.sentinel = self._status.fileno()
        self.finalizer = util.Finalize(self, _close, (self._status, self._pidfd))

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit status, waited for unless `flag` says ``WNOHANG``."""
        if self.returncode is None:
            flags = socket.MSG_PEEK | (socket.MSG_DONTWAIT if flag == os.WNOHANG else 0)
            try:
                message = self._status.recv(STATUS.size, flags)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                message = b""
            except OSError:  # another thread was faster, and has closed the process
                return self.returncode
            if message:
                (self.returncode,) = STATUS.unpack(message)
            else:
                # The zygote died, and the kernel kills its children then; nobody has their status.
                ended = select.poll()
                ended.register(self._pidfd, select.POLLIN)
                if not ended.poll(0 if flag == os.WNOHANG else None):
                    return None
                self.returncode = -signal.SIGKILL
        return self.returncode

    def _send_signal(self, sig: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended
                signal.pidfd_send_signal(self._pidfd, sig)


def _close(status: socket.socket, pidfd: int) -> None:
    status.close()
    os.close(pidfd)
