"""`juggler.install` and `juggler.uninstall`, each case in an interpreter of its own."""

import sys
from collections.abc import Callable

import pytest

Check = Callable[..., str]

# What must hold under `install`, whatever came first.
ALL_REPLACED = """
import concurrent.futures as f, concurrent.futures.thread as t, queue as q, threading as th
from juggler import futures, queue, threading
assert th.Lock is threading.Lock and th.Condition is threading.Condition
assert q.Queue is queue.Queue and q.PriorityQueue is queue.PriorityQueue
assert f.Future is f._base.Future is futures.Future and f.wait is f._base.wait is futures.wait
assert f.ThreadPoolExecutor is t.ThreadPoolExecutor is futures.ThreadPoolExecutor
print("replaced")
"""


@pytest.mark.parametrize(
    "before",
    [
        "",
        "import threading",
        "import queue, concurrent.futures",
        "from concurrent.futures import ThreadPoolExecutor",
        "import concurrent.futures.thread, concurrent.futures.process",
        "import juggler.threading",
        "import juggler.futures",
        "from juggler import queue, threading, futures",
        "import asyncio, logging, multiprocessing",
    ],
)
@pytest.mark.parametrize(
    "after",
    [
        "",
        "import juggler.futures",
        "from concurrent.futures import *",
        "from concurrent.futures.thread import ThreadPoolExecutor",
        "import concurrent.futures.process",
        "import asyncio, queue",
    ],
)
def test_replaces_in_every_order(check: Check, before: str, after: str) -> None:
    program = f"{before}\nimport juggler; juggler.install()\n{after}\n{ALL_REPLACED}"
    assert check(program) == "replaced\n"


def test_every_native_name_is_replaced(check: Check) -> None:
    program = """
import threading, queue, concurrent.futures, concurrent.futures.thread
stdlib = {"threading": threading, "queue": queue, "futures": concurrent.futures}
before = {name: dict(vars(module)) for name, module in stdlib.items()}
import juggler
juggler.install()
for name, module in stdlib.items():
    ours = getattr(juggler, name)
    differing = [n for n in ours.__all__ if n in before[name] and n != "excepthook"
                 and before[name][n] is not getattr(ours, n)]
    assert differing, name
    for n in differing:
        assert vars(module)[n] is getattr(ours, n), n
    public = {n for n in before[name] if n in ours.__all__}
    for n in before[name].keys() - public:
        assert vars(module)[n] is before[name][n], n
    print(name, sorted(differing))
"""
    lines = check(program).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["threading", "queue", "futures"]
    for name in ("Condition", "Event", "Lock", "RLock", "Semaphore"):
        assert f"'{name}'" in lines[0]
    for name in ("LifoQueue", "PriorityQueue", "Queue"):
        assert f"'{name}'" in lines[1]
    for name in ("Future", "as_completed", "wait"):
        assert f"'{name}'" in lines[2]


def test_names_taken_before_are_replaced_and_restored(check: Check) -> None:
    program = """
import sys, types
third = types.ModuleType("third.party")
exec(
    "from queue import Queue as Channel, Empty\\nfrom threading import Lock, RLock\\n"
    "from concurrent.futures import ThreadPoolExecutor, as_completed\\n"
    "class Old(Channel): pass\\ndefault = Lock()\\n"
    "first = 'FIRST_COMPLETED'\\n",
    vars(third),
)
sys.modules["third.party"] = third
from threading import Event
import juggler
before, mine, old = dict(vars(third)), dict(globals()), third.Old()
juggler.install()
from juggler import queue, threading, futures
assert third.Channel is queue.Queue and third.Lock is threading.Lock
assert third.RLock is threading.RLock and third.as_completed is futures.as_completed
assert third.ThreadPoolExecutor is futures.ThreadPoolExecutor
assert Event is threading.Event
for name in ("Empty", "Old", "default", "first"):
    assert vars(third)[name] is before[name], name
old.put(1)
with third.default:
    assert old.get() == 1
juggler.uninstall()
assert vars(third) == before and Event is mine["Event"]
print("restored")
"""
    assert check(program) == "restored\n"


