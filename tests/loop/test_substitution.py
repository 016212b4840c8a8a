"""What a program under `juggler run`, or after an `install`, finds in ``asyncio``."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = {
    "run": "print(type(asyncio.run(main())).__module__)",
    "runner": "with asyncio.Runner() as r: print(type(r.run(main())).__module__)",
    "new": "l = asyncio.new_event_loop(); l.close(); print(type(l).__module__)",
}
MAIN = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
async def main(): return asyncio.get_running_loop()
"""
OURS = "juggler.asyncio._event_loop\n"
STOCK = "asyncio.unix_events\n"


def output(tmp_path: Path, program: str, *command: str) -> str:
    """What a program prints."""
    path = tmp_path / "program.py"
    path.write_text(program)
    whole = [sys.executable, *command, str(path)]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_under_juggler_run_asyncio_has_our_loop(tmp_path: Path, program: str) -> None:
    run = ("-m", "juggler", "run")
    assert output(tmp_path, MAIN + program) == STOCK
    assert output(tmp_path, MAIN + program, *run) == OURS


@pytest.mark.parametrize("order", ["before", "after"])
def test_install_may_come_before_or_after_asyncio_is_imported(tmp_path: Path, order: str) -> None:
    install = "import juggler; juggler.install()\n"
    begin = install + MAIN if order == "before" else MAIN + install
    end = f"\njuggler.uninstall()\n{PROGRAMS['run']}"
    assert output(tmp_path, begin + PROGRAMS["run"] + end) == OURS + STOCK


LOOPS = ["SelectorEventLoop", *(["EventLoop"] if sys.version_info >= (3, 13) else [])]


@pytest.mark.parametrize("name", LOOPS)
def test_the_loop_by_the_name_of_its_class_is_ours(tmp_path: Path, name: str) -> None:
    program = f"""
loop = asyncio.{name}()
loop.close()
print(type(loop).__module__)
assert isinstance(loop, asyncio.{name}) and issubclass(type(loop), asyncio.{name})
assert not isinstance(1, asyncio.{name})
"""
    assert output(tmp_path, MAIN + program, "-m", "juggler", "run") == OURS


@pytest.mark.parametrize("name", LOOPS)
def test_who_counts_on_what_is_inside_a_loop_has_the_standard_library_s(
    tmp_path: Path, name: str
) -> None:
    program = f"""
import selectors
class Mine(selectors.SelectSelector):
    looks = 0
    def select(self, timeout=None):
        self.looks += 1
        return super().select(timeout)
class Derived(asyncio.{name}):
    def __init__(self):
        super().__init__(selector)
    def _run_once(self):
        super()._run_once()
async def task():
    return type(asyncio.current_task()) is asyncio.Task
for make in (lambda: asyncio.{name}(selector), lambda: Derived()):
    selector = Mine()
    loop = make()
    assert isinstance(loop, asyncio.{name})
    assert loop.run_until_complete(task())
    loop.close()
    print(selector.looks > 0, isinstance(loop, Derived))
"""
    printed = output(tmp_path, MAIN + program, "-m", "juggler", "run")
    assert printed == "True False\nTrue True\n"


# Every class and function of asyncio that juggler has its own of.
NAMES = """
from juggler import asyncio as ours
import inspect
differing = [name for name in asyncio.__all__ if getattr(ours, name) is not STOCK[name]]
policy = ["Handle", "Runner", "TimerHandle", "get_event_loop", "new_event_loop", "run"]
names = sorted(set(differing) - set(policy))
assert {"Future", "Task", "Lock", "Queue", "StreamReader", "sleep"} <= set(names)
def check():
    for name in names:
        ours_is = "SelectorEventLoop" if name == "EventLoop" else name
        assert getattr(asyncio, name) is getattr(ours, ours_is), name
        assert vars(third)[name] is getattr(asyncio, name), name
    assert asyncio.tasks.Task is ours.Task and asyncio.locks.Lock is ours.Lock
    assert asyncio.run(main()).__class__ is ours.EventLoop
"""
THIRD = """
import asyncio, types
STOCK = dict(vars(asyncio))
third = types.ModuleType("third.party")
sys.modules["third.party"] = third
exec("from asyncio import *", vars(third))
"""


@pytest.mark.parametrize("install", ["juggler.install()", "juggler.asyncio.install()"])
def test_the_classes_are_ours_in_every_module(tmp_path: Path, install: str) -> None:
    undo = install.replace("install", "uninstall")
    program = f"""{MAIN}{THIRD}
before = dict(vars(third))
import juggler
{install}
{install}
{NAMES}
check()
queue = asyncio.Queue()
{undo}
assert vars(third) == before and dict(vars(asyncio)) == STOCK
assert asyncio.run(main()).__class__ is not ours.EventLoop
{install}
check()
print("replaced")
"""
    assert output(tmp_path, program) == "replaced\n"


