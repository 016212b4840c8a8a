"""Fetch several hundred web pages with `requests` in a thread pool.

The everyday use of `concurrent.futures`: each page takes its time to arrive, so many threads wait
at once. The program starts `page_server.py` on a free loopback port, fetches every page over real
sockets, compares each with the bytes that it ought to be, and stops the server.

    python fetch_pages.py
    juggler run fetch_pages.py

What to look at:

* A `requests.Session` keeps its connection open but is not made to be shared between threads, so
  each worker has its own in a `threading.local`.
* Every wait has a timeout: connecting, reading, and the whole of `as_completed`.
* `as_completed` hands pages over in the order they arrive; the digest is taken in page order.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import requests
from page_server import page_body

CONNECT_AND_READ_TIMEOUT = (5.0, 30.0)
"""Seconds to wait for a connection, and for the next bytes on it."""
OVERALL_TIMEOUT = 120.0
"""Seconds after which the whole download is given up."""


class WrongPageError(Exception):
    """A page arrived with other bytes than it ought to have."""


class Fetcher:
    """Fetches pages from one server, with one `requests.Session` for each thread that asks."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._local = threading.local()
        self._lock = threading.Lock()
        self._sessions: list[requests.Session] = []

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # The server is on this machine: no proxy from the environment may come between.
            session.trust_env = False
            with self._lock:
                self._sessions.append(session)
        return session

    def fetch(self, number: int) -> bytes:
        """Return the body of one page; raise `WrongPageError` if it is not what it ought to be."""
        url = f"{self._address}/page/{number}"
        answer = self._session().get(url, timeout=CONNECT_AND_READ_TIMEOUT)
        answer.raise_for_status()
        if answer.content != page_body(number):
            raise WrongPageError(f"{url}: {len(answer.content)} bytes that differ from the page")
        return answer.content

    def close(self) -> None:
        """Close the sessions of all threads; call it when those threads are done."""
        with self._lock:
            for session in self._sessions:
                session.close()


@contextmanager
def running_server(latency: float) -> Iterator[str]:
    """Start the page server as a process of its own, yield its address, and always stop it."""
    program = Path(__file__).with_name("page_server.py")
    command = [sys.executable, str(program), f"--latency={latency}", "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip().decode()
            if not port:
                raise RuntimeError(f"{program.name} ended with status {server.wait()}")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.stdin.close()
            try:
                server.wait(timeout=5)
            except subprocess.TimeoutExpired:
                server.kill()


def fetch_all(address: str, count: int, workers: int) -> list[bytes]:
    """Fetch pages 0 to `count - 1` in `workers` threads and return their bodies in page order."""
    fetcher = Fetcher(address)
    bodies: dict[int, bytes] = {}
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="fetch") as pool:
            numbers = {pool.submit(fetcher.fetch, number): number for number in range(count)}
            try:
                for future in as_completed(numbers, timeout=OVERALL_TIMEOUT):
                    bodies[numbers[future]] = future.result()
            except BaseException:
                # One page failed, or Ctrl-C: do not fetch the rest first.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        fetcher.close()
    return [bodies[number] for number in range(count)]


def main() -> None:
    """Fetch the pages and print what arrived."""
    parser = argparse.ArgumentParser(description="Fetch pages with requests in a thread pool.")
    parser.add_argument("--pages", type=int, default=800)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.025, help="seconds (default: 0.025)")
    options = parser.parse_args()
    with running_server(options.latency) as address:
        bodies = fetch_all(address, options.pages, options.workers)
    print(f"pages   {len(bodies)}")
    print(f"bytes   {sum(map(len, bodies))}")
    print(f"sha256  {hashlib.sha256(b''.join(bodies)).hexdigest()}")


if __name__ == "__main__":
    main()
