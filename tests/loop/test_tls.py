"""TLS over transports, against what the standard library's does."""

import asyncio
import gc
import os
import socket
import ssl
import struct
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import juggler.asyncio
from juggler.asyncio import new_event_loop

Loop = asyncio.AbstractEventLoop

CERTIFICATE = Path(__file__).with_name("localhost.pem")


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTIFICATE)
    return context


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    transport: Any = None

    def __init__(self, loop: Loop) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.error: BaseException | None = None
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.data += data

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc
        self.lost.set_result(None)


class Buffered(asyncio.BufferedProtocol):
    """Has a buffer of its own, which is small."""

    def __init__(self, protocol: Recorder) -> None:
        self.protocol = protocol
        self.buffer = memoryview(bytearray(1000))

    def get_buffer(self, sizehint: int) -> memoryview:  # type: ignore[override]
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.protocol.data_received(bytes(self.buffer[:nbytes]))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.protocol.connection_made(transport)

    def eof_received(self) -> None:
        self.protocol.eof_received()

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.protocol.connection_lost(exc)


@contextmanager
def contexts(loop: Loop) -> Iterator[list[dict[str, Any]]]:
    """What the exception handler is told."""
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    yield told
    loop.set_exception_handler(None)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.settimeout(10)
        yield one, other


async def until(condition: Callable[[], object]) -> None:
    """Give up the turn until it holds."""
    while not condition():
        await asyncio.sleep(0)


async def connected(
    loop: Loop,
    client: Callable[[Recorder], asyncio.BaseProtocol] = lambda recorder: recorder,
    context: ssl.SSLContext | None = None,
) -> tuple[Any, Recorder, Recorder]:
    """A client's transport, its protocol, and the server's, whose handshake is done as well."""
    one, other = socket.socketpair()
    ours, theirs = Recorder(loop), Recorder(loop)
    made = await asyncio.gather(
        loop.create_connection(
            lambda: client(ours),
            sock=one,
            ssl=context or client_context(),
            server_hostname="localhost",
        ),
        loop.connect_accepted_socket(lambda: theirs, other, ssl=server_context()),
    )
    return made[0][0], ours, theirs


async def ended(*protocols: Recorder) -> None:
    for protocol in protocols:
        protocol.transport.close()
    for protocol in protocols:
        await protocol.lost


def test_life_of_a_connection(any_loop: Loop) -> None:
    async def main() -> None:
        transport, ours, theirs = await connected(any_loop)
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_protocol() is ours
        assert transport.is_reading() and not transport.is_closing()
        assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
        assert transport.get_read_buffer_limits() == (64 * 1024, 256 * 1024)
        assert transport.get_write_buffer_size() == transport.get_read_buffer_size() == 0
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        transport.write(b"one ")
        transport.writelines([b"two ", bytearray(b"three "), b"", memoryview(b"four")])
        await until(lambda: len(theirs.data) == 18)
        assert theirs.data == b"one two three four"
        theirs.transport.write(b"answer")
        await until(lambda: ours.data)
        assert ours.data == b"answer"
        transport.close()
        assert transport.is_closing()
        await ours.lost
        await theirs.lost
        assert ours.events == theirs.events == ["made", "eof", "lost"]
        assert ours.error is theirs.error is None
        for _ in range(10):
            transport.write(b"ignored")

    any_loop.run_until_complete(main())


def test_what_is_known_of_a_connection(any_loop: Loop) -> None:
    async def main() -> None:
        transport, ours, theirs = await connected(any_loop)
        get = transport.get_extra_info
        assert isinstance(get("sslcontext"), ssl.SSLContext)
        assert isinstance(get("ssl_object"), ssl.SSLObject)
        assert get("cipher") == get("ssl_object").cipher()
        assert get("compression") is None
        assert ("DNS", "localhost") in get("peercert")["subjectAltName"]
        assert get("socket").fileno() >= 0
        assert get("nothing", 5) == 5
        assert theirs.transport.get_extra_info("peercert") is None
        await ended(ours, theirs)
        assert get("socket") is None

    any_loop.run_until_complete(main())


