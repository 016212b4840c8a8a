"""Datagram endpoints, against the standard library's."""

import asyncio
import gc
import os
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Loop = asyncio.AbstractEventLoop


class Mailbox(asyncio.DatagramProtocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.put_nowait((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.received.put_nowait(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def next(self) -> Any:
        """What came next."""
        return await asyncio.wait_for(self.received.get(), 30)


async def endpoint(loop: Loop, host: str, **options: Any) -> tuple[Any, Mailbox, Any]:
    """A new endpoint: its transport, its protocol, its address."""
    if "remote_addr" not in options:
        options["local_addr"] = (host, 0)
    transport, protocol = await loop.create_datagram_endpoint(Mailbox, **options)
    return transport, protocol, transport.get_extra_info("sockname")


def hosts() -> list[str]:
    """The loopback addresses that this machine has."""
    found = ["127.0.0.1"]
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
        found.append("::1")
    except OSError:
        pass
    return found


@pytest.mark.parametrize("host", hosts())
def test_there_and_back(any_loop: Loop, host: str) -> None:
    async def main() -> None:
        one, ours, here = await endpoint(any_loop, host)
        two, theirs, there = await endpoint(any_loop, host)
        for turn in range(5):
            for data in (b"%d" % turn, bytearray(b"array"), memoryview(b"view"), bytes(30_000)):
                one.sendto(data, there)
                assert await theirs.next() == (bytes(data), here)
            # As it was given: to who has sent the last one, and to an address of the same value.
            one.sendto(b"again", there)
            data, sender = await theirs.next()
            two.sendto(data, sender)
            assert await ours.next() == (b"again", there)
            two.sendto(data, (*sender,))
            assert await ours.next() == (b"again", there)
        # An address that has to be looked up.
        if host == "127.0.0.1":
            one.sendto(b"by name", ("localhost", there[1]))
            assert await theirs.next() == (b"by name", here)
        for transport, protocol in ((one, ours), (two, theirs)):
            transport.close()
            assert await asyncio.wait_for(protocol.lost, 30) is None

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("host", hosts())
def test_several_senders(any_loop: Loop, host: str) -> None:
    async def main() -> None:
        one, ours, here = await endpoint(any_loop, host)
        others = [await endpoint(any_loop, host) for _ in range(3)]
        for turn in range(12):
            other, theirs, there = others[turn % 3]
            other.sendto(b"%d" % turn, here)
            data, sender = await ours.next()
            assert (data, sender) == (b"%d" % turn, there)
            one.sendto(data, there)
            assert await theirs.next() == (data, here)
        for transport in (one, *(other for other, _, _ in others)):
            transport.close()

    any_loop.run_until_complete(main())


class Noting(asyncio.DatagramProtocol):
    """Notes what comes, and does with it what the test wants."""

    def __init__(self, act: Callable[[Any, bytes], None]) -> None:
        self._act = act

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._act(self.transport, data)


def flood(loop: Loop, count: int, act: Callable[[Any, bytes], None]) -> Any:
    """The transport of an endpoint for which `count` datagrams wait, numbered."""
    made = loop.create_datagram_endpoint(lambda: Noting(act), local_addr=("127.0.0.1", 0))
    transport, _ = loop.run_until_complete(made)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(count):
            sender.sendto(b"%d" % number, transport.get_extra_info("sockname"))
    return transport


def test_what_a_datagram_brings_about_comes_before_the_next(any_loop: Loop) -> None:
    seen: list[bytes] = []

    def act(transport: Any, data: bytes) -> None:
        seen.append(data)
        if int(data) % 3 == 0:
            any_loop.call_soon(seen.append, b"after " + data)
        if data == b"39":
            any_loop.call_soon(any_loop.stop)

    transport = flood(any_loop, 40, act)
    any_loop.run_forever()
    transport.close()
    expected = [[b"%d" % number] for number in range(40)]
    for each in expected[::3]:
        each.append(b"after " + each[0])
    assert seen == [datum for each in expected for datum in each]


@pytest.mark.parametrize("end", ["close", "abort"])
def test_no_datagram_comes_after_the_end(any_loop: Loop, end: str) -> None:
    seen: list[bytes] = []

    def act(transport: Any, data: bytes) -> None:
        seen.append(data)
        if len(seen) == 5:
            getattr(transport, end)()
            any_loop.call_later(0.005, any_loop.stop)

    flood(any_loop, 10, act)
    any_loop.run_forever()
    assert seen == [b"0", b"1", b"2", b"3", b"4"]


def test_a_loop_that_is_stopped_takes_no_further_datagram(any_loop: Loop) -> None:
    seen: list[bytes] = []

    def act(transport: Any, data: bytes) -> None:
        seen.append(data)
        any_loop.stop()

    transport = flood(any_loop, 3, act)
    for count in (1, 2, 3):
        any_loop.run_forever()
        assert len(seen) == count
    transport.close()


def test_a_flood_leaves_room_for_others(any_loop: Loop) -> None:
    """For another flood, for what a thread wants, for a signal's handler."""
    seen: list[str] = []

    def act(name: str) -> Callable[[Any, bytes], None]:
        def note(transport: Any, data: bytes) -> None:
            seen.append(name)
            if len(seen) == 5:
                signal.raise_signal(signal.SIGUSR1)
            if len(seen) == 100:
                any_loop.stop()

        return note

    handled: list[int] = []
    any_loop.add_signal_handler(signal.SIGUSR1, lambda: handled.append(len(seen)))
    transports = [flood(any_loop, 50, act(name)) for name in "ab"]
    any_loop.run_forever()
    assert sorted(seen) == ["a"] * 50 + ["b"] * 50
    assert "b" in seen[:20]
    assert len(handled) == 1
    assert handled[0] < 60
    any_loop.remove_signal_handler(signal.SIGUSR1)
    for transport in transports:
        transport.close()


def test_an_error_does_not_end_a_flood(any_loop: Loop) -> None:
    seen: list[bytes] = []
    reports: list[Any] = []
    any_loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))

    def act(transport: Any, data: bytes) -> None:
        seen.append(data)
        if data == b"9":
            any_loop.stop()
        raise ValueError(data)

    transport = flood(any_loop, 10, act)
    any_loop.run_forever()
    transport.close()
    assert seen == [b"%d" % number for number in range(10)]
    assert [str(error) for error in reports] == [str(data) for data in seen]


@pytest.mark.parametrize("host", hosts())
def test_a_connected_endpoint(any_loop: Loop, host: str) -> None:
    async def main() -> None:
        one, ours, here = await endpoint(any_loop, host)
        two, theirs, there = await endpoint(any_loop, host, remote_addr=here[:2])
        two.sendto(b"to whom it belongs")
        assert await ours.next() == (b"to whom it belongs", there)
        two.sendto(b"by its name", here)
        assert await ours.next() == (b"by its name", there)
        with pytest.raises(ValueError, match="Invalid address"):
            two.sendto(b"to another", there)
        one.sendto(b"back", there)
        assert await theirs.next() == (b"back", here)
        one.close()
        assert await asyncio.wait_for(ours.lost, 30) is None
        # Nobody is there any more, which is told by one of the next calls.
        for _ in range(3):
            two.sendto(b"to nobody")
        assert isinstance(await theirs.next(), ConnectionRefusedError)
        two.close()
        assert await asyncio.wait_for(theirs.lost, 30) is None
        two.sendto(b"after the end")

    any_loop.run_until_complete(main())


def test_what_can_not_be_sent(any_loop: Loop) -> None:
    reports: list[dict[str, Any]] = []
    any_loop.set_exception_handler(lambda _, context: reports.append(context))

    async def main() -> None:
        one, ours, here = await endpoint(any_loop, "127.0.0.1")
        with pytest.raises(TypeError, match="bytes-like"):
            one.sendto("text", here)
        one.sendto(bytes(70_000), here)
        error = await ours.next()
        assert isinstance(error, OSError)
        assert "too long" in str(error)
        one.sendto(b"to no address")
        assert [type(report["exception"]) for report in reports] == [TypeError]
        assert isinstance(await asyncio.wait_for(ours.lost, 30), TypeError)

    any_loop.run_until_complete(main())


# ------------------------------------------------------------ Unix sockets


def test_unix_sockets(any_loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        paths = [str(tmp_path / name) for name in ("one", "zwei-é")]
        ends = [
            await any_loop.create_datagram_endpoint(Mailbox, family=socket.AF_UNIX, local_addr=path)
            for path in paths
        ]
        (one, ours), (two, theirs) = ends
        assert isinstance(one, asyncio.Transport)
        for data in (b"plain", bytearray(b"array"), memoryview(b"view"), bytes(30_000)):
            one.sendto(data, paths[1])
            assert await theirs.next() == (bytes(data), paths[0])
        two.sendto(b"by bytes", os.fsencode(paths[0]))
        data, sender = await ours.next()
        assert (data, sender) == (b"by bytes", paths[1])
        one.sendto(data, sender)
        assert await theirs.next() == (data, paths[0])
        one.sendto(b"to nobody", str(tmp_path / "nobody"))
        assert isinstance(await ours.next(), FileNotFoundError)
        one.sendto(b"x", "y" * 200)
        assert "too long" in str(await ours.next())
        for transport, protocol in ends:
            transport.close()
            assert await asyncio.wait_for(protocol.lost, 30) is None

    any_loop.run_until_complete(main())


def test_unix_sockets_without_a_file(any_loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "path")
        one, ours = await any_loop.create_datagram_endpoint(
            Mailbox, family=socket.AF_UNIX, local_addr=path
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.sendto(b"from nobody", path)
            assert await ours.next() == (b"from nobody", None)
            name = b"\0juggler-%d" % os.getpid()
            nameless.bind(name)
            nameless.setblocking(False)
            nameless.sendto(b"from a name", path)
            assert await ours.next() == (b"from a name", name)
            one.sendto(b"back", name)
            assert await any_loop.sock_recv(nameless, 100) == b"back"
        one.close()
        await asyncio.wait_for(ours.lost, 30)

    any_loop.run_until_complete(main())


def test_a_connected_unix_socket(any_loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        paths = [str(tmp_path / name) for name in ("one", "two")]
        one, ours = await any_loop.create_datagram_endpoint(
            Mailbox, family=socket.AF_UNIX, local_addr=paths[0]
        )
        two, theirs = await any_loop.create_datagram_endpoint(
            Mailbox, family=socket.AF_UNIX, local_addr=paths[1], remote_addr=paths[0]
        )
        assert two.get_extra_info("peername") == paths[0]
        two.sendto(b"to whom it belongs")
        assert await ours.next() == (b"to whom it belongs", paths[1])
        two.sendto(b"by its name", paths[0])
        assert await ours.next() == (b"by its name", paths[1])
        with pytest.raises(ValueError, match="Invalid address"):
            two.sendto(b"to another", paths[1])
        one.close()
        await asyncio.wait_for(ours.lost, 30)
        two.sendto(b"to nobody")
        assert isinstance(await theirs.next(), ConnectionRefusedError)
        two.close()
        assert await asyncio.wait_for(theirs.lost, 30) is None
        two.sendto(b"after the end")

    any_loop.run_until_complete(main())


def test_a_full_socket(any_loop: Loop, tmp_path: Path) -> None:
    """What the other side has no room for is kept, and counted, and sent in its order."""

    async def main() -> None:
        path = str(tmp_path / "path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(path)
            receiver.setblocking(False)
            events: list[str] = []
            one, ours = await any_loop.create_datagram_endpoint(
                Mailbox, family=socket.AF_UNIX, remote_addr=path
            )
            ours.pause_writing = lambda: events.append("pause")  # type: ignore[method-assign]
            ours.resume_writing = lambda: events.append("resume")  # type: ignore[method-assign]
            one.set_write_buffer_limits(high=5000)
            sent = 0
            while not events:
                one.sendto(b"%05d" % sent + bytes(995))
                sent += 1
            header = 8 if sys.version_info >= (3, 13) else 0
            assert one.get_write_buffer_size() == (1000 + header) * (5000 // (1000 + header) + 1)
            array = bytearray(b"%05d" % sent)
            one.sendto(array)
            array[:] = bytes(5)  # it was copied
            one.close()
            got = [(await any_loop.sock_recv(receiver, 2000))[:5] for _ in range(sent + 1)]
            assert got == [b"%05d" % number for number in range(sent + 1)]
            assert await asyncio.wait_for(ours.lost, 30) is None
            assert events == ["pause", "resume"]

    any_loop.run_until_complete(main())


def test_empty_datagrams(any_loop: Loop) -> None:
    async def main() -> None:
        one, _, here = await endpoint(any_loop, "127.0.0.1")
        two, theirs, there = await endpoint(any_loop, "127.0.0.1")
        one.sendto(b"", there)
        one.sendto(b"next", there)
        if sys.version_info >= (3, 13):  # before, they are not sent
            assert await theirs.next() == (b"", here)
        assert await theirs.next() == (b"next", here)
        one.close()
        one.sendto(b"while it is being closed", there)
        assert await theirs.next() == (b"while it is being closed", here)
        two.abort()
        assert await asyncio.wait_for(theirs.lost, 30) is None

    any_loop.run_until_complete(main())


def test_reading_pauses(any_loop: Loop) -> None:
    async def main() -> None:
        one, _, here = await endpoint(any_loop, "127.0.0.1")
        two, theirs, there = await endpoint(any_loop, "127.0.0.1")
        two.pause_reading()
        assert not two.is_reading()
        one.sendto(b"waits", there)
        await asyncio.sleep(0.01)
        assert theirs.received.empty()
        two.resume_reading()
        assert await theirs.next() == (b"waits", here)
        other = Mailbox()
        two.set_protocol(other)
        one.sendto(b"to another", there)
        assert await other.next() == (b"to another", here)
        one.close()
        two.close()

    any_loop.run_until_complete(main())


def test_other_families(any_loop: Loop) -> None:
    """Addresses that only Python's socket understands: here, of the kernel's `netlink`."""

    async def main() -> None:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)
        sock.bind((0, 0))
        sock.setblocking(False)
        transport, protocol = await any_loop.create_datagram_endpoint(Mailbox, sock=sock)
        # A header and a body: which links are there?
        transport.sendto(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0), (0, 0))
        data, sender = await protocol.next()
        assert len(data) > 32
        assert sender == (0, 0)
        transport.close()
        assert await asyncio.wait_for(protocol.lost, 30) is None

    any_loop.run_until_complete(main())


def test_one_that_nobody_closed_warns_and_closes_its_socket(any_loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, _ = await endpoint(any_loop, "127.0.0.1")
        sock = transport.get_extra_info("socket")
        transport.pause_reading()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport, protocol
            gc.collect()
        assert any("unclosed transport <" in str(warning.message) for warning in caught)
        assert sock.fileno() == -1

    any_loop.run_until_complete(main())
