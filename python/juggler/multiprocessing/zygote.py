"""The zygote, from the side of the program: a clean process that forks the program's children.

It is started at the first use, by fork and exec, and reached over one end of a socket pair that
only this process holds; `juggler.multiprocessing._template` is what runs in it. It has one thread
and has imported what the program had imported (but for the main module), so a child has that for
the price of a fork and shares its memory. Only the first child doesn't wait for these imports; it
makes those that it needs by itself.

A request is one message with descriptors: a memory file that holds a header for the zygote and the
pickled payload for the child, one end of a socket pair for the answers, standard output and error,
the write end of the resource tracker's pipe, and whatever the payload refers to. Two answers come:
the child's number with a pidfd, made before the child could be reaped, and its exit status.
"""

import _thread
import errno
import marshal
import os
import resource
import signal
import socket
import sys
from array import array
from contextlib import suppress
from multiprocessing import ProcessError, resource_tracker, spawn, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from juggler import _program
from juggler.multiprocessing._wire import ANSWER, MOST_INHERITED, REQUEST

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Forked", "fork", "preload_errors", "prepare", "stop"]


class Forked(NamedTuple):
    """A child of the zygote: its number, its pidfd, and where its exit status arrives."""

    pid: int
    pidfd: int
    status: socket.socket


def fork(payload: "bytes | memoryview", descriptors: "Sequence[int]" = ()) -> Forked:
    """Have the zygote fork a child, which unpickles two objects and runs the second.

    Args:
        payload: Preparation data as of ``multiprocessing.spawn``, then the process object.
        descriptors: What the payload's `DupFd` objects refer to.

    Raises:
        ValueError: There are too many descriptors for one message.
        OSError: The fork failed, as ``os.fork`` would have it, or there are no descriptors left.
        ProcessError: The zygote died before it answered. The next call starts another.
    """
    if len(descriptors) > MOST_INHERITED:
        raise ValueError(f"{len(descriptors)} descriptors: no more than {MOST_INHERITED} travel")
    answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            _zygote.request(payload, theirs.fileno(), descriptors)
        return Forked(*_receive(answers), answers)
    except BaseException:
        answers.close()
        _zygote.repeat()
        raise


def prepare() -> None:
    """Start the zygote if there is none, and don't wait for it: `fork` is coming soon."""
    _zygote.prepare()


def preload_errors() -> dict[str, str]:
    """Why the running zygote could not import modules that the program has; by module."""
    answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with answers:
        with theirs:
            _zygote.request(None, theirs.fileno(), ())
        _, received = _receive(answers)
        with open(received, "rb") as report:
            errors: dict[str, str] = marshal.load(report)
        return errors


def stop() -> None:
    """End the zygote, and with it its children. The next use starts another."""
    _zygote.stop()