def test_one_installs_what_the_other_takes_out(tmp_path: Path) -> None:
    program = f"""{MAIN}
import juggler, queue, threading
stock = asyncio.Task, queue.Queue
juggler.install()
assert asyncio.Task is juggler.asyncio.Task and queue.Queue is juggler.queue.Queue
juggler.asyncio.uninstall()
assert asyncio.Task is stock[0] and queue.Queue is juggler.queue.Queue
print(type(asyncio.run(main())).__module__)
juggler.asyncio.install()
assert asyncio.Task is juggler.asyncio.Task
print(type(asyncio.run(main())).__module__)
juggler.uninstall()
assert (asyncio.Task, queue.Queue) == stock
print(type(asyncio.run(main())).__module__)
"""
    assert output(tmp_path, program) == STOCK + OURS + STOCK


def test_modules_imported_under_juggler_run_have_our_classes(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text("from asyncio import Event, Future, Queue, Task, gather\n")
    program = f"""{MAIN}
import library
from juggler import asyncio as ours
for name in ("Event", "Future", "Queue", "Task", "gather"):
    assert getattr(library, name) is getattr(ours, name) is getattr(asyncio, name)
class Mine(asyncio.Task): ...
async def of_task():
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, coro, **kwargs: Mine(coro, loop=loop, **kwargs))
    mine = asyncio.create_task(asyncio.sleep(0, "slept"))
    assert type(mine) is Mine and isinstance(mine, (asyncio.Task, asyncio.Future))
    return await library.gather(mine)
print(asyncio.run(of_task()))
"""
    assert output(tmp_path, program, "-m", "juggler", "run") == "['slept']\n"


@pytest.mark.parametrize("installed", [False, True])
def test_eager_tasks_are_native(tmp_path: Path, installed: bool) -> None:
    program = f"""{MAIN}
import juggler.asyncio as ours
factories = [ours.eager_task_factory]
if sys.version_info >= (3, 12):
    factories += [asyncio.eager_task_factory]
if {installed}:
    ours.install()
if sys.version_info >= (3, 12):
    assert (ours.eager_task_factory is asyncio.eager_task_factory) == {installed}
async def step():
    seen.append("step")
async def of_task(factory):
    asyncio.get_running_loop().set_task_factory(factory)
    task = asyncio.create_task(step(), name="eager")
    assert seen.pop() == "step" and task.done() and task.get_name() == "eager"
    return type(task) is ours.Task
seen = []
for factory in factories:
    assert ours.run(of_task(factory))
print("native")
"""
    assert output(tmp_path, program) == "native\n"


def test_who_opts_out_of_native_tasks_has_none_after_install_either(tmp_path: Path) -> None:
    program = f"""{MAIN}
stock = [asyncio.Future, asyncio.Task]
import juggler.asyncio
juggler.asyncio.install()
async def kinds():
    loop = asyncio.get_running_loop()
    made = [loop.create_future(), asyncio.create_task(asyncio.sleep(0), name="named")]
    assert [type(each) for each in (*made, asyncio.current_task())] == [*stock, stock[1]]
    assert made[1].get_name() == "named"
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
        assert type(asyncio.create_task(asyncio.sleep(0))) is stock[1]
    await made[1]
    print("stock")
juggler.asyncio.run(kinds(), native_tasks=False)
juggler.asyncio.run(kinds(), native_tasks=False, debug=True)
"""
    assert output(tmp_path, program) == "stock\n" * 2


def test_a_program_s_own_policy_stays(tmp_path: Path) -> None:
    program = """
class Loop(asyncio.SelectorEventLoop): ...
class Mine(asyncio.DefaultEventLoopPolicy):
    _loop_factory = Loop
asyncio.set_event_loop_policy(Mine())
"""
    run = ("-m", "juggler", "run")
    assert output(tmp_path, MAIN + program + PROGRAMS["run"], *run) == "__main__\n"
    install = "import juggler; juggler.install()\n"
    assert output(tmp_path, MAIN + program + install + PROGRAMS["run"]) == "__main__\n"


def test_asyncio_s_own_install_replaces_a_program_s_policy(tmp_path: Path) -> None:
    program = """
class Mine(asyncio.DefaultEventLoopPolicy): ...
mine = Mine()
asyncio.set_event_loop_policy(mine)
import juggler.asyncio
juggler.asyncio.install()
print(type(asyncio.run(main())).__module__)
juggler.asyncio.uninstall()
assert asyncio.get_event_loop_policy() is mine
"""
    assert output(tmp_path, MAIN + program) == OURS


def test_a_program_without_asyncio_does_not_import_it(tmp_path: Path) -> None:
    program = "import sys, threading; print('asyncio' in sys.modules)"
    assert output(tmp_path, program, "-m", "juggler", "run") == "False\n"
