"""Connections, queues and managers between processes: deaths, signals, sizes, leaks."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.managers
import multiprocessing.queues
import os
import pickle
import queue
import signal
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection as stock
from typing import Any

import leftovers
import pytest
from children import Start

from juggler import multiprocessing as processes
from juggler.multiprocessing import connection, managers, queues

pytestmark = pytest.mark.filterwarnings(
    # What is forked here is forked beside no thread that holds anything.
    "ignore:This process:DeprecationWarning"
)

METHODS = ["fork", "spawn", "forkserver", "zygote"]
ITEMS = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, 10**100, 1.5, float("inf"), -0.0,
    "", "text", "\N{SNOWMAN}\0", "\ud800", b"", b"\0bytes", bytearray(b"x"), (1, "two"), [1, [2]],
    {"key": (None,)}, {1, 2}, 1 + 2j, range(3), struct.Struct, ValueError("why"),
]  # fmt: skip


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> Any:
    return processes.get_context(request.param)


def new_queue(maxsize: int = 0) -> queues.Queue:
    return queues.Queue(maxsize, ctx=None)


def same(one: object, other: object) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


# ---------------------------------------------------------------- children


def echo(end: Any) -> None:
    with suppress(EOFError):
        while True:
            end.send(end.recv())


def pass_on(source: Any, target: Any) -> None:
    while (item := source.get()) is not None:
        target.put(item)


def put_for_ever(target: Any, payload: bytes) -> None:
    while True:
        target.put(payload)


def get_for_ever(source: Any) -> None:
    while True:
        source.get()


def put_items(target: Any, name: int, count: int) -> None:
    for at in range(count):
        target.put((name, at))


def finish_tasks(tasks: Any, count: int) -> None:
    for _ in range(count):
        tasks.get()
        tasks.task_done()


def add_to(shared: Any, key: str) -> None:
    shared[key] = os.getpid()


# ---------------------------------------------------------------- connections


@pytest.mark.parametrize("duplex", [True, False])
def test_what_is_sent_is_received(duplex: bool) -> None:
    reader, writer = connection.Pipe(duplex)
    with reader, writer:
        for item in ITEMS:
            writer.send(item)
            assert same(reader.recv(), item)
        assert isinstance(reader, stock.Connection)
        assert (reader.readable, writer.writable) == (True, True)
        assert (reader.writable, writer.readable) == (duplex, duplex)


def test_each_side_may_be_the_standard_librarys() -> None:
    ours, theirs = connection.Pipe()
    with ours, stock.Connection(os.dup(theirs.fileno())) as peer:
        theirs.close()
        for item in (*ITEMS, b"x" * 100_000):
            thread = threading.Thread(target=peer.send, args=(item,))
            thread.start()
            assert same(ours.recv(), item)
            thread.join()
            thread = threading.Thread(target=ours.send, args=(item,))
            thread.start()
            assert same(peer.recv(), item)
            thread.join()


def test_round_trips_with_a_child(start: Start) -> None:
    ours, theirs = connection.Pipe()
    with ours:
        start(echo, theirs)
        theirs.close()
        for item in (*ITEMS, b"y" * 5_000_000):
            ours.send(item)
            assert same(ours.recv(), item)


def test_a_function_that_plain_pickle_refuses_travels(start: Start) -> None:
    ours, theirs = connection.Pipe()
    base = 40
    with ours:
        start(echo, theirs)
        theirs.close()
        ours.send([lambda more: base + more])
        assert ours.recv()[0](2) == 42


def test_messages_of_bytes() -> None:
    reader, writer = connection.Pipe(False)
    with reader, writer:
        writer.send_bytes(b"0123456789", 2, 5)
        assert reader.recv_bytes() == b"23456"
        writer.send_bytes(memoryview(b"01234567").cast("I"), 4)
        assert reader.recv_bytes(4) == b"4567"
        writer.send_bytes(b"abc")
        place = bytearray(5)
        assert (reader.recv_bytes_into(place, 1), bytes(place)) == (3, b"\0abc\0")
        writer.send_bytes(b"too long")
        with pytest.raises(multiprocessing.BufferTooShort) as raised:
            reader.recv_bytes_into(place)
        assert raised.value.args == (b"too long",)
        writer.send_bytes(b"")
        assert reader.poll() and reader.recv_bytes() == b"" and not reader.poll()
        for wrong in ((b"ab", -1), (b"ab", 3), (b"ab", 0, -1), (b"ab", 1, 2)):
            with pytest.raises(ValueError, match=r"negative|buffer length"):
                writer.send_bytes(*wrong)
        with pytest.raises(OSError, match="read-only"):
            reader.send(1)
        with pytest.raises(OSError, match="write-only"):
            writer.recv()


def test_a_message_that_is_too_long_ends_the_connection() -> None:
    reader, writer = connection.Pipe(False)
    with writer:
        writer.send_bytes(b"12345")
        with pytest.raises(OSError, match="bad message length"):
            reader.recv_bytes(4)
        assert reader.closed


@pytest.mark.parametrize("header", [b"\xff\xff\xff\xfe", b"\xff\xff\xff\xff" + b"\xff" * 8])
def test_a_length_that_cannot_be_is_an_error(header: bytes) -> None:
    reader, writer = connection.Pipe(False)
    with writer:
        os.write(writer.fileno(), header)
        with pytest.raises(OSError, match="bad message length"):
            reader.recv()


def test_a_peer_that_dies_inside_a_message_is_the_end() -> None:
    for part in (b"\0\0", b"\0\0\0\x10half", b"\x7f\xff\xff\xff" + b"x" * 1000):
        reader, writer = connection.Pipe(False)
        with reader:
            os.write(writer.fileno(), part)
            writer.close()
            with pytest.raises(EOFError):
                reader.recv_bytes()
    ours, theirs = connection.Pipe()
    theirs.close()
    with ours:
        assert ours.poll()
        with pytest.raises(EOFError):
            ours.recv()
        with pytest.raises(BrokenPipeError):
            ours.send(1)


def test_a_closed_connection_says_so() -> None:
    one, other = connection.Pipe()
    other.close()
    one.close()
    one.close()
    for use in (one.recv, one.poll, one.fileno, lambda: one.send(1)):
        with pytest.raises(OSError, match="handle is closed"):
            use()
    with pytest.raises(ValueError, match="invalid handle"):
        connection.Connection(-1)


def test_poll_waits_as_long_as_it_may() -> None:
    ours, theirs = connection.Pipe()
    with ours, theirs:
        begin = time.monotonic()
        assert not ours.poll(0.05)
        assert time.monotonic() - begin >= 0.05
        assert not ours.poll(-1)
        timer = threading.Timer(0.05, theirs.send, args=(1,))
        timer.start()
        assert ours.poll(None) and connection.wait([ours]) == [ours]
        timer.join()


def test_connections_with_a_key() -> None:
    with connection.Listener(authkey=b"key") as listener:
        made: list[Any] = []
        client = threading.Thread(
            target=lambda: made.append(connection.Client(listener.address, authkey=b"key"))
        )
        client.start()
        with listener.accept() as accepted:
            client.join()
            with made[0] as client_end:
                assert type(accepted) is type(client_end) is connection.Connection
                client_end.send("hello")
                assert accepted.recv() == "hello"

        def with_wrong_key() -> None:
            with suppress(multiprocessing.AuthenticationError):
                connection.Client(listener.address, authkey=b"wrong").close()

        client = threading.Thread(target=with_wrong_key)
        client.start()
        with pytest.raises(multiprocessing.AuthenticationError):
            listener.accept()
        client.join()


# ---------------------------------------------------------------- queues


def test_items_are_got_as_they_were_put() -> None:
    for shared in (new_queue(), queues.SimpleQueue(ctx=None), queues.JoinableQueue(ctx=None)):
        for item in ITEMS:
            shared.put(item)
        for item in ITEMS:
            assert same(shared.get(), item)
        assert shared.empty()
    assert isinstance(new_queue(), multiprocessing.queues.Queue)


def test_items_travel_by_a_child_and_back(start: Start) -> None:
    there, back = new_queue(), new_queue()
    start(pass_on, there, back)
    for item in (*ITEMS[1:], b"z" * 20_000_000, "u" * 300_000):
        there.put(item)
        assert same(back.get(), item)
    there.put(None)


class Picture:
    """Has its buffer sent beside the pickle, as arrays do."""

    def __init__(self, pixels: Any, at: int) -> None:
        self.pixels, self.at = pixels, at

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Picture, (pickle.PickleBuffer(self.pixels), self.at)


class Unsendable:
    def __reduce__(self) -> tuple[Any, ...]:
        raise ValueError("stays here")


@pytest.mark.parametrize("size", [10, 1 << 16, 3 << 20])
def test_large_buffers_come_as_they_were(start: Start, size: int) -> None:
    there, back = new_queue(), new_queue()
    start(pass_on, there, back)
    pixels, other = bytearray(os.urandom(size)), os.urandom(size)
    there.put((Picture(pixels, 7), {"other": other, "two": pixels}, Picture(other, 8), "end"))
    one, rest, two, end = back.get()
    assert (bytes(one.pixels), one.at, bytes(two.pixels), two.at) == (pixels, 7, other, 8)
    assert same(rest, {"other": other, "two": pixels}) and end == "end"
    memoryview(one.pixels)[:1] = b"\0"  # writable, and nobody else's
    there.put(one)
    assert bytes(back.get().pixels) == b"\0" + pixels[1:]
    there.put(None)


def test_an_item_that_is_refused_after_its_buffer_leaves_no_trace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shared, pixels = new_queue(), bytearray(1 << 20)
    shared.put([Picture(pixels, 1), Unsendable()])
    assert "stays here" in capsys.readouterr().err and shared.empty()
    # Nor does one that only travels by value, which is pickled a second time.
    shared.put([Picture(pixels, 2), lambda: 3])
    picture, function = shared.get()
    assert (bytes(picture.pixels), picture.at, function()) == (pixels, 2, 3)


def test_an_unbounded_queue_takes_everything_at_once() -> None:
    shared = new_queue()
    for at in range(20_000):
        shared.put((at, b"x" * 1000))
    assert shared.qsize() == 20_000
    assert [shared.get()[0] for _ in range(20_000)] == list(range(20_000))


def test_each_producers_items_keep_their_order(start: Start) -> None:
    shared, count = new_queue(50), 3000
    for name in range(3):
        start(put_items, shared, name, count)
    found: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for _ in range(3 * count):
        name, at = shared.get(timeout=60)
        found[name].append(at)
    assert all(order == list(range(count)) for order in found.values())


def test_a_bound_and_timeouts() -> None:
    shared = new_queue(2)
    shared.put(1)
    shared.put_nowait(2)
    assert shared.full() and shared.qsize() == shared._maxsize == 2
    begin = time.monotonic()
    for full in (
        lambda: shared.put_nowait(3),
        lambda: shared.put(3, False),
        lambda: shared.put(3, True, -1),
        lambda: shared.put(3, timeout=0.05),
    ):
        with pytest.raises(queue.Full):
            full()
    assert time.monotonic() - begin >= 0.05
    assert (shared.get(), shared.get_nowait()) == (1, 2)
    begin = time.monotonic()
    for empty in (
        shared.get_nowait,
        lambda: shared.get(False),
        lambda: shared.get(timeout=-1),
        lambda: shared.get(timeout=0.05),
    ):
        with pytest.raises(queue.Empty):
            empty()
    assert time.monotonic() - begin >= 0.05


def test_what_was_put_survives_who_put_it(start: Start) -> None:
    shared = new_queue()
    child = start(put_items, shared, 0, 10_000)
    while shared.qsize() < 100:
        time.sleep(0.001)
    child.kill()
    child.join()
    count = shared.qsize()
    assert [shared.get_nowait() for _ in range(count)] == [(0, at) for at in range(count)]
    assert shared.empty()


@pytest.mark.parametrize("maxsize", [0, 3])
def test_deaths_inside_put_and_get_hang_nobody(start: Start, maxsize: int) -> None:
    shared, payload = new_queue(maxsize), b"p" * 3000
    for round_ in range(4):
        children = [start(put_for_ever, shared, payload), start(get_for_ever, shared)]
        time.sleep(0.03 + round_ * 0.007)
        for child in children:
            child.kill()
            child.join()
        # Others go on at once, with whole items.
        while not shared.empty():
            assert shared.get(timeout=60) == payload
        shared.put("mine", timeout=60)
        assert shared.get(timeout=60) == "mine"


def test_tasks_are_done(start: Start) -> None:
    tasks = queues.JoinableQueue(ctx=None)
    with pytest.raises(ValueError, match="too many times"):
        tasks.task_done()
    for at in range(100):
        tasks.put(at)
    start(finish_tasks, tasks, 50)
    start(finish_tasks, tasks, 50)
    tasks.join()
    assert tasks.empty()
    with pytest.raises(ValueError, match="too many times"):
        tasks.task_done()


def test_an_object_that_cannot_be_pickled(capsys: pytest.CaptureFixture[str]) -> None:
    shared = new_queue()
    generator = (i for i in ())
    shared.put(generator)
    assert "generator" in capsys.readouterr().err
    shared.put("next")
    assert shared.get() == "next"
    with pytest.raises(TypeError, match="generator") as raised:
        queues.SimpleQueue(ctx=None).put({"key": [generator]})
    assert "['key'][0]" in raised.value.__notes__[-1]


def test_a_closed_queue_says_so() -> None:
    shared = new_queue()
    with pytest.raises(AssertionError):
        shared.join_thread()
    shared.put(1)
    shared.close()
    shared.join_thread()
    for use in (shared.get, lambda: shared.put(1)):
        with pytest.raises(ValueError, match="is closed"):
            use()
    simple = queues.SimpleQueue(ctx=None)
    simple.close()
    for use in (simple.get, simple.empty, lambda: simple.put(1)):
        with pytest.raises(OSError, match="is closed"):
            use()


def test_a_queue_is_pickled_only_for_a_new_process() -> None:
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(new_queue())


def test_a_queue_can_be_selected_on(start: Start) -> None:
    shared, answers = new_queue(), new_queue()
    assert connection.wait([shared._reader], 0) == []
    start(pass_on, answers, shared)
    for item in range(50):
        answers.put(item)
        (ready,) = connection.wait([shared._reader], 60)
        assert ready.poll() and shared.get_nowait() == item
        assert connection.wait([shared._reader], 0) == []
    answers.put(None)


def test_a_queue_wakes_an_event_loop() -> None:
    shared = new_queue()

    async def receive() -> object:
        loop, got = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(shared._reader.fileno(), got.set)
        loop.call_later(0.01, shared.put, "item")
        await got.wait()
        loop.remove_reader(shared._reader.fileno())
        return shared.get_nowait()

    assert asyncio.run(receive()) == "item"


def test_nonsense_in_the_memory_is_an_error() -> None:
    shared = new_queue()
    shared.put("item")
    segment, _ = shared._descriptors()
    for header in (struct.pack("=Q", 0xFF), struct.pack("=Q", 7 | 2**50 << 8), b"\0" * 8):
        os.pwrite(segment, header, 4096)
        with pytest.raises(OSError, match="malformed"):
            shared.get(timeout=1)


# ---------------------------------------------------------------- signals, leaks


WAITS = """
import os, signal, threading, time
from juggler.multiprocessing import connection, queues
full = queues.Queue(1, ctx=None); full.put(1)
tasks = queues.JoinableQueue(ctx=None); tasks.put(1)
ours, theirs = connection.Pipe()
waits = {{
    "get": queues.Queue(ctx=None).get,
    "put": lambda: full.put(2),
    "join": tasks.join,
    "recv": ours.recv,
    "send": lambda: ours.send(b"x" * 50_000_000),
    "poll": lambda: ours.poll(None),
}}
threading.Timer(0.2, os.kill, args=(os.getpid(), signal.SIGINT)).start()
try:
    waits[{name!r}]()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("name", ["get", "put", "join", "recv", "send", "poll"])
