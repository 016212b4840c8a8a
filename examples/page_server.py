"""A small web server with latency, for `fetch_pages.py` and `crawler.py` to talk to.

It serves `/page/0`, `/page/1`, … with bodies that depend on nothing but the number, holds every
answer back for about `--latency` seconds as a distant server would, and keeps connections open
(HTTP/1.1 keep-alive). One event loop serves them all, so that the client is what is measured.

Two details worth copying into your own test servers:

* It binds port 0, lets the kernel choose a free port, and prints the port as its first line; a
  fixed port is taken on somebody's machine.
* With `--until-eof` it ends as soon as its standard input does. A parent that holds the other end
  of that pipe takes the server with it, even when the parent is killed.

Run it by itself with `python page_server.py` and open the address that it prints.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import sys
from contextlib import suppress
from functools import lru_cache

TEXT = (
    "amber basin cedar delta ember fjord grove heron inlet jetty knoll larch marsh north orchard "
    "pebble quarry ridge shore tide upland vale willow yarrow"
)
WORDS = TEXT.split()
PAGE_PATH = re.compile(r"/page/[0-9]{1,9}")
MIN_PARAGRAPHS = 12
"""The shortest page has this many paragraphs, the longest twice as many: about 4 to 9 kB."""


@lru_cache(maxsize=4096)
def page_body(number: int) -> bytes:
    """Return the page with this number: the same bytes on every machine and at every call."""
    paragraphs = []
    for index in range(MIN_PARAGRAPHS + number % (MIN_PARAGRAPHS + 1)):
        digest = hashlib.sha512(f"{number}/{index}".encode()).digest()
        paragraphs.append("<p>" + " ".join(WORDS[byte % len(WORDS)] for byte in digest) + "</p>")
    title = f"<!doctype html><title>Page {number}</title><h1>Page {number}</h1>"
    # Every page links to two further ones and back to the first, as sites do.
    links = [f'<a href="/page/{link}">{link}</a>' for link in (2 * number + 1, 2 * number + 2, 0)]
    return "\n".join([title, *paragraphs, *links, ""]).encode()


def page_latency(number: int, latency: float) -> float:
    """Spread `latency` by up to a fifth either way, so that pages finish out of order."""
    return latency * (0.8 + 0.4 * (number * 37 % 100) / 100)


def response(status: str, body: bytes, *, close: bool = False) -> bytes:
    """Return a whole HTTP/1.1 answer, head and body, ready for one `write`."""
    head = [f"HTTP/1.1 {status}", "Content-Type: text/html", f"Content-Length: {len(body)}"]
    if close:
        head.append("Connection: close")
    return "\r\n".join([*head, "", ""]).encode() + body


class PageProtocol(asyncio.Protocol):
    """One connection: cuts requests out of the bytes that arrive and answers each after a delay."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport that the answers go to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete, and keep what is left for the next call."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, self._received = self._received.split(b"\r\n\r\n", 1)
            self._answer(head.split(b"\r\n", 1)[0].decode("latin-1"))

    def _answer(self, request_line: str) -> None:
        match request_line.split():
            case ["GET", path, _] if PAGE_PATH.fullmatch(path):
                number = int(path.rpartition("/")[2])
                asyncio.get_running_loop().call_later(
                    page_latency(number, self._latency),
                    self._transport.write,
                    response("200 OK", page_body(number)),
                )
            case ["GET", _, _]:
                self._transport.write(response("404 Not Found", b"no such page\n"))
            case _:
                # A body may follow that this server does not read: the connection is done for.
                self._transport.write(response("400 Bad Request", b"GET only\n", close=True))
                self._transport.close()


async def serve(port: int, latency: float, until_eof: bool) -> None:
    """Serve on the loopback interface until cancelled, or until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: PageProtocol(latency), "127.0.0.1", port, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    if not until_eof:
        await server.serve_forever()
    ended = asyncio.Event()

    def check_input() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            ended.set()

    loop.add_reader(sys.stdin.fileno(), check_input)
    await ended.wait()
    server.close()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="Serve deterministic pages with latency.")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    parser.add_argument("--latency", type=float, default=0.025, help="seconds (default: 0.025)")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(options.port, options.latency, options.until_eof))


if __name__ == "__main__":
    main()