def test_the_data_goes_to_openssl_directly() -> None:
    loop = new_event_loop()

    async def main() -> None:
        transport, ours, theirs = await connected(loop)
        assert transport._is_direct
        await ended(ours, theirs)
        records = []
        context = client_context()
        context._msg_callback = lambda *record: records.append(record)  # type: ignore[attr-defined]
        transport, ours, theirs = await connected(loop, context=context)
        assert not transport._is_direct
        transport.write(bytes(100_000))
        theirs.transport.write(bytes(100_000))
        await until(lambda: len(theirs.data) == len(ours.data) == 100_000)
        assert len(records) > 10
        await ended(ours, theirs)

    loop.run_until_complete(main())
    loop.close()


def test_what_cannot_be_written_is_refused(any_loop: Loop) -> None:
    async def main() -> None:
        transport, ours, theirs = await connected(any_loop)
        for wrong in ("text", 5, [b"x"], None):
            with pytest.raises(TypeError):
                transport.write(wrong)
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)
        await ended(ours, theirs)

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("buffered", [False, True])
def test_much_there_and_back(any_loop: Loop, version: ssl.TLSVersion, buffered: bool) -> None:
    async def main() -> None:
        context = client_context()
        context.minimum_version = context.maximum_version = version
        kind = Buffered if buffered else (lambda recorder: recorder)
        transport, ours, theirs = await connected(any_loop, kind, context)
        assert transport.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
        sent = os.urandom(3_000_000)
        transport.write(sent[:1_000_000])  # all that the transport below takes, and more
        transport.write(sent[1_000_000:])
        assert "pause" in ours.events
        assert transport.get_write_buffer_size() > 128 * 1024
        theirs.transport.write(sent[::-1])
        await until(lambda: len(theirs.data) == len(ours.data) == len(sent))
        assert theirs.data == sent and ours.data == sent[::-1]
        assert ours.events == ["made", "pause", "resume"]
        await ended(ours, theirs)

    any_loop.run_until_complete(main())


def test_what_is_kept_of_a_bytearray_is_a_copy() -> None:
    # The standard library keeps the bytearray itself.
    loop = new_event_loop()
    one, other = socket.socketpair()

    async def main() -> None:
        ours, theirs = Recorder(loop), Recorder(loop)
        data = bytearray(b"early")

        class Early(Recorder):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.transport.write(data)
                data.clear()

        early = Early(loop)
        await asyncio.gather(
            loop.create_connection(
                lambda: early, sock=one, ssl=client_context(), server_hostname="localhost"
            ),
            loop.connect_accepted_socket(lambda: theirs, other, ssl=server_context()),
        )
        await until(lambda: theirs.data)
        assert theirs.data == b"early" and not ours.data
        await ended(early, theirs)

    loop.run_until_complete(main())
    loop.close()


def test_pausing(any_loop: Loop) -> None:
    async def main() -> None:
        transport, ours, theirs = await connected(any_loop)
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        theirs.transport.write(bytes(2_000_000))
        await until(lambda: transport.get_read_buffer_size() >= 256 * 1024)
        await asyncio.sleep(0.01)
        # No more is taken than the limit and what came with the last turn.
        assert not ours.data and transport.get_read_buffer_size() <= 512 * 1024
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        await until(lambda: len(ours.data) == 2_000_000)
        await ended(ours, theirs)

    any_loop.run_until_complete(main())


def test_another_protocol(any_loop: Loop) -> None:
    async def main() -> None:
        transport, ours, theirs = await connected(any_loop)
        other = Recorder(any_loop)
        other.transport = transport
        transport.set_protocol(other)
        assert transport.get_protocol() is other
        theirs.transport.write(b"data")
        await until(lambda: other.data)
        assert not ours.data
        await ended(other, theirs)
        assert ours.events == ["made"]

    any_loop.run_until_complete(main())


