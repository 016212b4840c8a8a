"""Pipes on which the sides speak in turn, some of whose messages go by memory: what must not show.

Which way a message goes depends on who is faster; the engine's own tests and models hold each way.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import resource
import select
import selectors
import signal
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from children import Start, starter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from juggler import multiprocessing as processes
from juggler.multiprocessing import connection

pytestmark = pytest.mark.filterwarnings(
    # What is forked here is forked beside no thread that holds anything.
    "ignore:This process:DeprecationWarning"
)

METHODS = ["fork", "spawn", "forkserver", "zygote"]
TURNS = 40
"""More than it takes until both sides have the memory."""
ROOM = 16 << 10
"""No message as long as this goes by memory."""


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> Any:
    return processes.get_context(request.param)


@pytest.fixture
def forks() -> Any:
    return processes.get_context("fork")


@pytest.fixture
def fork(forks: Any) -> Iterator[Start]:
    """Forks a child."""
    yield from starter(forks)


def lanes() -> int:
    """How many connections of this process have memory beside their socket."""
    with open("/proc/self/maps") as maps:
        return sum("juggler-lanes" in line for line in maps)


def talk(end: Any, turns: int = TURNS) -> None:
    """Speak in turn with an `echo`."""
    for turn in range(turns):
        end.send((turn, "item"))
        assert end.recv() == (turn, "item")


def talking(start: Start, target: Callable[..., object], *args: object) -> tuple[Any, Any]:
    """This side's end of a pipe that has its lanes, and the child at the other."""
    ours, theirs = connection.Pipe()
    child = start(target, theirs, *args)
    theirs.close()
    before = lanes()
    talk(ours)
    assert lanes() == before + 1
    return ours, child


# ---------------------------------------------------------------- the ways to receive


def by_recv(end: Any) -> bytes:
    return bytes(end.recv_bytes())


def by_recv_into(end: Any) -> bytes:
    place = bytearray(200_000)
    return bytes(place[: end.recv_bytes_into(place)])


def after_poll(end: Any) -> bytes:
    assert end.poll(100)
    return by_recv(end)


def after_wait(end: Any) -> bytes:
    assert connection.wait([end], 100) == [end]
    return by_recv(end)


def after_select(end: Any) -> bytes:
    assert select.select([end], [], [], 100)[0] == [end]
    return by_recv(end)


def after_selectors(end: Any) -> bytes:
    with selectors.DefaultSelector() as selector:
        selector.register(end, selectors.EVENT_READ)
        assert selector.select(100)
    return by_recv(end)


