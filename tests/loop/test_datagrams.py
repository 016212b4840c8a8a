"""Datagram endpoints, against the standard library's."""

import asyncio
import socket
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
