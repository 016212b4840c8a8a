"""What runs in the zygote: see `juggler.multiprocessing.zygote` for the other side.

One thread that waits for requests, the end of children, and the end of the program. Nothing of the
program's runs here but the top level of the modules that it has imported. A module that starts a
thread there would make every later fork a gamble: the process then begins anew, in place, by exec
(which ends the thread and keeps children and connections), and passes over this module, and over
those that import it, from then on.
"""

import _pickle
import _signal  # type: ignore[import-not-found]
import _socket
import atexit
import errno
import gc
import marshal
import os
import resource
import select
import sys
from array import array

from juggler import _import_hooks, _juggler
from juggler.multiprocessing import _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


_DEBUGGER = ("debugpy", "pydevd", "_pydev")
"""How the modules of the debugger begin that notebooks have. Its import prints warnings."""


class _StartsThread(BaseException):
    """Ends the import of what needs a module that starts a thread; no `except` is to stop it."""


class _Request:
    """A message and the descriptors that came with it."""

    def __init__(self, message: bytes, fds: list[int]) -> None:
        self.message = message
        self.fds = fds
        self.length, streams, no_tracker = _wire.REQUEST.unpack(message)
        received = iter(fds)
        self.answers = next(received)
        self.payload = next(received)
        self.header: dict[str, Any] = marshal.loads(os.pread(self.payload, self.length, 0))
        self.outputs = {fd: next(received) for fd in (1, 2) if streams & fd}
        self.tracker = next(received)
        # The other end of the tracker's pipe, where there is no tracker yet.
        self.unread = next(received) if no_tracker else None
        self.inherited = [*received]

    def answer(self, number: int, *fds: int) -> None:
        """Answer with a number and perhaps a descriptor."""
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", fds))] if fds else []
        _send(self.answers, _wire.ANSWER.pack(number), rights)

    def close(self, *kept: int | None) -> None:
        """Close the descriptors, but for some."""
        for fd in self.fds:
            if fd not in kept:
                os.close(fd)


