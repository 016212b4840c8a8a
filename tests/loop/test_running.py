"""How a program comes to a loop; executors, child processes, forks."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import juggler.asyncio
from juggler import _juggler, futures
from juggler.asyncio import EventLoop, EventLoopPolicy, Runner, new_event_loop, run

pytestmark = pytest.mark.filterwarnings("ignore:.*policy.*:DeprecationWarning")


async def loop_class() -> type:
    """The class of the loop that runs this."""
    return type(asyncio.get_running_loop())


@pytest.fixture
def installed() -> Iterator[None]:
    """The standard library's functions make our loops."""
    juggler.asyncio.install()
    juggler.asyncio.install()
    yield
    juggler.asyncio.uninstall()
    juggler.asyncio.uninstall()
    assert asyncio.run(loop_class()) is not EventLoop


def test_the_module_has_what_the_standard_library_s_has() -> None:
    assert set(asyncio.__all__) <= set(juggler.asyncio.__all__)
    for name in juggler.asyncio.__all__:
        ours, stock = getattr(juggler.asyncio, name), getattr(asyncio, name, None)
        if stock is not None and ours is not stock:
            # The primitives say where the standard library's are, as their `repr` shows it.
            assert ours.__module__.startswith("juggler.") or ours in vars(_juggler).values(), name
    assert juggler.asyncio.base_events is asyncio.base_events
    assert {"base_events", "run"} <= set(dir(juggler.asyncio))
    with pytest.raises(AttributeError):
        juggler.asyncio.nothing  # noqa: B018


def test_run_and_runner_use_our_loop() -> None:
    assert run(loop_class()) is EventLoop
    assert run(loop_class(), loop_factory=asyncio.SelectorEventLoop) is not EventLoop
    with Runner() as runner:
        loops = {id(runner.get_loop()) for _ in range(2) if runner.run(loop_class()) is EventLoop}
        assert len(loops) == 1
    with Runner(debug=True) as runner:
        assert runner.get_loop().get_debug()


def test_run_makes_its_loop_the_current_one_as_the_standard_library_does() -> None:
    async def current() -> bool:
        return asyncio.get_event_loop_policy().get_event_loop() is asyncio.get_running_loop()

    assert asyncio.run(current())
    assert run(current())
    with pytest.raises(RuntimeError):
        asyncio.get_event_loop_policy().get_event_loop()


def test_run_inside_a_loop_is_an_error() -> None:
    async def main() -> None:
        inner = loop_class()
        with contextlib.closing(inner), pytest.raises(RuntimeError, match="running event loop"):
            run(inner)

    run(main())


@pytest.mark.usefixtures("installed")
def test_after_install_asyncio_makes_our_loops() -> None:
    assert asyncio.run(loop_class()) is EventLoop
    loop = asyncio.new_event_loop()
    assert type(loop) is EventLoop
    loop.close()
    asyncio.set_event_loop_policy(None)
    assert asyncio.run(loop_class()) is not EventLoop


def test_the_policy_makes_our_loops() -> None:
    policy = EventLoopPolicy()
    loop = policy.new_event_loop()
    assert type(loop) is EventLoop
    loop.close()


def test_the_main_thread_s_loop_is_ours() -> None:
    program = """if True:
        import sys, warnings
        warnings.simplefilter("ignore")
        from juggler import asyncio
        try:
            loop = asyncio.get_event_loop()
        except RuntimeError:
            assert sys.version_info >= (3, 14)
        else:
            assert type(loop) is asyncio.EventLoop and asyncio.get_event_loop() is loop
            loop.close()
        asyncio.set_event_loop(None)
        try:
            asyncio.get_event_loop()
        except RuntimeError:
            print("ok")
    """
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "ok\n"


def test_get_event_loop_gives_the_running_one() -> None:
    async def main() -> bool:
        return juggler.asyncio.get_event_loop() is asyncio.get_running_loop()

    assert run(main())


