"""Crawl a web site, with a limit on how many pages are fetched at once.

The everyday use of asyncio: hundreds of tasks that mostly wait, on one thread. Each page is fetched
over real sockets from `page_server.py`, its links are found, and every page that was not seen yet
gets a task of its own.

    python crawler.py
    juggler run crawler.py

What to look at:

* A task for each page costs little, so the program starts one as soon as it finds a link, and a
  `Semaphore` says how many of them may bother the server at the same time.
* A `TaskGroup` waits for all tasks, those too that other tasks have added, and if one fails it
  cancels the others: no list of tasks is kept by hand.
* `timeout` bounds each request as a whole: connecting, asking and reading.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(rb'href="(/page/[0-9]+)"')
REQUEST_TIMEOUT = 30.0
"""Seconds in which a page must have come."""


class CrawlError(Exception):
    """The server's answer was not a page."""


class Crawler:
    """Fetches pages of one server, each once, until it has as many as it wants."""

    def __init__(self, port: int, pages: int, at_once: int) -> None:
        self._port = port
        self._pages = pages
        self._limit = asyncio.Semaphore(at_once)
        self._in_flight = 0
        self.most_in_flight = 0
        self.digests: dict[str, str | None] = {}

    async def crawl(self, first: str) -> None:
        """Fetch `first` and what can be reached from it."""
        async with asyncio.TaskGroup() as group:
            self._add(group, first)

    def _add(self, group: asyncio.TaskGroup, path: str) -> None:
        # The numbers of the pages bound the crawl, so that every run fetches the same ones.
        if path not in self.digests and int(path.rpartition("/")[2]) < self._pages:
            self.digests[path] = None
            group.create_task(self._visit(group, path))

    async def _visit(self, group: asyncio.TaskGroup, path: str) -> None:
        async with self._limit:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            try:
                body = await self._fetch(path)
            finally:
                self._in_flight -= 1
        self.digests[path] = hashlib.sha256(body).hexdigest()
        for link in LINK.findall(body):
            self._add(group, link.decode())

    async def _fetch(self, path: str) -> bytes:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                await writer.drain()
                status = await reader.readline()
                length = 0
                while (line := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                if status.split()[1:2] != [b"200"]:
                    raise CrawlError(f"{path}: {status.decode().strip()}")
                return await reader.readexactly(length)
            finally:
                writer.close()
                await writer.wait_closed()


async def run(options: argparse.Namespace) -> int:
    """Start the server, crawl it, print what was found and return the exit status."""
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("page_server.py")),
        f"--latency={options.latency}",
        "--until-eof",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        crawler = Crawler(int(await server.stdout.readline()), options.pages, options.at_once)
        await crawler.crawl("/page/0")
    finally:
        server.stdin.close()
        await server.wait()
    found = sorted(crawler.digests.items(), key=lambda item: int(item[0].rpartition("/")[2]))
    whole = hashlib.sha256("".join(digest or "" for _, digest in found).encode())
    print(f"pages  {len(found)}")
    print(f"sha256  {whole.hexdigest()}")
    print(f"limit kept  {'yes' if crawler.most_in_flight <= options.at_once else 'no'}")
    return 0


def main() -> int:
    """Read the command line, crawl and return the exit status."""
    parser = argparse.ArgumentParser(description="Crawl a web site with a limit.")
    parser.add_argument("--pages", type=int, default=3000)
    parser.add_argument("--at-once", type=int, default=50, help="requests in flight at most")
    parser.add_argument("--latency", type=float, default=0.01, help="seconds (default: 0.01)")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
