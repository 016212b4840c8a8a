"""The loop's `sock_...` methods, against the standard library's."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterator

import pytest

from juggler.asyncio import EventLoop, new_event_loop

Loop = asyncio.AbstractEventLoop


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets in the non-blocking mode."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def test_what_is_there_comes_at_once(any_loop: Loop) -> None:
    async def main() -> None:
        with pair() as (one, other):
            other.send(b"here it is")
            assert await any_loop.sock_recv(one, 4) == b"here"
            buffer = bytearray(3)
            assert await any_loop.sock_recv_into(one, buffer) == 3
            assert buffer == b" it"
            assert await any_loop.sock_recv(one, 0) == b""
            other.close()
            assert await any_loop.sock_recv(one, 100) == b" is"
            assert await any_loop.sock_recv(one, 100) == b""

    any_loop.run_until_complete(main())


def test_waiting_for_it_again_and_again(any_loop: Loop) -> None:
    async def main() -> None:
        with pair() as (one, other):
            for turn in range(20):
                data = b"%d" % turn
                any_loop.call_soon(other.send, data)
                assert await any_loop.sock_recv(one, 100) == data
                # Something that comes while nobody waits.
                other.send(b"x")
                await asyncio.sleep(0.001 if turn % 3 else 0)
                assert await any_loop.sock_recv(one, 100) == b"x"

    any_loop.run_until_complete(main())


def test_what_came_while_nobody_received(any_loop: Loop) -> None:
    """A receiver that has emptied the socket is no reason to overlook what comes after it."""

    async def main() -> None:
        with pair() as (one, other):
            buffer = bytearray(100)
            for turn in range(20):
                receiving = asyncio.ensure_future(any_loop.sock_recv(one, 100))
                await asyncio.sleep(0)
                other.send(b"first")
                assert await receiving == b"first"
                other.send(b"second")
                if turn % 2:
                    assert await any_loop.sock_recv(one, 0) == b""
                    assert await any_loop.sock_recv_into(one, bytearray()) == 0
                assert await any_loop.sock_recv_into(one, buffer) == 6
            other.close()
            assert await any_loop.sock_recv(one, 100) == b""
            assert await any_loop.sock_recv(one, 100) == b""

    any_loop.run_until_complete(main())


def test_another_socket_with_the_same_number(any_loop: Loop) -> None:
    async def main() -> None:
        numbers = set()
        for _ in range(3):
            with pair() as (one, other):
                numbers.add(one.fileno())
                any_loop.call_soon(other.send, b"data")
                assert await any_loop.sock_recv(one, 100) == b"data"
        assert len(numbers) == 1

    any_loop.run_until_complete(main())


def test_sending_more_than_the_system_takes(any_loop: Loop) -> None:
    async def main() -> None:
        with pair() as (one, other):
            data = os.urandom(3_000_000)
            sending = asyncio.ensure_future(any_loop.sock_sendall(one, memoryview(data)))
            received = bytearray()
            while len(received) < len(data):
                received += await any_loop.sock_recv(other, 100_000)
            assert await sending is None
            assert received == data

    any_loop.run_until_complete(main())


def test_a_wait_that_is_cancelled_takes_nothing(any_loop: Loop) -> None:
    async def main() -> None:
        with pair() as (one, other):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(any_loop.sock_recv(one, 100), 0.01)
            other.send(b"data")
            await asyncio.sleep(0.005)
            assert await any_loop.sock_recv(one, 100) == b"data"

    any_loop.run_until_complete(main())


def test_a_receiver_goes_on_in_the_turn_in_which_data_are_found(loop: EventLoop) -> None:
    async def main() -> None:
        with pair() as (one, other):
            order: list[object] = []

            async def receive() -> None:
                order.append(await loop.sock_recv(one, 100))

            def first() -> None:
                other.send(b"data")
                loop.call_soon(second)

            def second() -> None:
                order.append("second")
                loop.call_soon(order.append, "third")

            receiving = loop.create_task(receive())
            await asyncio.sleep(0)
            loop.call_soon(first)
            await receiving
            assert order == ["second", b"data", "third"]

    loop.run_until_complete(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_receiver_that_ends_the_run(any_loop: Loop, error: type[BaseException]) -> None:
    with pair() as (one, other):

        async def receive() -> None:
            await any_loop.sock_recv(one, 100)
            raise error

        async def main() -> None:
            any_loop.call_soon(other.send, b"data")
            await asyncio.sleep(10)

        receiving = any_loop.create_task(receive())
        waiting = any_loop.create_task(main())
        with pytest.raises(error):
            any_loop.run_until_complete(waiting)
        assert isinstance(receiving.exception(), error)
        assert asyncio.all_tasks(any_loop) == {waiting}
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            any_loop.run_until_complete(waiting)


def test_two_who_wait_for_the_same_future_of_a_receiver(any_loop: Loop) -> None:
    """A task of which others take note goes on as well."""

    async def main() -> None:
        with pair() as (one, other):
            receiving = any_loop.create_task(any_loop.sock_recv(one, 100))
            await asyncio.sleep(0)
            other.send(b"data")
            first, second = await asyncio.gather(
                asyncio.shield(receiving), asyncio.wait_for(asyncio.shield(receiving), 10)
            )
            assert first == second == b"data"

    any_loop.run_until_complete(main())


def test_datagrams(any_loop: Loop) -> None:
    async def main() -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        ):
            for sock in (one, other):
                sock.bind(("127.0.0.1", 0))
                sock.setblocking(False)
            receiving = asyncio.ensure_future(any_loop.sock_recvfrom(one, 100))
            await asyncio.sleep(0.005)
            assert await any_loop.sock_sendto(other, b"data", one.getsockname()) == 4
            assert await receiving == (b"data", other.getsockname())
            buffer = bytearray(10)
            any_loop.call_later(0.005, other.sendto, b"more", one.getsockname())
            assert await any_loop.sock_recvfrom_into(one, buffer) == (4, other.getsockname())
            assert buffer[:4] == b"more"

    any_loop.run_until_complete(main())


def test_accepting(any_loop: Loop) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            accepting = asyncio.ensure_future(any_loop.sock_accept(listener))
            await asyncio.sleep(0.005)
            with socket.create_connection(listener.getsockname()) as client:
                connection, address = await accepting
                with connection:
                    assert address == client.getsockname()
                    assert connection.gettimeout() == 0

    any_loop.run_until_complete(main())


def test_errors(any_loop: Loop) -> None:
    async def main() -> None:
        with pair() as (one, other):
            one.close()
            with pytest.raises(OSError, match="Bad file"):
                await any_loop.sock_recv(one, 1)
            with pytest.raises(BrokenPipeError) as caught:
                await any_loop.sock_sendall(other, b"data")
            assert caught.value.errno == 32
            with pytest.raises(TypeError):
                await any_loop.sock_sendall(other, "text")  # type: ignore[arg-type]
        context = ssl.create_default_context()
        with pair() as (one, _):
            wrapped = context.wrap_socket(one, server_hostname="x", do_handshake_on_connect=False)
            with wrapped, pytest.raises(TypeError, match="SSLSocket"):
                await any_loop.sock_recv(wrapped, 1)

    any_loop.run_until_complete(main())


def test_debug_mode_wants_the_non_blocking_mode(any_loop: Loop) -> None:
    any_loop.set_debug(True)

    async def main() -> None:
        with pair() as (one, _):
            one.setblocking(True)
            with pytest.raises(ValueError, match="non-blocking"):
                await any_loop.sock_recv(one, 1)

    any_loop.run_until_complete(main())


def test_a_descriptor_of_a_transport_is_refused(any_loop: Loop) -> None:
    async def main() -> None:
        with pair() as (one, _):
            transport, _protocol = await any_loop.create_connection(asyncio.Protocol, sock=one)
            with pytest.raises(RuntimeError, match="is used by transport"):
                await any_loop.sock_recv(one, 1)
            transport.close()
            await asyncio.sleep(0.005)

    any_loop.run_until_complete(main())


def test_a_blocking_socket_does_not_block_the_loop() -> None:
    # It does with the standard library.
    loop = new_event_loop()

    async def main() -> None:
        with pair() as (one, other):
            one.setblocking(True)
            loop.call_later(0.005, other.send, b"data")
            assert await loop.sock_recv(one, 100) == b"data"

    loop.run_until_complete(main())
    loop.close()


def test_a_heir_of_sockets_is_asked_for_its_descriptor(any_loop: Loop) -> None:
    class Asked(socket.socket):
        times = 0

        def fileno(self) -> int:
            self.times += 1
            return super().fileno()

    async def main() -> None:
        with pair() as (one, other), Asked(fileno=one.detach()) as asked:
            asked.setblocking(False)
            any_loop.call_soon(other.send, b"data")
            assert await any_loop.sock_recv(asked, 100) == b"data"
            assert asked.times > 0

    any_loop.run_until_complete(main())
