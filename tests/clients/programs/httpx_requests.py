"""httpx's AsyncClient against a server of the standard library's, in a thread."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from whose import assert_ours

LARGE = bytes(range(256)) * 4096


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    released: threading.Event

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.released.wait()
        self.answer(LARGE if self.path == "/large" else self.path.encode())

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(json.dumps({"sent": sent}).encode())

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 100

    def handle_error(self, *_: object) -> None:
        """Nothing: it is the client of `/slow`, who has hung up."""


@contextmanager
def server() -> Iterator[str]:
    """Serve for as long as the block runs; gives the address."""
    Handler.released = threading.Event()
    with Server(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            Handler.released.set()
            http.shutdown()
            thread.join()


async def requests(client: httpx.AsyncClient) -> None:
    assert_ours()
    answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(50)))
    assert [answer.text for answer in answers] == [f"/{number}" for number in range(50)]
    answer = await client.post("/", json={"numbers": [1, 2, 3]})
    assert answer.json() == {"sent": {"numbers": [1, 2, 3]}}
    async with client.stream("GET", "/large") as response:
        assert b"".join([part async for part in response.aiter_bytes(1000)]) == LARGE
    try:
        await client.get("/slow", timeout=0.05)
    except httpx.ReadTimeout:
        pass
    else:
        raise AssertionError("a response before the timeout")


async def main() -> None:
    with server() as address:
        async with httpx.AsyncClient(base_url=address) as client:
            await requests(client)


if __name__ == "__main__":
    asyncio.run(main())