def by_system(end: Any) -> bytes:
    """As a program that reads the descriptor itself."""

    def read(size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = os.read(end.fileno(), size - len(parts))
            if not part:
                raise EOFError
            parts += part
        return parts

    return read(struct.unpack("!i", read(4))[0])


WAYS = {
    way.__name__: way
    for way in (
        by_recv, by_recv_into, after_poll, after_wait, after_select, after_selectors, by_system
    )
}  # fmt: skip


def send_by_system(end: Any, message: bytes) -> None:
    os.write(end.fileno(), struct.pack("!i", len(message)) + message)


# ---------------------------------------------------------------- children


def echo(end: Any) -> None:
    """Until it hears None; the end would not come where a forked child has a copy of our end."""
    with suppress(EOFError):
        while (item := end.recv()) is not None:
            end.send(item)


def echo_and_tell(end: Any, tells: Any) -> None:
    echo(end)
    tells.send(lanes())


def echo_bytes(end: Any) -> None:
    """Echoes objects, and bytes as they came."""
    with suppress(EOFError):
        while True:
            end.send_bytes(end.recv_bytes())


def answer(end: Any) -> None:
    """Answers each request with messages of the sizes that it names, and receives as it says."""
    way, expected = by_recv, 0
    while True:
        number, name, sizes, pause, _ = pickle.loads(way(end))
        if name == "end":
            return
        assert number == expected
        way, expected = WAYS[name], expected + 1
        time.sleep(pause)
        for at, size in enumerate(sizes):
            if at % 2:
                end.send((number, at, b"x" * size))
            else:
                end.send_bytes(pickle.dumps((number, at, b"x" * size)))


def take_turns(end: Any, lock: Any) -> None:
    """One of several children at the same end."""
    warnings.simplefilter("ignore", processes.OwnerDied)
    with suppress(EOFError):
        while True:
            with lock:
                end.send((os.getpid(), end.recv()))


def send_numbers(end: Any, lock: Any, count: int) -> None:
    for number in range(count):
        with lock:
            end.send((os.getpid(), number))


def talk_until_killed(end: Any) -> None:
    while True:
        end.send(end.recv())


def keep_quiet(end: Any) -> None:
    """Echoes, and then is silent."""
    for _ in range(TURNS):
        end.send(end.recv())
    time.sleep(1000)


# ---------------------------------------------------------------- what is there, and when


def test_memory_comes_with_turns_and_goes_with_the_connection(start: Start) -> None:
    before = lanes()
    (ours, theirs), (hears, tells) = connection.Pipe(), connection.Pipe(False)
    with hears:
        child = start(echo_and_tell, theirs, tells)
        theirs.close()
        tells.close()
        talk(ours, 10)
        assert lanes() == before
        talk(ours)
        assert lanes() == before + 1
        ours.send(None)
        assert hears.recv() == 1
        child.join()
    ours.close()
    del ours
    assert lanes() == before


def test_a_pipe_of_one_direction_has_none(fork: Start) -> None:
    before = lanes()
    for ours, theirs in (connection.Pipe(), connection.Pipe(False)):
        fork(send_numbers, theirs if ours.readable else ours, processes.Lock(), 1_000)
        theirs.close()
        with ours:
            assert [ours.recv()[1] for _ in range(1_000)] == list(range(1_000))
            assert lanes() == before


@pytest.mark.parametrize("limit", ["files", "memory"])
def test_a_pipe_that_gets_no_memory_goes_on_without(fork: Start, limit: str) -> None:
    kind = resource.RLIMIT_NOFILE if limit == "files" else resource.RLIMIT_FSIZE
    ours, theirs = connection.Pipe()
    with ours:
        fork(echo, theirs)
        theirs.close()
        before, (soft, hard) = lanes(), resource.getrlimit(kind)
        lowest_free = os.dup(0)
        try:
            # No new descriptor; or no file longer than this.
            resource.setrlimit(kind, (lowest_free if limit == "files" else 4096, hard))
            os.close(lowest_free)
            talk(ours)
        finally:
            resource.setrlimit(kind, (soft, hard))
        assert lanes() == before
        talk(ours)
        assert lanes() == before


# ---------------------------------------------------------------- messages of every kind


def test_messages_of_every_length(start: Start) -> None:
    ours, _ = talking(start, echo)
    with ours:
        for size in [0, 1, ROOM - 100, ROOM - 64, ROOM - 1, ROOM, 300_000, 2] * 20:
            ours.send(b"x" * size)
            assert ours.recv() == b"x" * size


@pytest.mark.parametrize("way", WAYS.values())
def test_every_way_to_receive(fork: Start, way: Callable[[Any], bytes]) -> None:
    ours, _ = talking(fork, echo_bytes)
    with ours:
        for size in [0, 1, ROOM - 64, ROOM, 5] * 40:
            ours.send_bytes(b"y" * size)
            assert way(ours) == b"y" * size
            assert not ours.poll()


def test_64_mib_there_and_back_between_short_ones(fork: Start) -> None:
    ours, _ = talking(fork, echo_bytes)
    large = os.urandom(64 << 20)
    with ours:
        for message in (b"a", large, b"b"):
            ours.send_bytes(message)
            assert ours.recv_bytes() == message


def test_a_message_that_is_too_long_for_its_place(fork: Start) -> None:
    ours, _ = talking(fork, echo_bytes)
    with ours:
        for _ in range(200):
            ours.send_bytes(b"12345")
            with pytest.raises(multiprocessing.BufferTooShort) as raised:
                ours.recv_bytes_into(bytearray(4))
            assert raised.value.args == (b"12345",)
        ours.send_bytes(b"12345")
        with pytest.raises(OSError, match="bad message length"):
            ours.recv_bytes(4)
        assert not ours.readable


def test_poll_says_what_is_there(fork: Start) -> None:
    ours, _ = talking(fork, echo)
    with ours:
        for turn in range(200):
            assert not ours.poll() and not ours.poll(0.0001)
            ours.send(turn)
            assert ours.poll(100) and ours.poll() and ours.poll(None)
            assert ours.recv() == turn


def test_what_others_write_to_the_descriptor_keeps_its_place(fork: Start) -> None:
    ours, _ = talking(fork, echo_bytes)
    with ours:
        for _ in range(500):
            send_by_system(ours, b"first")
            ours.send_bytes(b"second")
            assert [ours.recv_bytes(), ours.recv_bytes()] == [b"first", b"second"]
            ours.send_bytes(b"third")
            send_by_system(ours, b"fourth")
            assert [ours.recv_bytes(), ours.recv_bytes()] == [b"third", b"fourth"]


REQUESTS = st.tuples(
    st.sampled_from([0, 10, ROOM - 200, ROOM, 100_000]),  # its own size
    st.sampled_from(sorted(WAYS)),  # how the child receives the next
    st.lists(st.sampled_from([0, 1, ROOM - 200, ROOM, 100_000]), max_size=3),  # its answers
    st.sampled_from([0, 0, 0, 0.0001]),  # seconds before them
    st.booleans(),  # whether it is sent as an object
)
STEPS = st.tuples(st.lists(REQUESTS, min_size=1, max_size=3), st.sampled_from(sorted(WAYS)))


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(STEPS, min_size=1, max_size=30))
def test_any_interleaving(forks: Any, steps: list[Any]) -> None:
    ours, theirs = connection.Pipe()
    child = forks.Process(target=answer, args=(theirs,))
    child.start()
    theirs.close()
    number = 0
    with ours:
        for _ in range(TURNS):
            ours.send((number, "by_recv", [1], 0, b""))
            assert ours.recv() == (number, 0, b"x")
            number += 1
        for requests, way in steps:
            for at, (size, child_way, sizes, pause, is_object) in enumerate(requests):
                # Answers to the last only: two that send much at each other wait for ever.
                sizes = sizes if at == len(requests) - 1 else []
                request = (number, child_way, sizes, pause, b"x" * size)
                if is_object:
                    ours.send(request)
                else:
                    ours.send_bytes(pickle.dumps(request))
                number += 1
            for at, size in enumerate(sizes):
                assert pickle.loads(WAYS[way](ours)) == (number - 1, at, b"x" * size)
            assert not ours.poll()
        ours.send((number, "end", [], 0, b""))
        child.join()
        assert child.exitcode == 0
    child.close()


