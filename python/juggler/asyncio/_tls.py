"""TLS over a transport: what is done once per connection. Stands in for ``asyncio.sslproto``.

The data path is native (`juggler._juggler.TlsTransport`); the stages are described in
``docs/internals/loop.md``.
"""

from __future__ import annotations

import asyncio
import ssl
import warnings
from asyncio import constants, sslproto
from asyncio.log import logger

from juggler import _juggler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNWRAPPED, _HANDSHAKE, _WRAPPED, _FLUSHING, _SHUTDOWN = range(5)

# More must come from the other side first.
_AGAIN = (ssl.SSLWantReadError, ssl.SSLSyscallError)


class SSLTransport(sslproto._SSLProtocolTransport):
    """The class that native TLS transports say they are of."""

    __slots__ = ()


@_juggler._own_methods
class TLS(_juggler.TlsTransport):
    """The transport of a program's protocol, and the protocol of the transport below."""

    # What `start_tls` and `sendfile` of the loop ask for.
    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK

    def __init__(
        self,
        loop: Any,
        protocol: asyncio.BaseProtocol,
        sslobject: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        /,
        *,
        waiter: asyncio.Future[None] | None,
        timeouts: tuple[float, float],
        is_told: bool,
    ) -> None:
        """Make one that is to become the protocol of a transport.

        Args:
            loop: a loop of ours.
            protocol: the program's.
            sslobject: was just made of the BIOs.
            incoming: what it reads.
            outgoing: what it writes.
            waiter: is set when the handshake is done.
            timeouts: of the handshake and of the shutdown, in seconds.
            is_told: whether the protocol's `connection_made` was called already.
        """
        self._waiter = waiter
        self._handshake_timeout, self._shutdown_timeout = timeouts
        self._is_told = is_told
        self._has_ended = False
        self._eof_received = False
        self._timer: asyncio.TimerHandle | None = None
        self._extra: dict[str, Any] = {"sslcontext": sslobject.context}

    __class__ = property(lambda self: SSLTransport)

    @property
    def _ssl_protocol(self) -> TLS:
        return self

    @property
    def _app_protocol(self) -> Any:
        return self.get_protocol()

    def __del__(self) -> None:
        if not self._closed:
            message = f"unclosed transport {self!r}"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    # ------------------------------------------------------------ for the program

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Something about the connection.

        Beside what the transport below knows: 'sslcontext', and after the handshake 'ssl_object',
        'peercert', 'cipher', 'compression'.
        """
        if name in self._extra:
            return self._extra[name]
        below = self._transport
        return default if below is None else below.get_extra_info(name, default)

    def can_write_eof(self) -> bool:
        """False: TLS ends both directions at once."""
        return False

    def write_eof(self) -> None:
        """Raise `NotImplementedError`."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection.

        What was written is sent first. `connection_lost` is called after that, and after the
        shutdown of TLS.
        """
        if not self._closed:
            self._closed = True
            self._start_shutdown()

    def abort(self) -> None:
        """Close the connection at once: what is not sent is lost."""
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        self._closed = True
        self._stage = _UNWRAPPED
        if self._transport is not None:
            _force_close(self._transport, exc)

    # ------------------------------------------------------------ for the transport below

    def connection_made(self, transport: Any) -> None:
        """Begin with the handshake."""
        if self._closed:  # who wanted the connection has gone already
            _force_close(transport, None)
            return
        self._transport = transport
        if self._loop.get_debug():
            logger.debug("%r starts SSL handshake", self)
        self._began = self._loop.time()
        self._stage = _HANDSHAKE
        self._timer = self._loop.call_later(self._handshake_timeout, self._handshake_timed_out)
        self._do_handshake()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the program's protocol, if it knows of the connection, and let everything go."""
        protocol = self._app_protocol if self._is_told and self._stage != _HANDSHAKE else None
        self._is_told = False
        self._forget()
        self._wake(exc)
        self._stop_timer()
        if protocol is not None:
            protocol.connection_lost(exc)

    def eof_received(self) -> bool | None:
        """Finish: the other side sends no more, whether it has said so by TLS or not."""
        self._eof_received = True
        if self._loop.get_debug():
            logger.debug("%r received EOF", self)
        try:
            if self._stage == _HANDSHAKE:
                self._handshake_done(ConnectionResetError())
            elif self._stage == _WRAPPED:
                self._stage = _FLUSHING
                if self._app_reading_paused:
                    return True
                self._do_flush()
            elif self._stage == _FLUSHING:
                self._write_kept()
                self._stage = _SHUTDOWN
                self._do_shutdown()
            elif self._stage == _SHUTDOWN:
                self._do_shutdown()
        except Exception:
            if self._transport is not None:
                self._transport.close()
            raise
        return None

    # ------------------------------------------------------------ the handshake

    def _do_handshake(self) -> None:
        try:
            self._sslobj.do_handshake()
        except _AGAIN:
            self._flush()
        except ssl.SSLError as error:
            self._handshake_done(error)
        else:
            self._handshake_done(None)

    def _handshake_done(self, error: Exception | None) -> None:
        self._stop_timer()
        try:
            if error is not None:
                raise error
            self._stage = _WRAPPED
            peercert = self._sslobj.getpeercert()
        except Exception as failure:
            error = None  # a reference to itself through its traceback
            self._stage = _UNWRAPPED
            what = "SSL handshake failed"
            if isinstance(failure, ssl.CertificateError):
                what += " on verifying the certificate"
            self._fatal_error(failure, what)
            self._wake(failure)
            return
        if self._loop.get_debug():
            took = self._loop.time() - self._began
            logger.debug("%r: SSL handshake took %.1f ms", self, took * 1e3)
        sslobject = self._sslobj
        self._extra.update(
            peercert=peercert,
            cipher=sslobject.cipher(),
            compression=sslobject.compression(),
            ssl_object=sslobject,
        )
        if not self._is_told:
            self._is_told = True
            self._app_protocol.connection_made(self)
        self._wake(None)
        self._read()

    def _handshake_timed_out(self) -> None:
        if self._stage == _HANDSHAKE:
            message = (
                f"SSL handshake is taking longer than {self._handshake_timeout} seconds: "
                "aborting the connection"
            )
            self._fatal_error(ConnectionAbortedError(message))

    # ------------------------------------------------------------ the shutdown

    def _start_shutdown(self) -> None:
        if self._stage == _HANDSHAKE:
            self._force_close(None)
        elif self._stage == _WRAPPED:
            self._closed = True
            self._stage = _FLUSHING
            self._start_shutdown_timer()
            self._do_flush()

    def _do_flush(self) -> None:
        self._read()
        # The protocol may have aborted the connection.
        if self._stage == _FLUSHING:
            self._stage = _SHUTDOWN
            self._do_shutdown()

    def _do_shutdown(self) -> None:
        try:
            if not self._eof_received:
                self._sslobj.unwrap()
        except _AGAIN:
            self._flush()
        except ssl.SSLError as error:
            self._stop_timer()
            self._fatal_error(error)
        else:
            self._flush()
            self._tell_end()
            # The transport below writes what it has first, which the other side can delay for ever.
            if self._timer is None:
                self._start_shutdown_timer()
            if self._transport is not None:
                self._loop.call_soon(self._transport.close)

    def _start_shutdown_timer(self) -> None:
        self._timer = self._loop.call_later(self._shutdown_timeout, self._shutdown_timed_out)

    def _shutdown_timed_out(self) -> None:
        if self._stage in (_FLUSHING, _SHUTDOWN) and self._transport is not None:
            _force_close(self._transport, TimeoutError("SSL shutdown timed out"))

    def _ended(self) -> None:
        """The other side has said by TLS that it sends no more."""
        self._tell_end()
        self._start_shutdown()

    def _tell_end(self) -> None:
        if not self._is_told or self._has_ended:
            return
        self._has_ended = True
        try:
            if self._app_protocol.eof_received():
                logger.warning("returning true from eof_received() has no effect when using ssl")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._fatal_error(error, "Error calling eof_received()")

    # ------------------------------------------------------------ both

    def _wake(self, exc: BaseException | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.cancelled():
            return
        if exc is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(exc)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fatal_error(self, exc: BaseException, message: str = "Fatal error on transport") -> None:
        below = self._transport
        if below is not None:
            _force_close(below, exc)
        if isinstance(exc, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=True)
        elif not isinstance(exc, asyncio.CancelledError):
            self._loop.call_exception_handler(
                {"message": message, "exception": exc, "transport": below, "protocol": self}
            )


def _force_close(transport: Any, exc: BaseException | None) -> None:
    """Abort a transport, one of ours or of the standard library's for a reason."""
    force = getattr(transport, "_force_close", None)
    if force is None:
        transport.abort()
    else:
        force(exc)


def _seconds(name: str, given: float | None, default: float) -> float:
    if given is None:
        return default
    if given <= 0:
        raise ValueError(f"{name} should be a positive number, got {given}")
    return given


def make(
    loop: Any,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext | None,
    waiter: asyncio.Future[None] | None,
    *,
    server_side: bool,
    server_hostname: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
    is_told: bool = False,
) -> Any:
    """Make TLS for `protocol`: a transport that is to become the protocol of the one below.

    Raises:
        ValueError: a timeout is not positive; a server without a context; the context checks the
            name of the other side, and there is none.
    """
    timeouts = (
        _seconds("ssl_handshake_timeout", handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT),
        _seconds("ssl_shutdown_timeout", shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT),
    )
    if not context:
        if server_side:
            raise ValueError("Server side SSL needs a valid SSLContext")
        context = ssl.create_default_context()
        if not server_hostname:
            context.check_hostname = False
    name = None if server_side else server_hostname or None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    sslobject = context.wrap_bio(incoming, outgoing, server_side, name)
    return TLS(
        loop,
        protocol,
        sslobject,
        incoming,
        outgoing,
        waiter=waiter,
        timeouts=timeouts,
        is_told=is_told,
    )


async def start(
    loop: Any,
    transport: Any,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    server_hostname: str | None,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> Any:
    """Put TLS between `transport` and `protocol`; see `loop.start_tls`."""
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(
            f"sslcontext is expected to be an instance of ssl.SSLContext, got {context!r}"
        )
    if not getattr(transport, "_start_tls_compatible", False):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    waiter = loop.create_future()
    tls = make(
        loop,
        protocol,
        context,
        waiter,
        server_side=server_side,
        server_hostname=server_hostname,
        handshake_timeout=handshake_timeout,
        shutdown_timeout=shutdown_timeout,
        is_told=True,
    )
    # Nothing may come before TLS is told of its transport.
    transport.pause_reading()
    if server_side:
        _take_over(protocol, tls)
    transport.set_protocol(tls)
    handles = [
        loop.call_soon(tls.connection_made, transport),
        loop.call_soon(transport.resume_reading),
    ]
    try:
        await waiter
    except BaseException:
        transport.close()
        for handle in handles:
            handle.cancel()
        waiter = None  # whose exception refers to this frame
        raise
    return tls


def _take_over(protocol: asyncio.BaseProtocol, tls: TLS) -> None:
    """Move what a stream has received of the handshake already to where it belongs."""
    reader = getattr(protocol, "_stream_reader", None)
    if isinstance(protocol, asyncio.StreamReaderProtocol) and reader is not None:
        received = reader._buffer
        if received:
            tls._feed(received)
            received.clear()