class _Template:
    """The zygote's state, which `_begin_anew` takes over an exec."""

    def __init__(self, control: int, parent: int) -> None:
        self.control = _socket.socket(fileno=control)
        self.parent = parent
        self.unread: int | None = None  # the tracker's end of its pipe, until it is started
        self.children: dict[int, tuple[int, int]] = {}  # by pidfd: pid, socket for the status
        self.modules: list[str] = []  # those that the program has
        # Those still to be imported, the last one first: while nothing is asked of it, a new zygote
        # begins with what every child needs.
        self.ahead = ["juggler.multiprocessing.context", "multiprocessing.spawn"]
        self.state: dict[str, Any] = {}
        self.banned: set[str] = set()
        self.errors: dict[str, str] = {}
        self.request: _Request | None = None  # while modules are imported for it

    # ------------------------------------------------------------ the loop

    def run(self) -> "NoReturn":
        """Serve until the program has ended or closed the connection."""
        control = self.control.fileno()
        while True:
            ready = select.poll()
            for fd in self._descriptors():
                ready.register(fd, select.POLLIN)
            # What the first child didn't wait for is imported when there is nothing else to do.
            fds = {fd for fd, _ in ready.poll(0 if self.ahead else None)}
            if self.unread in fds:
                self._start_tracker(self.unread)
            if self.parent in fds:
                os._exit(0)
            for pidfd in fds & self.children.keys():
                self._reap(pidfd)
            if control in fds:
                self._receive()
            if self.ahead and not fds:
                self._preload(1)

    def _descriptors(self) -> list[int]:
        """What is waited for."""
        fds = [self.control.fileno(), self.parent, *self.children]
        return fds if self.unread is None else [*fds, self.unread]

    def _receive(self) -> None:
        space = _socket.CMSG_SPACE(4 * _wire.DESCRIPTORS)
        message, ancillary, flags, _ = self.control.recvmsg(
            _wire.REQUEST.size, space, _socket.MSG_CMSG_CLOEXEC
        )
        if not message:
            os._exit(0)
        fds = [*array("i", ancillary[0][2])] if ancillary else []
        if flags & _socket.MSG_CTRUNC:
            # This process may open no more files. Without an answer, the program sees an end.
            if fds:
                _send(fds[0], _wire.ANSWER.pack(-errno.EMFILE), [])
            for fd in fds:
                os.close(fd)
            return
        self.serve(_Request(message, fds))

    def _reap(self, pidfd: int) -> None:
        pid, answers = self.children.pop(pidfd)
        _, status = os.waitpid(pid, 0)
        _send(answers, _wire.STATUS.pack(os.waitstatus_to_exitcode(status)), [])
        os.close(answers)
        os.close(pidfd)

    def _start_tracker(self, unread: int) -> None:
        self.unread = None
        from multiprocessing import spawn, util

        executable = os.fsdecode(spawn.get_executable())
        code = f"from multiprocessing.resource_tracker import main;main({unread})"
        command = [executable, *util._args_from_interpreter_flags(), "-c", code]  # type: ignore[attr-defined]
        util.spawnv_passfds(os.fsencode(executable), command, [unread])
        os.close(unread)

    # ------------------------------------------------------------ a request

    def serve(self, request: _Request) -> None:
        """Carry out a request."""
        first = not self.modules
        self.request = request
        self._become(request.header["state"])
        self._add(request.header["modules"])
        if not first:
            self._preload(len(self.ahead))
        self.request = None
        if request.unread is not None:
            self.unread = request.unread
        kept = None
        if not request.header["fork"]:
            self._report(request)
        elif self._fork(request):
            kept = request.answers
        request.close(kept, request.unread)

    def _become(self, state: "dict[str, Any]") -> None:
        """Take over what has changed in the program since the last request."""
        self.state.update(state)
        if state.get("main"):
            sys.modules["__main__"].__file__ = state["main"]
        if "path" in state:
            sys.path[:] = state["path"]
        if "environment" in state:
            os.environb.clear()
            os.environb.update(state["environment"])
        if "umask" in state:
            os.umask(state["umask"])
        try:
            if "affinity" in state:
                os.sched_setaffinity(0, state["affinity"])
        except (OSError, ValueError):  # the program may have given up rights since
            pass
        if state.get("installed"):
            from juggler import _program

            _program.begin_child(state["installed"])

    def _fork(self, request: _Request) -> bool:
        template = os.getpid()
        # Until the child has its handler and its parent's mask.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGINT])
        try:
            pid = os.fork()
            if pid == 0:
                self._be_child(template, request)
        except OSError as error:
            request.answer(-(error.errno or 1))
            return False
        finally:
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGINT])
        # Only this thread waits for children: the number can't be another process's yet.
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, _signal.SIGKILL)
            os.waitpid(pid, 0)
            request.answer(-(error.errno or 1))
            return False
        request.answer(pid, pidfd)
        self.children[pidfd] = pid, request.answers
        return True

    def _report(self, request: _Request) -> None:
        file = os.memfd_create("juggler-report", os.MFD_CLOEXEC)
        os.pwrite(file, marshal.dumps(self.errors), 0)
        request.answer(0, file)
        os.close(file)

    # ------------------------------------------------------------ the child

    def _be_child(self, template: int, request: _Request) -> "NoReturn":
        code = 1
        try:
            if not _juggler.end_with_parent(template):
                os._exit(1)
            self._leave_template(request)
            _limit_files(self.state["files"])
            _signal.signal(
                _signal.SIGINT,
                _signal.default_int_handler if self.state["sigint"] else _signal.SIG_IGN,
            )
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self.state["blocked"])
            gc.enable()
            if "numpy.random" in sys.modules:
                # Its legacy generator would give the same numbers in every child.
                sys.modules["numpy.random"].seed()
            code = self._run(request)
        except Exception:
            sys.excepthook(*sys.exc_info())
        finally:
            atexit._run_exitfuncs()
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def _leave_template(self, request: _Request) -> None:
        """Close what is the zygote's, and use what came for this child."""
        for fd in self._descriptors():
            if fd != self.parent:
                os.close(fd)
        self.control.detach()
        for _, answers in self.children.values():
            os.close(answers)
        for fd, output in request.outputs.items():
            os.dup2(output, fd)
            os.close(output)
        os.close(request.answers)
        _wire.inherited[:] = request.inherited
        if "multiprocessing.resource_tracker" in sys.modules:
            _share_tracker(request.tracker)
        else:

            def hook(execute: "Callable[[], None]") -> None:
                execute()
                _share_tracker(request.tracker)

            _import_hooks.around_import("multiprocessing.resource_tracker", hook)

    def _run(self, request: _Request) -> int:
        """Be the process that the payload says."""
        from multiprocessing import process, spawn, util

        atexit._clear()
        atexit.register(util._exit_function)  # type: ignore[attr-defined]
        current: Any = process.current_process()
        with open(request.payload, "rb") as file:
            file.seek(request.length)
            current._inheriting = True
            try:
                spawn.prepare(_pickle.load(file))
                child = _pickle.load(file)
            finally:
                del current._inheriting
        code: int = child._bootstrap(parent_sentinel=self.parent)
        return code

    # ------------------------------------------------------------ preloading

    def _add(self, names: list[str]) -> None:
        self.modules += names
        self.ahead = [*reversed(names), *self.ahead]

    def _preload(self, count: int) -> None:
        """Import some of the modules that are ahead."""
        _import_hooks.around_every_import(self._watch)
        for _ in range(count):
            name = self.ahead.pop()
            if name in sys.modules or name == "__mp_main__" or name.startswith(_DEBUGGER):
                continue
            try:
                __import__(name)
            except (Exception, SystemExit, _StartsThread) as error:
                self.errors[name] = f"{type(error).__name__}: {error}"
        _import_hooks.around_every_import(None)
        if not self.ahead:
            gc.freeze()

    def _watch(self, name: str, execute: "Callable[[], None]") -> None:
        if name.startswith(_DEBUGGER):
            raise ImportError(f"{name} watches the program, not its processes")
        if name in self.banned:
            raise _StartsThread(name)
        execute()
        if _threads() > 1 and not _fork_ends_threads():
            self._begin_anew(name)

    def _begin_anew(self, module: str) -> "NoReturn":
        """Exec this process without the threads that the import of `module` has left here."""
        request = self.request
        state = {
            "banned": {*self.banned, module},
            "children": self.children,
            "modules": self.modules,
            "state": self.state,
            "unread": self.unread,
            "request": request and (request.message, request.fds),
        }
        file = os.memfd_create("juggler-zygote", 0)
        os.pwrite(file, marshal.dumps(state), 0)
        answers = [fd for _, fd in self.children.values()]
        for fd in (*self._descriptors(), *answers, *(request.fds if request else ())):
            os.set_inheritable(fd, True)
        _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGINT])
        # sys.argv: -c, the package's folder, control, parent, parent to die with, this file.
        arguments = [*sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1], *sys.argv[1:5]]
        os.execv(sys.executable, [*arguments, str(file)])

    def go_on(self, file: int) -> None:
        """Take over from the process that this was before an exec."""
        with open(file, "rb") as content:
            old = marshal.load(content)
        self.banned = old["banned"]
        self.children = old["children"]
        self.unread = old["unread"]
        answers = [fd for _, fd in self.children.values()]
        message, fds = old["request"] or (b"", [])
        for fd in (*self._descriptors(), *answers, *fds):
            os.set_inheritable(fd, False)
        self._become(old["state"])
        self._add(old["modules"])
        if message:
            self.serve(_Request(message, fds))


