"""The arena between processes: who holds a block, and what is left afterwards."""

import gc
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from juggler._juggler import Arena, Block
from juggler._processes.pickling import dumps

SIZE = 1 << 24
BIG = 1 << 18


def used(arena: Arena) -> int:
    gc.collect()
    return arena.usage()[1]


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(SIZE)
    yield arena
    assert used(arena) == 0, "a block was leaked"


class Peer:
    """A forked process that answers messages with `answer(arena, message, room)`."""

    def __init__(self, arena: Arena, answer: Callable[[Arena, bytes, Any], bytes]) -> None:
        self.arena = arena
        asks, asked = os.pipe()
        answers, answered = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(asks)
            os.close(answered)
            self.write, self.read = asked, answers
            return
        try:
            os.close(asked)
            os.close(answers)
            mine = Arena.open(arena.fileno(), 0)

            def room(length: int) -> Block | None:
                _send(answered, b"?" + struct.pack("Q", length))
                reference = _receive(asks)
                return mine.claim(reference) if reference else None

            while message := _receive(asks):
                _send(answered, b"!" + answer(mine, message, room))
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)

    def call(self, message: bytes) -> bytes:
        _send(self.write, message)
        while True:
            reply = _receive(self.read)
            if reply[:1] != b"?":
                return reply[1:]
            _send(self.write, self.arena.allocate_for(0, *struct.unpack("Q", reply[1:])) or b"")

    def end(self) -> int:
        os.close(self.write)
        os.close(self.read)
        return os.waitpid(self.pid, 0)[1]


def _send(fd: int, message: bytes) -> None:
    with open(fd, "wb", closefd=False) as file:
        file.write(struct.pack("I", len(message)) + message)


def _receive(fd: int) -> bytes:
    with open(fd, "rb", buffering=0, closefd=False) as file:
        head = file.read(4)
        if len(head) < 4:
            return b""
        parts = bytearray()
        while len(parts) < struct.unpack("I", head)[0]:
            parts += file.read(struct.unpack("I", head)[0] - len(parts))
        return bytes(parts)


def echo(arena: Arena, message: bytes, room: Any) -> bytes:
    obj = arena.unpack(message)
    memoryview(obj[0]).cast("B")[0] += 1
    payload, blocks = arena.pack(obj, dumps, define=False, room=room)
    for block in blocks:
        block.leave()
    return payload


def test_arrays_travel_there_and_back(arena: Arena) -> None:
    numpy = pytest.importorskip("numpy")
    peer = Peer(arena, echo)
    array = numpy.ones(BIG, "u1")
    for count in range(20):
        payload, blocks = arena.pack((array, b"x" * BIG, count), dumps)
        assert len(payload) < 1000 and len(blocks) == 2
        got, text, number = arena.unpack(peer.call(payload))
        assert (got[0], got[1], text, number) == (2, 1, b"x" * BIG, count)
        assert got.flags.writeable
        part = got[5:10]
        del got
        assert part[0] == 1
        del part, blocks
        assert used(arena) == 0
    assert peer.end() == 0


def test_a_full_arena_means_the_slower_way() -> None:
    arena = Arena(1 << 18)
    peer = Peer(arena, echo)
    payload, blocks = arena.pack((bytearray(SIZE), "x"), dumps)
    assert not blocks and len(payload) > SIZE
    kept = arena.allocate(1 << 17)
    assert kept is not None and arena.allocate(1 << 17) is None
    view = memoryview(bytearray(1 << 16))
    payload, blocks = arena.pack((view,), dumps)
    assert len(blocks) == 1
    reply = peer.call(payload)
    assert reply[0] == 0x80, "there was no room for the result"
    assert arena.unpack(reply)[0][0] == 1
    assert peer.end() == 0
    del blocks, kept
    assert used(arena) == 0


def test_a_killed_worker_leaves_nothing(arena: Arena) -> None:
    def hoard(mine: Arena, message: bytes, room: Any) -> bytes:
        obj = mine.unpack(message)
        kept.append((obj, room(BIG)))
        return b""

    kept: list[Any] = []
    peer = Peer(arena, hoard)
    for _ in range(5):
        payload, blocks = arena.pack(bytearray(BIG), dumps)
        peer.call(payload)
        # A `bytearray` is copied out of its block; the room for the result is held.
    assert len(blocks) == 1
    del blocks
    assert used(arena) == 5 * BIG
    os.kill(peer.pid, signal.SIGKILL)
    assert os.WTERMSIG(peer.end()) == signal.SIGKILL
    assert arena.reclaim(0) == 5


def test_a_view_outlives_the_arena_and_its_block() -> None:
    arena = Arena(SIZE)
    block = arena.allocate(BIG)
    assert block is not None
    block.fill(b"x" * BIG)
    view = memoryview(block)
    assert not view.readonly and len(view) == len(block) == BIG
    del arena, block
    gc.collect()
    view[0] = 1
    assert view[0] == 1 and view[-1] == ord("x")


def test_a_forked_child_gives_nothing_back(arena: Arena) -> None:
    block = arena.allocate(BIG)
    pid = os.fork()
    if not pid:
        del block
        os._exit(arena.allocate(1) is not None)
    assert os.waitpid(pid, 0)[1] == 0, "a child allocated"
    assert used(arena) == BIG
    del block


def test_memory_goes_back_to_the_system(arena: Arena) -> None:
    def resident() -> int:
        return os.fstat(arena.fileno()).st_blocks * 512

    before = resident()
    block = arena.allocate(BIG)
    assert resident() >= before + BIG
    del block
    assert used(arena) == 0 and arena.usage()[2] == BIG, "it stays warm"
    arena.trim()
    assert arena.usage()[2] == 0 and resident() <= before + 4096


def test_threads_share_an_arena(arena: Arena) -> None:
    wrong = []

    def work(number: int) -> None:
        for count in range(200):
            length = (count % 7 + 1) * (1 << 16)
            if block := arena.allocate(length):
                block.fill(bytes([number]) * length)
                if bytes(memoryview(block)) != bytes([number]) * length:
                    wrong.append((number, count))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_bad_use_is_an_error(arena: Arena) -> None:
    with pytest.raises(OSError, match="sealed"), open(__file__) as file:
        Arena.open(file.fileno(), 0)
    with pytest.raises(ValueError, match="worker"):
        Arena.open(arena.fileno(), 65535)
    with pytest.raises(OSError, match="131072"):
        Arena(1)
    with pytest.raises(ValueError, match="reference"):
        arena.take(b"short")
    with pytest.raises(RuntimeError, match="no block"):
        arena.take(bytes(20))
    with pytest.raises(OSError, match="cut short"):
        arena.unpack(b"\x01\x05\x00\x00\x00")
    block = arena.allocate(10)
    assert block is not None
    with pytest.raises(ValueError, match="too small"):
        block.fill(bytes(11))
