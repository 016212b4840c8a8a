"""A server over which a test has every byte: what it answers is a script of the test's."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass
class Request:
    """What the client asked, and the line back to it."""

    path: str
    headers: dict[str, str]
    count: int
    """How many requests for this path came before."""
    connection: socket.socket

    def send(self, *parts: bytes | str) -> None:
        """Send text and bytes as they are."""
        data = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
        self.connection.sendall(data)

    def answer(
        self, status: str, *headers: str, body: bytes = b"", length: int | None = None
    ) -> None:
        """Send a whole answer; `length` is what it says of the body's, if not the truth."""
        length = len(body) if length is None else length
        head = [f"HTTP/1.1 {status}", f"Content-Length: {length}", *headers, "", ""]
        self.send("\r\n".join(head), body)

    @property
    def first_byte(self) -> int | None:
        """From which byte on the client asks, or None for all."""
        range_ = self.headers.get("range")
        return None if range_ is None else int(range_.removeprefix("bytes=").partition("-")[0])

    @property
    def last_byte(self) -> int | None:
        """Up to which byte the client asks, or None for the end."""
        last = self.headers.get("range", "").partition("-")[2]
        return int(last) if last else None

    def serve(
        self,
        body: bytes,
        etag: str = '"1"',
        until: int | None = None,
        end: Callable[[], object] | None = None,
    ) -> None:
        """Answer as a good server does, with ranges and If-Range; `end` it before byte `until`."""
        first = self.first_byte
        if first is None or self.headers.get("if-range") != etag:
            status, first, extra = "200 OK", 0, []
        else:
            status = "206 Partial Content"
            extra = [f"Content-Range: bytes {first}-{len(body) - 1}/{len(body)}"]
        rest = body[first : len(body) if until is None else until]
        self.answer(status, f"ETag: {etag}", *extra, body=rest, length=len(body) - first)
        if until is not None:
            (end or self.close)()

    def close(self) -> None:
        """Close the connection in an orderly way."""
        self.connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Break the connection off, with a reset, once the client has what was sent."""
        time.sleep(0.2)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        # Its `close` would wait for the file that reads from it.
        os.close(self.connection.detach())


Handler = Callable[[Request], None]


@dataclass
class Server:
    """Serves the handlers of `pages`, each connection in a thread, until the end of the `with`."""

    pages: dict[str, Handler] = field(default_factory=dict)
    context: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen)]
        self._closing = False
        self.ended = threading.Event()
        """For handlers that wait for ever."""
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        self.ended.set()
        # Wakes the thread that accepts.
        socket.create_connection(self._listener.getsockname()).close()
        self._threads[0].join()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()

    def url(self, path: str) -> str:
        """The address of a page."""
        scheme = "https" if self.context else "http"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}{path}"

    def asked(self, path: str) -> list[Request]:
        """The requests for a page so far."""
        return [request for request in self.requests if request.path == path]

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing:
                connection.close()
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=[connection])
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                if self.context is None and connection.recv(1, socket.MSG_PEEK) == b"\x16":
                    connection.sendall(b"HTTP/1.1 400 TLS is not spoken here\r\n\r\n")
                    while connection.recv(4096):
                        pass
                    return
                if self.context is not None:
                    connection = self.context.wrap_socket(connection, server_side=True)
                with connection, connection.makefile("rb") as lines:
                    for path, headers in _requests(lines):
                        request = Request(path, headers, len(self.asked(path)), connection)
                        self.requests.append(request)
                        self.pages[path](request)
            except OSError:
                pass  # the client, or the handler, closed it


def _requests(lines: Iterator[bytes]) -> Iterator[tuple[str, dict[str, str]]]:
    for line in lines:
        path = line.split()[1].decode()
        headers = {}
        for header in lines:
            if header == b"\r\n":
                break
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        yield path, headers