def _limit_files(limits: "tuple[int, ...]") -> None:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)  # type: ignore[arg-type]
    except (OSError, ValueError):
        return  # the program may have given up rights since


def _share_tracker(fd: int) -> None:
    """Use the parent's resource tracker."""
    tracker: Any = sys.modules["multiprocessing.resource_tracker"]
    tracker._resource_tracker._fd = fd


def _send(fd: int, message: bytes, ancillary: "list[Any]") -> None:
    peer = _socket.socket(fileno=fd)
    try:
        peer.sendmsg([message], ancillary)
    except OSError:  # nobody wants to know any more
        pass
    finally:
        peer.detach()


def _threads() -> int:
    return os.stat("/proc/self/task").st_nlink - 2


def _fork_ends_threads() -> bool:
    """Whether a fork ends the threads by itself, as it does those of OpenBLAS."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return _threads() == 1


def main() -> "NoReturn":
    """The whole life of the zygote; its arguments are in ``sys.argv``."""
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGINT])
    control, parent, killed, *file = map(int, sys.argv[2:])
    for fd in (control, parent):
        os.set_inheritable(fd, False)
    if killed and not _juggler.end_with_parent(killed):
        os._exit(0)
    gc.disable()
    # The program's limit is its children's; what they have here has to be open all the same.
    _limit_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1:] * 2)
    template = _Template(control, parent)
    # Not the module of `python -c`, which has names of its own: definitions will come in here.
    main = sys.modules["__main__"] = sys.modules["__mp_main__"] = type(sys)("__main__")
    vars(main)["__builtins__"] = __builtins__
    if file:
        template.go_on(*file)
    template.run()
