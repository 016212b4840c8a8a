"""How native transports are made: the part of a loop that is run once for each."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from asyncio import constants, transports, trsock
from types import FunctionType

from juggler import _juggler
from juggler.asyncio._children import ChildWatching
from juggler.asyncio._server import attach, knowing_its_clients

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from contextvars import Context
    from typing import Any


_base_events: Any = asyncio.base_events  # with what its stub lacks

# The descriptors, or the memory for another connection, have run out.
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class SocketTransport(transports._FlowControlMixin, transports.Transport):
    """The class that native transports of connected sockets say they are of.

    What they do is in `juggler._juggler.StreamTransport`: a class that has its state in memory of
    its own can't have a base with slots.
    """

    __slots__ = ()

    # What `start_tls` and `sendfile` of the loop ask for.
    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE


_juggler._set_transport_class(SocketTransport)


class DatagramTransport(transports._FlowControlMixin, transports.DatagramTransport):
    """The class that native transports of datagrams say they are of; see `SocketTransport`."""

    __slots__ = ()


class ReadPipeTransport(transports.ReadTransport):
    """The class that native transports of pipes that are read say they are of."""

    __slots__ = ()


class WritePipeTransport(transports._FlowControlMixin, transports.WriteTransport):
    """The class that native transports of pipes that are written say they are of."""

    __slots__ = ()


def check_socket(loop: Any, sock: Any) -> None:
    """Raise unless `sock` is fit for a `sock_...` method of `loop`."""
    _base_events._check_ssl_socket(sock)
    if loop.get_debug() and sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")


class NativeTransports(ChildWatching):
    """The part of a loop that makes transports.

    The loop takes its methods over when it makes the first one: see `_event_loop`.
    """

    _transports: Any

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: Context | None = None,
    ) -> Any:
        self._ensure_fd_no_transport(sock)
        known = _socket_info(sock, extra)
        _base_events._set_nodelay(sock)
        loop: Any = self
        transport: Any = _juggler.StreamTransport(
            loop, sock, protocol, waiter, known, server, context
        )
        if server is not None:
            attach(server, transport)
        self._transports[sock.fileno()] = transport
        transport._start()
        return transport

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Any:
        self._ensure_fd_no_transport(sock)
        loop: Any = self
        known = _socket_info(sock, extra)
        transport: Any = _juggler.DatagramTransport(loop, sock, protocol, address, waiter, known)
        self._transports[sock.fileno()] = transport
        transport._start()
        return transport

    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Any:
        if not _make_pipe_non_blocking(pipe):
            raise ValueError("Pipe transport is for pipes/sockets only.")
        loop: Any = self
        known = {**(extra or {}), "pipe": pipe}
        transport: Any = _juggler.ReadPipeTransport(loop, pipe, protocol, waiter, known)
        transport._start()
        return transport

    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Any:
        kind = _make_pipe_non_blocking(pipe)
        if not kind:
            raise ValueError("Pipe transport is only for pipes, sockets and character devices")
        loop: Any = self
        known = {**(extra or {}), "pipe": pipe}
        # A character device can be read when something is typed there.
        can_hang_up = kind != stat.S_IFCHR
        transport: Any = _juggler.WritePipeTransport(
            loop, pipe, protocol, waiter, known, can_hang_up
        )
        transport._start()
        return transport

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        context: Context | None = None,
    ) -> Any:
        from juggler.asyncio import _tls

        self._ensure_fd_no_transport(rawsock)
        tls = _tls.make(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            handshake_timeout=ssl_handshake_timeout,
            shutdown_timeout=ssl_shutdown_timeout,
        )
        try:
            self._make_socket_transport(rawsock, tls, extra=extra, server=server, context=context)
        except BaseException:
            tls._closed = True  # there is nothing to be closed
            raise
        return tls

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: ssl.SSLContext | None = None,
        server: Any = None,
        backlog: int = 100,
        handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Context | None = None,
    ) -> None:
        loop: Any = self
        knowing_its_clients(server)
        kind = sock.family, sock.type | socket.SOCK_NONBLOCK, sock.proto

        def connected(descriptor: int) -> None:
            try:
                connection = socket.socket(*kind, fileno=descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if self._debug:
                asyncio.log.logger.debug("%r got a new connection: %r", server, connection)
            # Each connection has a copy of its own (3.15).
            own = {} if context is None else {"context": context.copy()}
            if sslcontext is None:
                self._serve(protocol_factory, connection, server, **own)
            else:
                accept = self._accept_connection2(
                    protocol_factory,
                    connection,
                    {"peername": _peername(connection)},
                    sslcontext,
                    server,
                    handshake_timeout,
                    shutdown_timeout,
                    **own,
                )
                self.create_task(accept, **own)

        def failed(error: OSError) -> None:
            if error.errno not in _OUT_OF_RESOURCES:
                raise error
            # There is no other way to have the system not report the connection again at once.
            self._remove_reader(sock.fileno())
            self.call_later(constants.ACCEPT_RETRY_DELAY, resume)
            self.call_exception_handler(
                {
                    "message": "socket.accept() out of system resource",
                    "exception": error,
                    "socket": trsock.TransportSocket(sock),
                }
            )

        def resume() -> None:
            if sock.fileno() >= 0:
                acceptor._start()

        acceptor = _juggler.Acceptor(loop, sock, connected, failed, backlog + 1)
        acceptor._start()

    def _serve(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        connection: socket.socket,
        server: Any,
        context: Context | None = None,
    ) -> None:
        """Make protocol and transport for a connection that was accepted."""
        protocol = None
        try:
            protocol = protocol_factory() if context is None else context.run(protocol_factory)
            self._make_socket_transport(connection, protocol, server=server, context=context)
        except BaseException as error:
            connection.close()
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                raise
            if self._debug:
                report: dict[str, Any] = {
                    "message": "Error on transport creation for incoming connection",
                    "exception": error,
                }
                if protocol is not None:
                    report["protocol"] = protocol
                self.call_exception_handler(report)


def _socket_info(sock: socket.socket, extra: dict[str, Any] | None) -> dict[str, Any]:
    """What a transport's `get_extra_info` knows of `sock`."""
    known = {} if extra is None else extra
    known["socket"] = trsock.TransportSocket(sock)
    for name, ask in (("sockname", sock.getsockname), ("peername", sock.getpeername)):
        if name not in known:
            try:
                known[name] = ask()
            except OSError:
                known[name] = None
    return known


def _make_pipe_non_blocking(pipe: Any) -> int:
    """Return the kind of what `pipe` is, 0 if it can't be waited for."""
    descriptor = pipe.fileno()
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind not in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR):
        return 0
    os.set_blocking(descriptor, False)
    return kind


def _peername(connection: socket.socket) -> Any:
    try:
        return connection.getpeername()
    except OSError:
        return None


METHODS = {
    name: value
    for part in (ChildWatching, NativeTransports)
    for name, value in vars(part).items()
    if isinstance(value, FunctionType)
}
"""What the loop takes over."""