def test_the_default_executor_is_ours(loop: EventLoop) -> None:
    async def main() -> str:
        return await loop.run_in_executor(None, lambda: threading.current_thread().name)

    assert loop.run_until_complete(main()).startswith("asyncio_")
    assert type(loop._default_executor) is futures.ThreadPoolExecutor


def test_an_executor_of_the_program_is_used(loop: EventLoop) -> None:
    async def main() -> tuple[str, str]:
        name = lambda: threading.current_thread().name  # noqa: E731
        with ThreadPoolExecutor(1, "mine") as executor:
            first = await loop.run_in_executor(executor, name)
            loop.set_default_executor(executor)
            return first, await loop.run_in_executor(None, name)

    assert loop.run_until_complete(main()) == ("mine_0", "mine_0")


def test_after_its_shutdown_there_is_no_default_executor(loop: EventLoop) -> None:
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="Executor shutdown"):
        loop.run_in_executor(None, print)


def in_thread(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What `make()` gives in a loop in a thread of its own."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(run(make())))
    thread.start()
    thread.join()
    return results[0]


async def ask_child() -> tuple[bytes, int | None]:
    """A child process and how it ends."""
    program = "import sys; print(sys.stdin.read().upper()); sys.exit(3)"
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=pipe, stdout=pipe
    )
    output, _ = await child.communicate(b"hello")
    return output, child.returncode


def test_children_can_be_started_in_any_thread() -> None:
    assert run(ask_child()) == (b"HELLO\n", 3)
    assert in_thread(ask_child) == (b"HELLO\n", 3)


def test_a_child_whose_end_somebody_else_saw_has_a_made_up_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> int:
        child = await asyncio.create_subprocess_exec("sleep", "60")
        child.kill()
        os.waitpid(child.pid, 0)
        return await child.wait()

    assert run(main()) == 255
    assert "exit status already read" in caplog.text


def test_a_child_that_outlives_the_loop_leaves_no_descriptor(loop: EventLoop) -> None:
    transport, _protocol = loop.run_until_complete(
        loop.subprocess_exec(
            asyncio.SubprocessProtocol, "sleep", "60", stdin=None, stdout=None, stderr=None
        )
    )
    (descriptor,) = loop._child_descriptors
    loop.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    process = transport.get_extra_info("subprocess")
    transport.close()
    process.wait()


def test_a_child_that_cannot_be_started_is_an_error(loop: EventLoop) -> None:
    with pytest.raises(FileNotFoundError):
        loop.run_until_complete(loop.subprocess_exec(asyncio.SubprocessProtocol, "no such program"))
    assert not loop._child_descriptors


def in_fork(work: Callable[[], object]) -> int:
    """The exit status of a forked child in which `work` returns True."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if work() is True else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_of_a_running_loop_runs_loops_of_its_own(loop: EventLoop) -> None:
    async def main() -> int:
        def work() -> bool:
            return not loop.is_running() and run(loop_class()) is EventLoop

        return in_fork(work)

    assert loop.run_until_complete(main()) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_parent_and_child_do_not_hear_each_other_s_descriptors() -> None:
    loop = new_event_loop()
    a, b = socket.socketpair()
    seen: list[str] = []

    def work() -> bool:
        # The same loop, which has a list of descriptors of its own from here on.
        loop.remove_reader(a)
        c, d = socket.socketpair()
        with c, d:
            loop.add_reader(c, loop.stop)
            threading.Timer(0.01, d.send, (b"x",)).start()
            loop.run_forever()
            loop.call_soon_threadsafe(loop.stop)
            loop.run_forever()
        return seen == []

    with a, b:
        loop.add_reader(a, lambda: (seen.append("parent"), loop.stop()))
        assert in_fork(work) == 0
        b.send(b"x")
        loop.run_forever()
        assert seen == ["parent"]
        loop.remove_reader(a)
    loop.close()