# ---------------------------------------------------------------- ends


def test_the_end_is_found_by_who_receives_and_who_sends(start: Start) -> None:
    ours, child = talking(start, keep_quiet)
    with ours:
        threading.Timer(0.1, child.kill).start()
        with pytest.raises((EOFError, ConnectionResetError)):
            ours.recv()
        child.join()
        with pytest.raises(BrokenPipeError):
            ours.send(1)
        assert ours.poll()
        with pytest.raises(EOFError):
            ours.recv()


def test_a_child_that_is_killed_at_any_moment(forks: Any) -> None:
    pauses = random.Random(1)
    for _ in range(60):
        ours, theirs = connection.Pipe()
        child = forks.Process(target=talk_until_killed, args=(theirs,))
        child.start()
        theirs.close()
        with ours:
            talk(ours)
            killer = threading.Timer(pauses.random() / 100, child.kill)
            killer.start()
            with pytest.raises((EOFError, OSError)):
                talk(ours, 1_000_000)
            killer.join()
            child.join()
            with pytest.raises(BrokenPipeError):
                ours.send(1)
        child.close()


def test_what_was_sent_before_the_end_is_received(fork: Start) -> None:
    for _ in range(30):
        ours, theirs = connection.Pipe()
        child = fork(send_and_end, theirs)
        theirs.close()
        with ours:
            talk(ours)
            assert [ours.recv() for _ in range(3)] == ["some", "more", "last"]
            with pytest.raises(EOFError):
                ours.recv()
        child.join()


def send_and_end(end: Any) -> None:
    for _ in range(TURNS):
        end.send(end.recv())
    for item in ("some", "more", "last"):
        end.send(item)


INTERRUPTS = """
import signal
from juggler.multiprocessing import Pipe, get_context

def echo(end):
    for _ in range(200):
        end.send(end.recv())
    end.recv()

ours, theirs = Pipe()
child = get_context("fork").Process(target=echo, args=(theirs,))
child.start()
theirs.close()
for turn in range(200):
    ours.send(turn)
    assert ours.recv() == turn

interrupted = 0
if {by_alarm}:
    signal.signal(signal.SIGALRM, signal.default_int_handler)
for at in range(1, 400):
    try:
        if {by_alarm}:
            # In the middle of a look, or just before the sleep after it. A second one comes because
            # the system itself loses one in the moment before a call.
            signal.setitimer(signal.ITIMER_REAL, at * 5e-7, 0.5)
        else:
            signal.raise_signal(signal.SIGINT)
        ours.recv()
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        interrupted += 1
print(interrupted)
ours.send("end")
child.join()
"""


@pytest.mark.parametrize("by_alarm", [True, False])
def test_an_interrupt_ends_a_wait(run_program: Callable[..., str], by_alarm: bool) -> None:
    assert run_program(INTERRUPTS.format(by_alarm=by_alarm)) == "399\n"


# ---------------------------------------------------------------- ends with several users