def _receive(answers: socket.socket) -> tuple[int, int]:
    """An answer and its descriptor, made ours."""
    try:
        message, ancillary, _, _ = answers.recvmsg(
            ANSWER.size, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        message = b""
    if not message:
        raise ProcessError(
            "the zygote, which forks this program's processes, died or ran out of descriptors"
            " before it had forked this one; the next start() begins with a new zygote, if need be"
        )
    (number,) = ANSWER.unpack(message)
    if number < 0:
        raise OSError(-number, os.strerror(-number))
    if not ancillary:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return number, array("i", ancillary[0][2])[0]


class _Zygote:
    """The one zygote of this process."""

    def __init__(self) -> None:
        # Not of juggler.threading: it guards what must work in any state of the program.
        self._lock = _thread.allocate_lock()
        self._control: socket.socket | None = None
        self._pid = 0
        # What the zygote has been told, so that it is told only what is new.
        self._modules: set[str] = set()
        self._told: dict[str, Any] = {}

    def request(self, payload: Any, answers: int, descriptors: "Sequence[int]") -> None:
        """Send a request, to a new zygote if there is none or the last one died."""
        tracker, unread = _tracker_pipe()
        descriptors = [answers, tracker, *([] if unread is None else [unread]), *descriptors]
        try:
            with self._lock:
                if self._control is not None:
                    try:
                        self._send(payload, descriptors, unread is not None)
                        return
                    except (BrokenPipeError, ConnectionResetError):
                        # It died some time ago: this request was not delivered.
                        self._forget()
                self._start()
                self._send(payload, descriptors, unread is not None)
        finally:
            if unread is not None:
                os.close(unread)

    def prepare(self) -> None:
        with self._lock:
            if self._control is None:
                self._start()

    def stop(self) -> None:
        with self._lock:
            self._forget()

    def repeat(self) -> None:
        """Tell everything again: the last request may not have been read."""
        with self._lock:
            self._modules = set()
            self._told = {}

    def after_fork_in_child(self) -> None:
        """The zygote is the parent's."""
        if self._control is not None:
            self._control.close()
        self.__init__()  # type: ignore[misc]

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            parent = os.pidfd_open(os.getpid())
            try:
                self._pid = _spawn(theirs.fileno(), parent)
            except BaseException:
                ours.close()
                raise
            finally:
                os.close(parent)
        self._control = ours

    def _forget(self) -> None:
        control, pid = self._control, self._pid
        self._control = None
        self._modules = set()
        self._told = {}
        if control is not None:
            control.close()
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _send(self, payload: Any, descriptors: "Sequence[int]", has_tracker: bool) -> None:
        control = self._control
        assert control is not None
        loaded = [*sys.modules]
        state = _state()
        # Modules in the order in which the program began to import them.
        header = marshal.dumps(
            {
                "fork": payload is not None,
                "modules": [name for name in loaded if name not in self._modules],
                "state": {
                    name: state[name] for name in state if self._told.get(name) != state[name]
                },
            }
        )
        streams = [fd for fd in (1, 2) if _is_open(fd)]
        file = os.memfd_create("juggler-request", os.MFD_CLOEXEC)
        with open(file, "wb") as content:
            content.write(header)
            if payload is not None:
                content.write(payload)
            content.flush()
            message = REQUEST.pack(len(header), sum(streams), has_tracker)
            answers, *others = descriptors
            rights = array("i", [answers, file, *streams, *others])
            control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        self._modules.update(loaded)
        self._told = state


def _spawn(control: int, parent: int) -> int:
    """Start the process; returns its number."""
    root = str(Path(__file__).parents[2])
    # This copy of the package, wherever it lies, and nothing from the current folder.
    code = (
        "import sys; sys.path[:] = [sys.argv[1], *filter(None, sys.path)]; "
        "import juggler; del sys.path[0]; "
        "from juggler.multiprocessing._template import main; main()"
    )
    # The kernel kills it when the thread that starts it ends: wanted of the main thread only.
    killed = os.getpid() if _thread.get_native_id() == os.getpid() else 0
    executable = os.fsdecode(spawn.get_executable())
    command = [executable, *util._args_from_interpreter_flags(), "-c", code, root]  # type: ignore[attr-defined]
    command += [str(control), str(parent), str(killed)]
    # Ctrl-C is for the program. The zygote lets the signal through when it ignores it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return util.spawnv_passfds(os.fsencode(executable), command, [control, parent])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _state() -> dict[str, Any]:
    """What a child inherits from its parent, where the zygote's has become another."""
    return {
        "main": getattr(sys.modules["__main__"], "__file__", None),
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "environment": dict(os.environb),
        "umask": _umask(),
        "sigint": signal.getsignal(signal.SIGINT) is not signal.SIG_IGN,
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "affinity": sorted(os.sched_getaffinity(0)),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "installed": _program.child_settings(),
    }


def _umask() -> int:
    # Asking the system call would change it for the other threads.
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o022


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _tracker_pipe() -> tuple[int, int | None]:
    """The pipe to the resource tracker, and its other end if the tracker isn't there yet.

    Children must share their parent's tracker, but most programs have nothing for it to track. So
    the pipe is made without it; the zygote starts it when there is something to read.
    """
    tracker: Any = resource_tracker._resource_tracker
    with tracker._lock:
        if tracker._fd is not None:
            return tracker._fd, None
        unread, tracker._fd = os.pipe()
        return tracker._fd, unread


_zygote = _Zygote()
os.register_at_fork(after_in_child=_zygote.after_fork_in_child)