def test_uninstall_restores_every_namespace(check: Check) -> None:
    program = """
import sys
import asyncio, logging.handlers, multiprocessing.dummy, tempfile, queue
import concurrent.futures.process, concurrent.futures.thread
import juggler, juggler.threading, juggler.queue, juggler.futures

def picture():
    own = vars(sys.modules["__main__"])
    modules = {name: vars(module) for name, module in sys.modules.items()}
    return {name: dict(names) for name, names in modules.items() if names is not own}

juggler.install(), juggler.uninstall()  # loads what they need
before, meta_path = picture(), list(sys.meta_path)
juggler.install()
changed = {n for n, names in picture().items() if names != before[n] and "juggler" not in n}
assert {"threading", "queue", "concurrent.futures", "multiprocessing.dummy"} <= changed, changed
assert not changed & {"_thread", "_queue", "_frozen_importlib"}, changed
juggler.uninstall()
for name, names in picture().items():
    if not name.startswith("juggler"):
        assert list(names.items()) == list(before[name].items()), name
assert sys.meta_path == meta_path
print("restored")
"""
    assert check(program) == "restored\n"


def test_uninstall_restores_what_was_imported_meanwhile(check: Check) -> None:
    program = """
import sys, juggler
juggler.install()
import threading, queue, concurrent.futures
from concurrent.futures import ThreadPoolExecutor
juggler.uninstall()
assert threading.Lock is not juggler.threading.Lock
assert queue.Queue is not juggler.queue.Queue
pools = concurrent.futures.ThreadPoolExecutor, concurrent.futures.thread.ThreadPoolExecutor
assert pools[0] is pools[1] is not juggler.futures.ThreadPoolExecutor
assert ThreadPoolExecutor is juggler.futures.ThreadPoolExecutor  # as documented
assert concurrent.futures.Future is concurrent.futures._base.Future
assert concurrent.futures.Future is not juggler.futures.Future
for module in (threading, queue, concurrent.futures):
    assert module.__loader__ is module.__spec__.loader
    assert type(module.__loader__).__module__.startswith("_frozen_importlib")
with pools[0](1) as pool:
    assert pool.submit(int, "7").result() == 7
print("restored")
"""
    assert check(program) == "restored\n"


def test_is_idempotent_and_does_not_nest(check: Check) -> None:
    program = """
import sys, threading, juggler
stock = {"Lock": threading.Lock}  # not in a name, which would be replaced as well
juggler.uninstall()  # nothing to undo
assert threading.Lock is stock["Lock"]
finders = len(sys.meta_path)
juggler.install(), juggler.install()
assert threading.Lock is juggler.threading.Lock is not stock["Lock"]
assert len(sys.meta_path) == finders + 1
juggler.uninstall()
assert threading.Lock is stock["Lock"] and len(sys.meta_path) == finders
juggler.install()
assert threading.Lock is juggler.threading.Lock
juggler.uninstall(), juggler.uninstall()
assert threading.Lock is stock["Lock"]
print("fine")
"""
    assert check(program) == "fine\n"


def test_from_many_threads(check: Check) -> None:
    program = """
import _thread, threading, queue, juggler
stock = threading.Lock, queue.Queue
Thread = threading.Thread
for _ in range(20):
    start = _thread.allocate_lock()
    start.acquire()

    def enter():
        with start:
            pass
        juggler.install()

    threads = [Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    start.release()
    for thread in threads:
        thread.join()
    assert (threading.Lock, queue.Queue) == (juggler.threading.Lock, juggler.queue.Queue)
    juggler.uninstall()
    assert (threading.Lock, queue.Queue) == stock
print("fine")
"""
    assert check(program) == "fine\n"


def test_what_the_program_assigned_is_left(check: Check) -> None:
    program = """
import threading, juggler

def hook(args): ...

class Mine: ...

threading.excepthook = hook
juggler.install()
assert threading.excepthook is hook
threading.Event = Mine
juggler.uninstall()
assert threading.excepthook is hook and threading.Event is Mine
print("left")
"""
    assert check(program) == "left\n"


def test_lazy_modules_are_not_loaded(check: Check) -> None:
    program = """
import importlib.util, sys, juggler
spec = importlib.util.find_spec("colorsys")
spec.loader = importlib.util.LazyLoader(spec.loader)
module = sys.modules["colorsys"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import threading
juggler.install()
assert "rgb_to_hsv" not in object.__getattribute__(module, "__dict__")
assert module.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
print("lazy")
"""
    assert check(program) == "lazy\n"


def test_reload_is_replaced_again(check: Check) -> None:
    program = """
import importlib, juggler
juggler.install()
import queue
importlib.reload(queue)
assert queue.Queue is juggler.queue.Queue
print("again")
"""
    assert check(program) == "again\n"


