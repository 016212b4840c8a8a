"""A client of a web API that keeps to the API's limits, and gets its data though the API is flaky.

The API is a server in this program, on the loopback interface, so no network is needed. Like many
real ones it serves only so many requests a second and only so many at once, and answers 429 "Too
Many Requests" with a `Retry-After` beyond that; every fifth order is unavailable (503) the first
time it is asked for, and for every seventh one the connection breaks.

    python rate_limited_client.py
    juggler run rate_limited_client.py

What to look at:

* The careful client is the bare one with one line above it: `@POLICY`. The policy's parts are
  written from the outside to the inside: each attempt waits for a place and then for its turn,
  so that nothing holds it up between its turn and the call.
* The client keeps to the limits by itself, so the server never has to tell it to slow down.
* A `Retry-After` reaches `retry` as the attribute of an exception; nothing in between knows of it.
* Only what may go away by itself is tried again. A 404 is an answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from juggler import policy

PER_SECOND, BURST, AT_ONCE = 200, 24, 8
"""What the server allows: requests a second, as many in a moment after a pause, and at once."""


class ApiError(Exception):
    """The API answered with an error."""

    def __init__(self, status: int, retry_after: str | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = None if retry_after is None else float(retry_after)


def passes(error: Exception) -> bool:
    """Whether an error may go away by itself."""
    return isinstance(error, ConnectionError) or (
        isinstance(error, ApiError) and error.status in (429, 503)
    )


# The server measures when requests arrive, which is a little later than they were sent, so the
# client stays a little below its rate.
POLICY = (
    policy.retry(8, backoff=policy.exponential(0.02, 1), on=passes, deadline=60)
    | policy.limit(AT_ONCE)
    | policy.rate("180/s")
)


def fetch_order(port: int, number: int) -> int:
    """Ask the API for an order, and return its total."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=policy.remaining())
    try:
        connection.request("GET", f"/orders/{number}")
        answer = connection.getresponse()
        if answer.status != 200:
            raise ApiError(answer.status, answer.getheader("Retry-After"))
        return int(json.load(answer)["total"])
    finally:
        connection.close()


@POLICY
def fetch_order_carefully(port: int, number: int) -> int:
    """Ask the API for an order, within its limits and until it answers."""
    return fetch_order(port, number)


class Api(ThreadingHTTPServer):
    """The API, and how it was used."""

    request_queue_size = 128

    def __init__(self, orders: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.orders = orders
        self.lock = threading.Lock()
        self.asked: Counter[int] = Counter()
        self.told_off = 0
        self._inside = 0
        self._tokens, self._filled = float(BURST), time.monotonic()

    def enter(self) -> bool:
        """Whether a request is within the limits."""
        with self.lock:
            now = time.monotonic()
            self._tokens = min(BURST, self._tokens + (now - self._filled) * PER_SECOND)
            self._filled = now
            self._inside += 1
            allowed = self._tokens >= 1 and self._inside <= AT_ONCE
            self._tokens -= allowed
            self.told_off += not allowed
            return allowed

    def leave(self) -> None:
        """A request is about to be answered."""
        with self.lock:
            self._inside -= 1


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Api

    def do_GET(self) -> None:
        """Answer with an order, or in the way in which the API is flaky."""
        allowed = self.server.enter()
        number = int(self.path.rpartition("/")[2])
        with self.server.lock:
            self.server.asked[number] += allowed
            first = self.server.asked[number] == 1
        if allowed:
            time.sleep(0.002)
        self.server.leave()
        if not allowed:
            self._answer(429, {}, {"Retry-After": "0.1"})
        elif number >= self.server.orders:
            self._answer(404, {}, {})
        elif first and number % 5 == 0:
            self._answer(503, {}, {"Retry-After": "0.05"})
        elif first and number % 7 == 0:
            self.close_connection = True
        else:
            self._answer(200, {"total": number * 3 % 101}, {})

    def _answer(self, status: int, content: object, headers: dict[str, str]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def fetch_all(fetch: Callable[[int, int], int], port: int, orders: int) -> tuple[int, int]:
    """Fetch all orders in a pool of threads; return how many came, and the sum of their totals."""
    with ThreadPoolExecutor(32) as pool:
        calls = [pool.submit(fetch, port, number) for number in range(orders)]
    totals = [call.result() for call in calls if call.exception() is None]
    return len(totals), sum(totals)


def main() -> int:
    """Run both clients against a server each, and return the exit status."""
    parser = argparse.ArgumentParser(description="Keep to the limits of a flaky web API.")
    parser.add_argument("--orders", type=int, default=300)
    orders = parser.parse_args().orders
    expected = orders, sum(number * 3 % 101 for number in range(orders))
    good = []
    for name, fetch in ("bare", fetch_order), ("careful", fetch_order_carefully):
        with Api(orders) as api:
            serving = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02})
            serving.start()
            good.append(fetch_all(fetch, api.server_port, orders) == expected)
            api.shutdown()
            serving.join()
        print(f"the {name} client got everything  {'yes' if good[-1] else 'no'}")
    print(f"it was told to slow down  {'yes' if api.told_off else 'never'}")
    return 0 if good == [False, True] and not api.told_off else 1


if __name__ == "__main__":
    sys.exit(main())