def test_aborting(any_loop: Loop) -> None:
    async def main() -> None:
        transport, ours, theirs = await connected(any_loop)
        transport.write(bytes(3_000_000))
        transport.abort()
        assert transport.is_closing()
        await ours.lost
        assert ours.error is None and "eof" not in ours.events
        await theirs.lost
        assert len(theirs.data) < 3_000_000

    any_loop.run_until_complete(main())


def test_closing_writes_what_was_written(any_loop: Loop) -> None:
    async def main() -> None:
        transport, ours, theirs = await connected(any_loop)
        transport.write(bytes(3_000_000))
        transport.close()
        transport.write(b"too late")
        await ours.lost
        await theirs.lost
        assert len(theirs.data) == 3_000_000
        assert ours.error is theirs.error is None

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("place", ["data_received", "eof_received"])
def test_a_protocol_that_raises(any_loop: Loop, place: str) -> None:
    async def main() -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError(place)

        def failing(recorder: Recorder) -> Recorder:
            setattr(recorder, place, fail)
            return recorder

        with contexts(any_loop) as told:
            _, ours, theirs = await connected(any_loop, failing)
            theirs.transport.write(b"data")
            theirs.transport.close()
            await ours.lost
            await theirs.lost
        assert isinstance(ours.error, ZeroDivisionError)
        assert [context["exception"] for context in told] == [ours.error]

    any_loop.run_until_complete(main())


def test_a_protocol_that_raises_when_the_connection_is_made(any_loop: Loop) -> None:
    async def main() -> None:
        one, other = socket.socketpair()
        ours = Recorder(any_loop)

        def fail(_: object) -> None:
            raise ZeroDivisionError

        ours.connection_made = fail  # type: ignore[method-assign]
        with contexts(any_loop) as told:
            accepting = any_loop.connect_accepted_socket(
                asyncio.Protocol, other, ssl=server_context()
            )
            accepted = asyncio.ensure_future(accepting)
            connecting = asyncio.ensure_future(
                any_loop.create_connection(
                    lambda: ours, sock=one, ssl=client_context(), server_hostname="localhost"
                )
            )
            with pytest.raises(ConnectionError):
                await accepted
            with pytest.raises(ZeroDivisionError):
                await connecting
        [context] = told
        assert isinstance(context["exception"], ZeroDivisionError)

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_run(any_loop: Loop, kind: type[BaseException]) -> None:
    transport, ours, theirs = any_loop.run_until_complete(connected(any_loop))

    def fail(_: bytes) -> None:
        raise kind

    ours.data_received = fail  # type: ignore[method-assign]
    theirs.transport.write(b"data")
    with pytest.raises(kind):
        any_loop.run_forever()
    transport.abort()
    any_loop.run_until_complete(ended(ours, theirs))


# -------------------------------------------------------------------- names, choices


def test_a_server_is_asked_by_name(any_loop: Loop) -> None:
    async def main() -> None:
        asked = []
        context = server_context()
        context.sni_callback = lambda _, name, __: asked.append(name)
        context.set_alpn_protocols(["h2", "http/1.1"])
        chooser = client_context()
        chooser.set_alpn_protocols(["http/1.1"])
        theirs = Recorder(any_loop)
        server = await any_loop.create_server(lambda: theirs, "127.0.0.1", 0, ssl=context)
        ours = Recorder(any_loop)
        transport, _ = await any_loop.create_connection(
            lambda: ours,
            *server.sockets[0].getsockname(),
            ssl=chooser,
            server_hostname="localhost",
        )
        assert asked == ["localhost"]
        sslobject = transport.get_extra_info("ssl_object")
        assert sslobject.selected_alpn_protocol() == "http/1.1"
        await until(lambda: theirs.transport)
        await ended(ours, theirs)
        server.close()
        await server.wait_closed()

    any_loop.run_until_complete(main())