def test_two_children_at_one_end(forks: Any, fork: Start) -> None:
    (ours, theirs), lock = connection.Pipe(), forks.Lock()
    with ours:
        children = [fork(take_turns, theirs, lock) for _ in range(2)]
        theirs.close()
        for number in range(2_000):
            ours.send(number)
            pid, item = ours.recv()
            assert (item, pid in {child.pid for child in children}) == (number, True)
        time.sleep(0.05)
        ours.send("who waits?")
        waiting, _ = ours.recv()
        for child in children:
            if child.pid == waiting:
                child.kill()
                child.join()
        for number in range(200):
            ours.send(number)
            pid, item = ours.recv()
            assert (item, pid != waiting) == (number, True)


def fork_writers(end: Any) -> None:
    """Echoes, and then two processes send numbers."""
    for _ in range(TURNS):
        end.send(end.recv())
    context = processes.get_context("fork")
    lock = context.Lock()
    writers = [context.Process(target=send_numbers, args=(end, lock, 1_000)) for _ in range(2)]
    for writer in writers:
        writer.start()
    end.close()
    for writer in writers:
        writer.join()


def test_two_writers_at_one_end(fork: Start) -> None:
    ours, _ = talking(fork, fork_writers)
    numbers: dict[int, list[int]] = {}
    with ours:
        for _ in range(2_000):
            pid, number = ours.recv()
            numbers.setdefault(pid, []).append(number)
        assert list(numbers.values()) == [list(range(1_000))] * 2
        with pytest.raises(EOFError):
            ours.recv()


def fork_in_the_middle(end: Any) -> None:
    """Echoes; half-way it forks, and the child echoes on."""
    for _ in range(TURNS):
        end.send(end.recv())
    child = processes.get_context("fork").Process(target=echo, args=(end,))
    child.start()
    end.close()
    child.join()


def test_a_fork_takes_the_connection_over(fork: Start) -> None:
    ours, child = talking(fork, fork_in_the_middle)
    with ours:
        talk(ours, 500)
        ours.send(None)
        child.join()


def pass_on(end: Any, place: Any) -> None:
    """Echoes; half-way it sends its end to another process."""
    for _ in range(TURNS):
        end.send(end.recv())
    place.send(end)
    end.close()
    assert place.recv() == "got it"


def echo_for_another(place: Any) -> None:
    end = place.recv()
    place.send("got it")
    echo(end)


def test_a_connection_that_is_sent_to_another_process(start: Start, fork: Start) -> None:
    here, there = connection.Pipe()
    another = start(echo_for_another, there)
    ours, child = talking(fork, pass_on, here)
    with ours, here, there:
        talk(ours, 500)
        ours.send(None)
        child.join()
        another.join()
        assert (child.exitcode, another.exitcode) == (0, 0)


def test_a_copy_that_knows_nothing_of_the_memory(fork: Start) -> None:
    """Both copies send; nothing is lost, and each one's messages keep their order."""
    ours, _ = talking(fork, echo)
    copy = connection.Connection(os.dup(ours.fileno()))
    with ours, copy:
        for number in range(500):
            first, second = (ours, copy) if number % 2 else (copy, ours)
            first.send(number)
            second.send(-number)
            assert [second.recv(), first.recv()] == [number, -number]


def test_threads_of_one_process() -> None:
    ours, theirs = connection.Pipe()
    thread = threading.Thread(target=echo, args=(theirs,))
    thread.start()
    try:
        for number in range(2_000):
            ours.send(number)
            assert ours.recv() == number
    finally:
        ours.close()
        thread.join()
        theirs.close()


def test_threads_that_receive_at_one_end(fork: Start) -> None:
    ours, _ = talking(fork, echo)
    received: list[int] = []
    lock = threading.Lock()

    def receive() -> None:
        for _ in range(500):
            with lock:
                item = ours.recv()
            received.append(item)

    with ours:
        threads = [threading.Thread(target=receive) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(1_000):
            ours.send(number)
        for thread in threads:
            thread.join()
    assert sorted(received) == list(range(1_000))


def test_a_receiver_that_is_stopped_gets_what_was_sent(fork: Start) -> None:
    ours, child = talking(fork, echo)
    pauses = random.Random(2)
    with ours:
        for number in range(50):
            ours.send(number)
            assert ours.recv() == number
            time.sleep(pauses.random() / 10_000)
            os.kill(child.pid, signal.SIGSTOP)
            ours.send("while it stands still")
            ours.send_bytes(pickle.dumps("more"))
            os.kill(child.pid, signal.SIGCONT)
            assert [ours.recv(), ours.recv()] == ["while it stands still", "more"]