def test_an_interrupt_ends_a_wait(run_program: Callable[..., str], name: str) -> None:
    assert run_program(WAITS.format(name=name)) == "interrupted\n"


def test_a_handler_that_returns_does_not_end_a_wait() -> None:
    shared, calls = new_queue(), []
    before = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        timer = threading.Timer(0.2, shared.put, args=("item",))
        timer.start()
        assert shared.get() == "item"
        timer.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert calls


def test_nothing_is_left_behind() -> None:
    before = leftovers.open_files()
    for _ in range(50):
        shared, ends = new_queue(), connection.Pipe()
        shared.put(b"x" * 100_000)
        ends[0].send(1)
        shared._reader.fileno()
        del shared, ends
    assert leftovers.open_files() == before


# ---------------------------------------------------------------- managers


def test_objects_in_a_server(context: Any, start: Start) -> None:
    with context.Manager() as manager:
        assert isinstance(manager, managers.SyncManager)
        shared = manager.dict(a=1)
        shared["list"] = manager.list([1, 2])
        child = start(add_to, shared, "child")
        child.join()
        assert (shared["a"], list(shared["list"]), shared["child"]) == (1, [1, 2], child.pid)
        with pytest.raises(KeyError):
            shared["missing"]
        items = manager.Queue()
        items.put("item")
        assert items.get(timeout=60) == "item"
        assert type(shared._tls.connection) is connection.Connection