def test_a_wrong_name_is_refused(any_loop: Loop) -> None:
    async def main() -> None:
        with pair() as (one, other), contexts(any_loop):
            theirs = Recorder(any_loop)
            accepted = asyncio.ensure_future(
                any_loop.connect_accepted_socket(lambda: theirs, other, ssl=server_context())
            )
            with pytest.raises(ssl.SSLCertVerificationError):
                await any_loop.create_connection(
                    asyncio.Protocol, sock=one, ssl=client_context(), server_hostname="elsewhere"
                )
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await accepted

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
def test_timeouts_are_positive(any_loop: Loop, name: str) -> None:
    async def main() -> None:
        options: Any = {name: 0}
        with pair() as (one, _), pytest.raises(ValueError, match="positive number"):
            await any_loop.create_connection(
                asyncio.Protocol, sock=one, ssl=client_context(), server_hostname="x", **options
            )

    any_loop.run_until_complete(main())


# -------------------------------------------------------------------- start_tls


async def upgraded(loop: Loop, client: Any, server: Any) -> tuple[Any, Any]:
    """TLS over two transports that are connected with each other."""
    return await asyncio.gather(
        loop.start_tls(
            client, client.get_protocol(), client_context(), server_hostname="localhost"
        ),
        loop.start_tls(server, server.get_protocol(), server_context(), server_side=True),
    )


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_start_tls(any_loop: Loop, layers: int) -> None:
    async def main() -> None:
        one, other = socket.socketpair()
        client: Any
        server: Any
        client, ours = await any_loop.create_connection(lambda: Recorder(any_loop), sock=one)
        server, theirs = await any_loop.connect_accepted_socket(lambda: Recorder(any_loop), other)
        for _ in range(layers):
            client, server = await upgraded(any_loop, client, server)
        assert ours.events == theirs.events == ["made"]
        ours.transport, theirs.transport = client, server
        data = os.urandom(500_000)
        client.write(data)
        await until(lambda: len(theirs.data) == len(data))
        server.write(theirs.data)
        await until(lambda: len(ours.data) == len(data))
        assert ours.data == data
        await ended(ours, theirs)
        assert ours.error is theirs.error is None

    any_loop.run_until_complete(main())


def test_start_tls_refuses(any_loop: Loop) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="sslcontext"):
            await any_loop.start_tls(None, None, None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not supported"):
            await any_loop.start_tls(None, None, client_context())  # type: ignore[arg-type]

    any_loop.run_until_complete(main())


class Pipe(asyncio.Transport):
    """A transport of a program's own: what is written to one comes out of the other."""

    _start_tls_compatible = True
    other: "Pipe"

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._closing = False
        self._paused = False
        self._kept = bytearray()

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._deliver()

    def _deliver(self) -> None:
        if self._kept and not self._paused:
            data, self._kept = bytes(self._kept), bytearray()
            if isinstance(self._protocol, asyncio.BufferedProtocol):
                asyncio.protocols._feed_data_to_buffered_proto(  # type: ignore[attr-defined]
                    self._protocol, data
                )
            else:
                self._protocol.data_received(data)

    def write(self, data: Any) -> None:
        self.other._kept += data
        asyncio.get_running_loop().call_soon(self.other._deliver)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)
            self.other.close()

    def abort(self) -> None:
        self.close()

    _force_close = abort


def test_over_a_transport_of_another_kind(any_loop: Loop) -> None:
    async def main() -> None:
        ours, theirs = Recorder(any_loop), Recorder(any_loop)
        client, server = Pipe(ours), Pipe(theirs)
        client.other, server.other = server, client
        ours.transport, theirs.transport = await upgraded(any_loop, client, server)
        ours.transport.write(bytes(100_000))
        await until(lambda: len(theirs.data) == 100_000)
        theirs.transport.write(b"answer")
        await until(lambda: ours.data)
        await ended(ours, theirs)

    any_loop.run_until_complete(main())


