"""Streams: stands in for ``asyncio.streams``. See `juggler.asyncio`.

What runs often is native: reads, `StreamWriter.write` and `StreamWriter.drain`. All else is the
standard library's own.
"""

from __future__ import annotations

import asyncio
from asyncio import streams

from juggler import _juggler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]

_LIMIT = 64 * 1024


@_juggler._own_methods
class StreamReader(_juggler.StreamReader, streams.StreamReader):  # type: ignore[misc]
    """What comes from a transport, to be read.

    Stands in for `asyncio.StreamReader`, and is a subclass of it.
    """


@_juggler._own_methods
class StreamWriter(_juggler.StreamWriter, streams.StreamWriter):
    """What a program writes to a transport.

    Stands in for `asyncio.StreamWriter`, and is a subclass of it.
    """


drain = streams.StreamWriter.drain  # for the native one, when it has to wait


@_juggler._set_stream_protocol_class
class StreamReaderProtocol(streams.StreamReaderProtocol):
    """The protocol that gives a reader what comes, and a writer its transport.

    Stands in for `asyncio.StreamReaderProtocol`, and is a subclass of it. A native transport whose
    protocol is of this very class gives the reader itself what comes.
    """

    _client_connected_cb: Any
    _loop: Any
    _reject_connection: bool
    _strong_reader: Any
    _stream_reader: Any
    _transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell the reader of its transport, and a server's callback of the connection."""
        callback = self._client_connected_cb
        if callback is None or self._reject_connection:
            super().connection_made(transport)
            return
        # What the standard library does, which would make writers of its own class.
        self._client_connected_cb = None
        super().connection_made(transport)
        self._client_connected_cb = callback
        reader = self._stream_reader
        writer = StreamWriter(transport, self, reader, self._loop)
        try:
            result = callback(reader, writer)
        except Exception as error:
            self._report(transport, error)
        else:
            if asyncio.iscoroutine(result):
                self._task = self._loop.create_task(result)
                self._task.add_done_callback(lambda task: self._client_done(transport, task))
        self._strong_reader = None

    def _client_done(self, transport: Any, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            transport.close()
        elif error := task.exception():
            self._report(transport, error)

    def _report(self, transport: Any, error: BaseException) -> None:
        self._loop.call_exception_handler(
            {
                "message": "Unhandled exception in client_connected_cb",
                "exception": error,
                "transport": transport,
            }
        )
        transport.close()


def _client(limit: int) -> tuple[StreamReader, StreamReaderProtocol, Any]:
    loop: Any = asyncio.get_running_loop()
    reader = StreamReader(limit, loop)
    return reader, StreamReaderProtocol(reader, loop=loop), loop


def _server_factory(callback: Any, limit: int, loop: Any) -> Callable[[], StreamReaderProtocol]:
    def factory() -> StreamReaderProtocol:
        return StreamReaderProtocol(StreamReader(limit, loop), callback, loop)

    return factory


async def open_connection(
    host: Any = None, port: Any = None, *, limit: int = _LIMIT, **kwds: Any
) -> tuple[StreamReader, StreamWriter]:
    """Connect to a TCP server; returns a reader and a writer.

    Args:
        host: its name or address.
        port: its port.
        limit: how many bytes the reader's lines may have; it holds twice as many before the other
            side has to wait.
        **kwds: as for `loop.create_connection`.
    """
    reader, protocol, loop = _client(limit)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **kwds)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_server(
    client_connected_cb: Callable[..., Any],
    host: Any = None,
    port: Any = None,
    *,
    limit: int = _LIMIT,
    **kwds: Any,
) -> asyncio.Server:
    """Serve TCP connections.

    Args:
        client_connected_cb: called with a reader and a writer for each connection; if it is a
            coroutine function, it runs as a task.
        host: the addresses to listen at; all by default.
        port: the port.
        limit: see `open_connection`.
        **kwds: as for `loop.create_server`.
    """
    loop: Any = asyncio.get_running_loop()
    factory = _server_factory(client_connected_cb, limit, loop)
    server: asyncio.Server = await loop.create_server(factory, host, port, **kwds)
    return server


async def open_unix_connection(
    path: Any = None, *, limit: int = _LIMIT, **kwds: Any
) -> tuple[StreamReader, StreamWriter]:
    """As `open_connection`, to the Unix socket `path`."""
    reader, protocol, loop = _client(limit)
    transport, _ = await loop.create_unix_connection(lambda: protocol, path, **kwds)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_unix_server(
    client_connected_cb: Callable[..., Any], path: Any = None, *, limit: int = _LIMIT, **kwds: Any
) -> asyncio.Server:
    """As `start_server`, at the Unix socket `path`."""
    loop: Any = asyncio.get_running_loop()
    factory = _server_factory(client_connected_cb, limit, loop)
    server: asyncio.Server = await loop.create_unix_server(factory, path, **kwds)
    return server