class Counter:
    """What a program registers with a manager of its own."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, more: int) -> int:
        self.count += more
        return self.count


class OwnManager(managers.BaseManager):
    pass


OwnManager.register("Counter", Counter)


def test_a_class_that_was_registered(context: Any) -> None:
    with OwnManager(ctx=context) as manager:
        counter = manager.Counter()  # type: ignore[attr-defined]
        assert [counter.add(2), counter.add(3)] == [2, 5]


def lanes() -> int:
    """How many connections of this process have memory beside their socket."""
    with open("/proc/self/maps") as maps:
        return sum("juggler-lanes" in line for line in maps)


def stay(counter: Any, more: int, seconds: float, ready: Any) -> None:
    ready.send(counter.add(more))
    time.sleep(seconds)
    ready.send((counter.add(more), lanes()))


def test_calls_of_every_length_at_any_time(context: Any) -> None:
    with context.Manager() as manager:
        before, shared = lanes(), manager.dict()
        for turn, size in enumerate([1, 5, 20_000, 3, 300_000, 16_000, 17_000, 0] * 20):
            shared[turn] = b"x" * size
            if turn % 16 == 0:
                time.sleep(0.015)  # longer than either side waits in memory
            assert len(shared.get(turn)) == size
            with pytest.raises(KeyError):
                shared.pop("missing")
        assert lanes() == before + 1


def test_each_thread_and_forked_process_has_its_own_connection(context: Any, start: Start) -> None:
    with OwnManager(ctx=context) as manager:
        counter = manager.Counter()  # type: ignore[attr-defined]
        assert counter.add(1) == 1
        threads = [
            threading.Thread(target=lambda: [counter.add(1) for _ in range(1_000)])
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counter.add(1) == 3_002
        here, there = connection.Pipe()
        start(stay, counter, 1, 0.05, there)
        assert here.recv() == 3_003
        assert counter.add(1) == 3_004
        assert here.recv() == (3_005, 1)


def test_a_server_that_dies_ends_a_call(context: Any) -> None:
    manager = context.Manager()
    shared, event = manager.dict(a=1), manager.Event()
    assert [shared["a"] for _ in range(10)] == [1] * 10
    server = manager._process
    threading.Timer(0.1, server.kill).start()
    with pytest.raises((EOFError, ConnectionError)):
        event.wait()
    server.join()
    with pytest.raises((EOFError, ConnectionError)):
        shared["a"]
    manager.shutdown()


def test_a_client_that_dies_costs_the_server_its_thread_only(context: Any, start: Start) -> None:
    with OwnManager(ctx=context) as manager:
        counter = manager.Counter()  # type: ignore[attr-defined]
        here, there = connection.Pipe()
        child = start(stay, counter, 1, 60, there)
        assert here.recv() == 1
        child.kill()
        child.join()
        assert counter.add(1) == 2


def test_a_server_elsewhere_gets_everything_through_its_socket(context: Any) -> None:
    with OwnManager(("127.0.0.1", 0), ctx=context) as manager:
        before, counter = lanes(), manager.Counter()  # type: ignore[attr-defined]
        assert [counter.add(1) for _ in range(100)] == list(range(1, 101))
        assert lanes() == before


def test_a_client_of_the_standard_library_is_served(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OwnManager(ctx=context) as manager:
        monkeypatch.setitem(
            multiprocessing.managers.listener_client, "pickle", (stock.Listener, stock.Client)
        )
        before, counter = lanes(), manager.Counter()  # type: ignore[attr-defined]
        assert [counter.add(1) for _ in range(100)] == list(range(1, 101))
        assert type(counter._tls.connection) is stock.Connection
        assert lanes() == before


CALL = """
import os, signal, threading
from juggler.multiprocessing import Manager
with Manager() as manager:
    shared, event = manager.dict(a=1), manager.Event()
    assert [shared["a"] for _ in range(100)] == [1] * 100
    threading.Timer(0.2, os.kill, args=(os.getpid(), signal.SIGINT)).start()
    try:
        event.wait()
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_an_interrupt_ends_a_call(run_program: Callable[..., str]) -> None:
    assert run_program(CALL) == "interrupted\n"