# -------------------------------------------------------------------- streams


def stream_modules() -> list[tuple[Callable[[], Loop], Any]]:
    return [(asyncio.SelectorEventLoop, asyncio), (new_event_loop, juggler.asyncio)]


@pytest.mark.parametrize(("make", "module"), stream_modules(), ids=["stdlib", "juggler"])
def test_streams(make: Callable[[], Loop], module: Any) -> None:
    async def main() -> None:
        async def serve(reader: Any, writer: Any) -> None:
            line = await reader.readline()
            if line == b"STARTTLS\n":
                writer.write(b"OK\n")
                await writer.start_tls(server_context())
            else:
                writer.write(line)
            while data := await reader.read(10_000):
                writer.write(data)
                await writer.drain()
            writer.close()

        plain = await module.start_server(serve, "127.0.0.1", 0)
        tls = await module.start_server(serve, "127.0.0.1", 0, ssl=server_context())
        reader, writer = await module.open_connection(
            *tls.sockets[0].getsockname(), ssl=client_context(), server_hostname="localhost"
        )
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        data = os.urandom(1_000_000)

        async def send(writer: Any) -> None:
            for start in range(0, len(data), 50_000):
                writer.write(data[start : start + 50_000])
                await writer.drain()

        sending = asyncio.ensure_future(send(writer))
        assert await reader.readexactly(len(data)) == data
        await sending
        writer.close()
        await writer.wait_closed()

        reader, writer = await module.open_connection(*plain.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"OK\n"
        await writer.start_tls(client_context(), server_hostname="localhost")
        sending = asyncio.ensure_future(send(writer))
        assert await reader.readexactly(len(data)) == data
        await sending
        writer.close()
        await writer.wait_closed()
        for server in (plain, tls):
            server.close()
            await server.wait_closed()

    loop = make()
    loop.run_until_complete(main())
    loop.close()


# -------------------------------------------------------------------- random steps

SIZES = st.integers(1, 70_000)
STEPS = st.lists(
    st.tuples(
        st.booleans(),  # which side
        st.one_of(
            st.tuples(st.just("write"), SIZES),
            st.tuples(st.just("writelines"), st.lists(SIZES, max_size=5)),
            st.tuples(st.sampled_from(["pause", "resume", "turn", "limit", "swap"])),
        ),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(STEPS, st.booleans(), st.integers(0, 2))
def test_bytes_are_neither_lost_nor_reordered(
    steps: list[tuple[bool, tuple[Any, ...]]], direct: bool, layers: int
) -> None:
    loop = new_event_loop()

    async def main() -> None:
        context = client_context()
        if not direct:
            context._msg_callback = lambda *_: None  # type: ignore[attr-defined]
        one, other = socket.socketpair()
        for end in (one, other):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        ours, theirs = Recorder(loop), Recorder(loop)
        [(client, _), (server, _)] = await asyncio.gather(
            loop.create_connection(
                lambda: ours, sock=one, ssl=context, server_hostname="localhost"
            ),
            loop.connect_accepted_socket(lambda: theirs, other, ssl=server_context()),
        )
        for _ in range(layers):
            client, server = await upgraded(loop, client, server)
        ours.transport, theirs.transport = client, server
        sent = {ours: bytearray(), theirs: bytearray()}
        total = 0

        def piece(size: int) -> bytes:
            nonlocal total
            total += 1
            return (total.to_bytes(4, "big") * (size // 4 + 1))[:size]

        for is_ours, (what, *arguments) in steps:
            side = ours if is_ours else theirs
            transport = side.transport
            if what == "write":
                data = piece(arguments[0])
                sent[side] += data
                transport.write(data)
            elif what == "writelines":
                parts = [bytearray(piece(size)) for size in arguments[0]]
                sent[side] += b"".join(parts)
                transport.writelines(parts)
            elif what == "pause":
                transport.pause_reading()
            elif what == "resume":
                transport.resume_reading()
            elif what == "limit":
                transport.set_read_buffer_limits(high=5_000)
            elif what == "swap":
                now = transport.get_protocol()
                transport.set_protocol(side if now is not side else Buffered(side))
            else:
                await asyncio.sleep(0)
        for side in (ours, theirs):
            side.transport.resume_reading()
        await until(lambda: len(ours.data) >= len(sent[theirs]))
        await until(lambda: len(theirs.data) >= len(sent[ours]))
        assert ours.data == sent[theirs] and theirs.data == sent[ours]
        await ended(ours, theirs)

    loop.run_until_complete(main())
    loop.close()


# -------------------------------------------------------------------- faults


def faulty_peer(
    loop: Loop, peer: Callable[[socket.socket], Coroutine[Any, Any, None]]
) -> tuple[Recorder, list[dict[str, Any]]]:
    """What a client is told whose other side does what `peer` does after the handshake."""

    async def main() -> tuple[Recorder, list[dict[str, Any]]]:
        with contexts(loop) as told, socket.create_server(("127.0.0.1", 0)) as listener:
            ours = Recorder(loop)
            connecting = asyncio.ensure_future(
                loop.create_connection(
                    lambda: ours,
                    *listener.getsockname(),
                    ssl=client_context(),
                    server_hostname="localhost",
                )
            )
            other, _ = await asyncio.to_thread(listener.accept)
            other.settimeout(10)
            secure = await asyncio.to_thread(server_context().wrap_socket, other, server_side=True)
            with secure:
                await connecting
                await peer(secure)
                await ours.lost
        return ours, told

    return loop.run_until_complete(main())


def test_a_peer_that_resets(any_loop: Loop) -> None:
    async def peer(secure: socket.socket) -> None:
        secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.socket.close(secure)

    ours, told = faulty_peer(any_loop, peer)
    assert isinstance(ours.error, ConnectionResetError) and told == []


def test_a_peer_that_sends_garbage(any_loop: Loop) -> None:
    async def peer(secure: socket.socket) -> None:
        os.write(secure.fileno(), b"HTTP/1.1 400 Bad Request\r\n\r\n")

    ours, told = faulty_peer(any_loop, peer)
    assert isinstance(ours.error, ssl.SSLError) and told == []
    assert ours.error.library == "SSL"
    assert ours.error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
    assert ours.events == ["made", "lost"]


def test_a_peer_that_sends_a_wrong_record(any_loop: Loop) -> None:
    async def peer(secure: socket.socket) -> None:
        os.write(secure.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))

    ours, told = faulty_peer(any_loop, peer)
    assert isinstance(ours.error, ssl.SSLError) and told == []
    assert ours.error.reason in ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE")


def test_a_peer_that_ends_without_saying_so(any_loop: Loop) -> None:
    async def peer(secure: socket.socket) -> None:
        secure.send(b"last")
        socket.socket.shutdown(secure, socket.SHUT_WR)

    ours, told = faulty_peer(any_loop, peer)
    assert ours.data == b"last"
    assert ours.events == ["made", "eof", "lost"] and ours.error is None and told == []


def test_a_peer_that_does_not_answer_the_end(any_loop: Loop) -> None:
    async def main() -> None:
        with contexts(any_loop) as told, socket.create_server(("127.0.0.1", 0)) as listener:
            ours = Recorder(any_loop)
            connecting = asyncio.ensure_future(
                any_loop.create_connection(
                    lambda: ours,
                    *listener.getsockname(),
                    ssl=client_context(),
                    server_hostname="localhost",
                    ssl_shutdown_timeout=0.05,
                )
            )
            other, _ = await asyncio.to_thread(listener.accept)
            secure = await asyncio.to_thread(server_context().wrap_socket, other, server_side=True)
            with secure:
                transport, _ = await connecting
                transport.close()
                await ours.lost
        assert isinstance(ours.error, TimeoutError) and told == []

    any_loop.run_until_complete(main())


@pytest.mark.parametrize(
    ("sent", "error"), [(b"", ConnectionAbortedError), (b"garbage, no handshake", ssl.SSLError)]
)
def test_a_peer_without_a_handshake(
    any_loop: Loop, sent: bytes, error: type[BaseException]
) -> None:
    async def main() -> None:
        with pair() as (one, other):
            other.sendall(sent)
            connecting = any_loop.create_connection(
                asyncio.Protocol,
                sock=one,
                ssl=client_context(),
                server_hostname="localhost",
                ssl_handshake_timeout=0.05,
            )
            with pytest.raises(error):
                await connecting
            assert one.fileno() == -1

    any_loop.run_until_complete(main())


def test_a_peer_that_goes_in_the_handshake(any_loop: Loop) -> None:
    async def main() -> None:
        with pair() as (one, other):
            other.close()
            with pytest.raises(ConnectionError):
                await any_loop.create_connection(
                    asyncio.Protocol, sock=one, ssl=client_context(), server_hostname="localhost"
                )
            assert one.fileno() == -1

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("turns", range(8))
def test_cancelled_after_some_turns(turns: int) -> None:
    # The standard library's goes on with the handshake if it has not begun with it.
    loop = new_event_loop()

    async def main() -> None:
        with pair() as (one, _), contexts(loop) as told:
            connecting = asyncio.ensure_future(
                loop.create_connection(
                    asyncio.Protocol, sock=one, ssl=client_context(), server_hostname="localhost"
                )
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            if turns:
                await until(lambda: one.fileno() == -1)
        assert told == []

    loop.run_until_complete(main())
    loop.close()


def test_cancelled_in_the_handshake(any_loop: Loop) -> None:
    async def main() -> None:
        with pair() as (one, _):
            connecting = asyncio.ensure_future(
                any_loop.create_connection(
                    asyncio.Protocol, sock=one, ssl=client_context(), server_hostname="localhost"
                )
            )
            await asyncio.sleep(0.01)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await until(lambda: one.fileno() == -1)

    any_loop.run_until_complete(main())


# -------------------------------------------------------------------- nothing is left


def test_a_transport_that_nobody_closes_warns(any_loop: Loop) -> None:
    transport, ours, theirs = any_loop.run_until_complete(connected(any_loop))
    any_loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours.transport = theirs.transport = None
        del transport, ours, theirs
        gc.collect()
    assert any("unclosed transport <" in str(warning.message) for warning in caught)


def test_connections_leave_nothing(any_loop: Loop) -> None:
    async def once() -> "list[weakref.ref[Any]]":
        context = client_context()
        transport, ours, theirs = await connected(any_loop, context=context)
        transport.write(b"data")
        await until(lambda: theirs.data)
        await ended(ours, theirs)
        return [weakref.ref(part) for part in (context, transport, ours, theirs)]

    async def main() -> None:
        await once()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            references = await once()
            # Without the help of the garbage collector.
            assert [reference() for reference in references] == [None] * 4
        assert len(os.listdir("/proc/self/fd")) == before

    gc.disable()
    try:
        any_loop.run_until_complete(main())
    finally:
        gc.enable()


def test_an_object_that_outlives_its_connection(any_loop: Loop) -> None:
    async def main() -> ssl.SSLObject:
        transport, ours, theirs = await connected(any_loop)
        sslobject: ssl.SSLObject = transport.get_extra_info("ssl_object")
        await ended(ours, theirs)
        return sslobject

    sslobject = any_loop.run_until_complete(main())
    gc.collect()
    assert sslobject.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        sslobject.write(b"data")
