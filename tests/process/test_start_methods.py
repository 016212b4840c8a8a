"""Processes by each start method: what `Process` promises, and that children are on juggler."""

import sys
from collections.abc import Callable

import pytest

METHODS = ["zygote", "fork", "spawn", "forkserver"]

ATTRIBUTES = """
import os, signal, sys, time
from juggler import multiprocessing as mp

def leave(code): sys.exit(code)
def fail(): raise ValueError("on purpose")
def sleep(): time.sleep(1000)

if __name__ == "__main__":
    context = mp.get_context(sys.argv[1] if len(sys.argv) > 1 else METHOD)
    Process = context.Process

    process = Process(target=leave, args=(3,), name="leaver")
    assert (process.pid, process.exitcode, process.is_alive(), process.name) == (
        None, None, False, "leaver")
    process.start()
    assert mp.connection.wait([process.sentinel]) == [process.sentinel]
    process.join()
    assert (process.exitcode, process.is_alive()) == (3, False)
    assert process not in mp.active_children()
    process.close()
    try:
        process.join()
    except ValueError:
        print("closed")

    for stop, code in ("terminate", -signal.SIGTERM), ("kill", -signal.SIGKILL):
        process = Process(target=sleep, daemon=True)
        process.start()
        assert process.daemon and process.is_alive() and process.exitcode is None
        assert process in mp.active_children()
        process.join(0.01)
        assert process.is_alive()
        try:
            process.close()
        except ValueError:
            print("still running")
        getattr(process, stop)()
        process.join()
        assert process.exitcode == code, process.exitcode
    print(context.get_start_method())
"""


@pytest.mark.parametrize("method", METHODS)
def test_attributes(run_program: Callable[..., str], method: str) -> None:
    output = run_program(
        "from juggler.multiprocessing import connection\n"
        + ATTRIBUTES.replace("METHOD", repr(method))
    )
    assert output == f"closed\nstill running\nstill running\n{method}\n"


@pytest.mark.parametrize("method", METHODS)
def test_child_knows_its_family(run_program: Callable[..., str], method: str) -> None:
    program = f"""
import os
from juggler import multiprocessing as mp

def child(pipe):
    parent = mp.parent_process()
    pipe.send((parent.pid, parent.is_alive(), mp.current_process().name, mp.get_start_method()))

def daemon(pipe):
    try:
        mp.Process(target=print).start()
    except AssertionError as error:
        pipe.send(str(error))

if __name__ == "__main__":
    mp.set_start_method({method!r})
    ours, theirs = mp.Pipe()
    process = mp.Process(target=child, args=(theirs,), name="kid")
    process.start()
    assert ours.recv() == (os.getpid(), True, "kid", {method!r})
    process.join()
    process = mp.Process(target=daemon, args=(theirs,), daemon=True)
    process.start()
    print(ours.recv())
    process.join()
"""
    assert run_program(program) == "daemonic processes are not allowed to have children\n"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["run", "install"])
def test_children_run_on_juggler(run_program: Callable[..., str], method: str, way: str) -> None:
    install = "import juggler; juggler.install()" if way == "install" else ""
    program = f"""
import multiprocessing
import queue
import sys

def child(pipe):
    import juggler.queue
    pipe.send((queue.Queue is juggler.queue.Queue, multiprocessing.get_start_method()))

if __name__ == "__main__":
    {install}
    from multiprocessing import Pipe, Process
    multiprocessing.set_start_method({method!r})
    ours, theirs = Pipe()
    process = Process(target=child, args=(theirs,))
    process.start()
    print(ours.recv())
    process.join()
    assert process.exitcode == 0
"""
    options = ["-m", "juggler", "run", "program.py"] if way == "run" else []
    assert run_program(program, *options) == f"(True, {method!r})\n"


@pytest.mark.parametrize("method", METHODS)
def test_classes_derived_at_import_agree(run_program: Callable[..., str], method: str) -> None:
    # The forkserver imports the main module long before there is a child.
    program = f"""
import multiprocessing, queue

class Mine(queue.Queue):
    pass

def child(pipe):
    import juggler.queue
    pipe.send(issubclass(Mine, juggler.queue.Queue))

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    print(ours.recv())
    process.join()
"""
    assert run_program(program, "-m", "juggler", "run", "program.py") == "True\n"


def test_unmodified_programs_keep_their_default(run_program: Callable[..., str]) -> None:
    program = "import multiprocessing; print(multiprocessing.get_start_method())"
    plain = run_program(program)
    assert plain == ("forkserver\n" if sys.version_info >= (3, 14) else "fork\n")
    assert run_program(program, "-m", "juggler", "run", "program.py") == plain


def test_uninstall_puts_the_contexts_back(run_program: Callable[..., str]) -> None:
    program = """
import multiprocessing.context as context
before = dict(context._concrete_contexts), context.ForkContext, context.ForkProcess
chosen = context._default_context.get_context()
import juggler
juggler.install()
assert "zygote" in context._concrete_contexts and context.ForkContext is not before[1]
assert context._default_context.get_context() is context._concrete_contexts[chosen._name]
assert context._default_context.get_context() is not chosen
juggler.uninstall()
assert (dict(context._concrete_contexts), context.ForkContext, context.ForkProcess) == before
assert context._default_context.get_context() is chosen
"""
    assert run_program(program) == ""


def test_choosing(run_program: Callable[..., str]) -> None:
    program = """
from juggler import multiprocessing as mp
assert mp.get_all_start_methods() == ["zygote", "fork", "spawn", "forkserver"]
assert mp.get_start_method(allow_none=True) is None
assert mp.get_start_method() == "zygote"
for bad in "thread", 3, "Fork":
    try:
        mp.get_context(bad)
    except ValueError as error:
        print(error)
mp.set_start_method("spawn", force=True)
try:
    mp.set_start_method("fork")
except RuntimeError as error:
    print(error)
try:
    mp.get_context("fork").set_start_method("spawn")
except ValueError as error:
    print(error)
assert mp.get_context("fork").get_context() is mp.get_context("fork")
"""
    assert run_program(program).splitlines() == [
        "cannot find context for 'thread'; there are zygote, fork, spawn, forkserver",
        "cannot find context for 3; there are zygote, fork, spawn, forkserver",
        "cannot find context for 'Fork'; there are zygote, fork, spawn, forkserver",
        "context has already been set",
        "cannot set start method of concrete context",
    ]


def test_the_whole_package_is_there(run_program: Callable[..., str]) -> None:
    program = """
import sys
import juggler.multiprocessing
assert "multiprocessing" not in sys.modules
import importlib, multiprocessing, pkgutil
ours = juggler.multiprocessing
assert set(multiprocessing.__all__) <= set(ours.__all__) and set(ours.__all__) <= set(dir(ours))
assert all(hasattr(ours, name) for name in multiprocessing.__all__)
modules = [m.name for m in pkgutil.iter_modules(multiprocessing.__path__)]
for name in modules:
    if "win32" not in name:
        module = importlib.import_module(f"juggler.multiprocessing.{name}")
        stock = importlib.import_module(f"multiprocessing.{name}")
        missing = [n for n in stock.__all__ if not hasattr(module, n)]
        assert not missing, (name, missing)
assert importlib.import_module("juggler.multiprocessing.dummy.connection").Client
try:
    ours.nothing
except AttributeError as error:
    print(error)
"""
    expected = "module 'juggler.multiprocessing' has no attribute 'nothing'\n"
    assert run_program(program) == expected