@pytest.mark.parametrize("juggler", [False, True], ids=["install", "run"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_real_packages(check: Check, order: str, juggler: bool) -> None:
    # requests keeps its connections in urllib3's subclass of a queue; a listener of logging takes
    # records from one; asyncio runs blocking calls in a pool.
    imports = "import asyncio, concurrent.futures, logging.handlers, queue, requests, threading\n"
    install = "" if juggler else "import juggler; juggler.install()\n"
    head = imports + install if order == "before" else install + imports
    program = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

records = []

class Keep(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())

channel = queue.Queue()
listener = logging.handlers.QueueListener(channel, Keep())
listener.start()
log = logging.getLogger("pages")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(logging.handlers.QueueHandler(channel))

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"

with requests.Session() as session, concurrent.futures.ThreadPoolExecutor(4) as pool:
    session.trust_env = False

    def fetch(number):
        text = session.get(f"{url}/{number}").text
        log.info("got %s", text)
        return text

    pages = list(pool.map(fetch, range(40)))

    async def main():
        loop = asyncio.get_running_loop()
        first = await asyncio.to_thread(fetch, "a")
        second = await loop.run_in_executor(pool, fetch, "b")
        third = await asyncio.wrap_future(pool.submit(fetch, "c"))
        return first + second + third

    print(asyncio.run(main()))
server.shutdown()
server.server_close()
listener.stop()
print(pages == [f"/{n}" for n in range(40)], len(records), type(channel).__module__)
import juggler
print(queue.Queue is juggler.queue.Queue)
"""
    first, second, third = check(head + program, juggler=juggler).splitlines()
    assert first == "/a/b/c"
    assert second.startswith("True 43 ")
    assert third == "True"


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_work(check: Check, method: str, order: str) -> None:
    imports = "import multiprocessing, concurrent.futures, threading, queue\n"
    imports += "from concurrent.futures import ProcessPoolExecutor\n"
    install = "import juggler; juggler.install()\n"
    head = imports + install if order == "before" else install + imports
    program = f"""
import operator, warnings
warnings.simplefilter("ignore")  # of fork in a process with threads

def square(n):
    with threading.Lock():
        return n * n

def fill(channel):
    channel.put(multiprocessing.current_process().name)

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    assert ProcessPoolExecutor.__module__.startswith("juggler")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        print(list(pool.map(square, range(5), chunksize=2)))
        futures = [pool.submit(operator.truediv, 1, n) for n in (1, 0)]
        done, pending = concurrent.futures.wait(futures)
        assert not pending and set(concurrent.futures.as_completed(futures)) == done
        print(futures[0].result(), type(futures[1].exception()).__name__)
    with context.Pool(2) as pool:
        print(pool.map(square, range(3)), pool.apply_async(square, (9,)).get())
    channel = context.Queue()
    process = context.Process(target=fill, args=(channel,), name="child")
    process.start()
    print(channel.get(timeout=30))
    process.join()
    with context.Manager() as manager:
        shared = manager.Queue()
        process = context.Process(target=fill, args=(shared,), name="managed")
        process.start()
        print(shared.get(timeout=30))
        process.join()
"""
    expected = "[0, 1, 4, 9, 16]\n1.0 ZeroDivisionError\n[0, 1, 4] 81\nchild\nmanaged\n"
    assert check(head + program) == expected


@pytest.mark.skipif(sys.version_info < (3, 14), reason="InterpreterPoolExecutor is of 3.14")
@pytest.mark.parametrize("first", ["", "from concurrent.futures import ThreadPoolExecutor\n"])
def test_interpreter_pool_keeps_its_base(check: Check, first: str) -> None:
    program = f"""
{first}import juggler; juggler.install()
from concurrent.futures import InterpreterPoolExecutor, ThreadPoolExecutor
with InterpreterPoolExecutor(1) as pool:
    print(pool.submit(pow, 2, 10).result())
print(ThreadPoolExecutor is juggler.futures.ThreadPoolExecutor)
"""
    assert check(program) == "1024\nTrue\n"


def test_forked_child_runs_threads(check: Check) -> None:
    program = """
import juggler; juggler.install()
import logging, os, queue, threading, warnings
from concurrent.futures import ThreadPoolExecutor
warnings.simplefilter("ignore")  # of fork in a process with threads
stop = threading.Event()
threading.Thread(target=stop.wait).start()
child = os.fork()
channel = queue.Queue()
with ThreadPoolExecutor(2) as pool:
    pool.submit(channel.put, "put")
    assert channel.get(timeout=30) == "put"
worker = threading.Thread(target=logging.getLogger().debug, args=("x",))
worker.start()
worker.join()
if child == 0:
    os._exit(7)
stop.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert check(program) == "7\n"
