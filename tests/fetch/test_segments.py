"""Large files over several connections: when there are some, and what becomes of faults in them."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FETCH, Command
from misbehaving import Request, Server

BODY = random.Random(3).randbytes(48 << 20)
OTHER = random.Random(4).randbytes(48 << 20)
RATE = 10 << 20
"""Bytes a second: of each connection, or of all."""

PIECE = 1 << 16


class Line:
    """Sends as fast as a line bears, which may be one connection's or that of several."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def send(self, request: Request, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            with self._lock:
                self._free_at = max(self._free_at, time.monotonic()) + PIECE / RATE
                wait = self._free_at - time.monotonic()
            time.sleep(max(0.0, wait))
            request.send(data[at : at + PIECE])


def serve(
    request: Request,
    body: bytes,
    etag: str,
    line: Line,
    until: int | None = None,
    end: Callable[[Request], object] = Request.reset,
) -> None:
    """Answer slowly and well, but for its `end` before byte `until`."""
    first, last = request.first_byte, request.last_byte
    last = len(body) - 1 if last is None else last
    head = [f"ETag: {etag}", "Accept-Ranges: bytes"]
    if first is None or request.headers.get("if-range") != etag:
        status, first, last = "200 OK", 0, len(body) - 1
    else:
        status = "206 Partial Content"
        head.append(f"Content-Range: bytes {first}-{last}/{len(body)}")
    head.append(f"Content-Length: {last - first + 1}")
    request.send("\r\n".join([f"HTTP/1.1 {status}", *head, "", ""]))
    line.send(request, body[first : last + 1 if until is None else until])
    if until is not None:
        end(request)


def slow(request: Request) -> None:
    """Each connection has a line of its own."""
    serve(request, BODY, '"1"', Line())


def changes(request: Request) -> None:
    if request.count == 0:
        serve(request, BODY, '"1"', Line())
    else:
        serve(request, OTHER, '"2"', Line())


def changes_and_ignores_if_range(request: Request) -> None:
    if request.count == 0 or request.first_byte is None:
        body, etag = (OTHER, '"2"') if request.count else (BODY, '"1"')
    else:
        request.headers["if-range"], body, etag = '"2"', OTHER, '"2"'
    serve(request, body, etag, Line())


def shrinks(request: Request) -> None:
    if request.count == 0 or request.first_byte is None:
        body, etag = (OTHER, '"2"') if request.count else (BODY, '"1"')
        serve(request, body, etag, Line())
    else:
        request.answer("416 Range Not Satisfiable", "Content-Range: bytes */10")


def sends_too_much(request: Request) -> None:
    """To who asks for a part; and says so, which is another file then."""
    first, last = request.first_byte, request.last_byte
    if request.count == 0 or first is None:
        serve(request, OTHER if request.count else BODY, '"1"', Line())
    else:
        last = len(BODY) - 1 if last is None else last
        range_ = f"Content-Range: bytes {first}-{last}/{len(BODY)}"
        chunked = "Transfer-Encoding: chunked"
        head = ["HTTP/1.1 206 Partial Content", 'ETag: "1"', range_, chunked, "", ""]
        request.send("\r\n".join(head))
        with contextlib.suppress(OSError):  # the client has seen enough
            for at in range(first, last + 1 + 10 * PIECE, PIECE):
                request.send(f"{PIECE:x}\r\n", BODY[at : at + PIECE].ljust(PIECE), "\r\n")
            request.send("0\r\n\r\n")


def ignores_the_range(request: Request) -> None:
    request.headers.pop("range", None)
    serve(request, BODY, '"1"', Line())


def refuses_a_second_connection(request: Request) -> None:
    request.answer("429 Too Many Requests", "Retry-After: 1000")


def answers_from_elsewhere(request: Request) -> None:
    if request.path == "/x":
        request.answer("302 Found", "Location: /elsewhere")
    else:
        slow(request)


def first_alone(others: Callable[[Request], None]) -> Callable[[Request], None]:
    """The first request is served well, `others` by the function."""
    return lambda request: slow(request) if request.count == 0 else others(request)


def resets_once(request: Request) -> None:
    first = request.first_byte
    assert first is not None
    until = first + (2 << 20) if request.count == 1 else None
    serve(request, BODY, '"1"', Line(), until)


def stalls_once(request: Request) -> None:
    first = request.first_byte
    assert first is not None
    until = first + (2 << 20) if request.count == 1 else None
    serve(request, BODY, '"1"', Line(), until, lambda request: request.connection.recv(1))


def test_a_server_that_slows_down_each_connection(
    server: Server, folder: Path, command: Command
) -> None:
    # So long that there is no doubt whether a third connection is worth it, too.
    body = BODY + OTHER + BODY
    server.pages["/x"] = lambda request: serve(request, body, '"1"', Line())
    run = command("/x")
    assert run.status == 0, run.stderr
    assert (folder / "x").read_bytes() == body
    assert [path.name for path in folder.iterdir()] == ["x"]
    firsts = [request.first_byte for request in server.asked("/x")]
    assert len(firsts) >= 3 and firsts[0] is None and None not in firsts[1:]
    assert {request.headers["if-range"] for request in server.asked("/x")[1:]} == {'"1"'}


def test_a_line_that_is_full_gets_one_more_connection_and_no_further(
    server: Server, folder: Path, command: Command
) -> None:
    line = Line()
    server.pages["/x"] = lambda request: serve(request, BODY, '"1"', line)
    assert command("/x").status == 0
    assert (folder / "x").read_bytes() == BODY
    assert len(server.asked("/x")) == 2


@pytest.mark.parametrize("words", [["--per-host", "1"], ["--limit", "1"], ["--no-resume"]])
def test_no_segments_without_a_place_or_without_ranges(
    server: Server, folder: Path, command: Command, words: list[str]
) -> None:
    server.pages["/x"] = slow
    assert command("/x", *words).status == 0
    assert (folder / "x").read_bytes() == BODY
    assert len(server.asked("/x")) == 1


@pytest.mark.parametrize("page", [changes, changes_and_ignores_if_range, shrinks, sends_too_much])
def test_a_file_that_changes_before_a_segment_starts_over_over_one_connection(
    server: Server, folder: Path, command: Command, page: Callable[[Request], None]
) -> None:
    server.pages["/x"] = page
    run = command("/x")
    assert run.status == 0, run.stderr
    assert (folder / "x").read_bytes() == OTHER
    firsts = [request.first_byte for request in server.asked("/x")]
    assert firsts[0] is None and firsts[1] is not None and firsts[2:] == [None]


@pytest.mark.parametrize(
    "page", [ignores_the_range, refuses_a_second_connection, answers_from_elsewhere]
)
def test_a_server_that_gives_no_segments_is_asked_once(
    server: Server, folder: Path, command: Command, page: Callable[[Request], None]
) -> None:
    server.pages["/x"] = first_alone(page)
    server.pages["/elsewhere"] = page
    run = command("/x")
    assert run.status == 0 and run.files["/x"]["attempts"] == 1
    assert (folder / "x").read_bytes() == BODY
    assert len(server.asked("/x")) == 2


@pytest.mark.parametrize("page", [resets_once, stalls_once])
def test_a_segment_that_breaks_off(
    server: Server, folder: Path, command: Command, page: Callable[[Request], None]
) -> None:
    server.pages["/x"] = first_alone(page)
    run = command("/x", "--per-host", "2", "--stall", "1")
    assert run.status == 0, run.stderr
    assert (folder / "x").read_bytes() == BODY


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_what_was_stopped_with_several_segments_is_continued(
    server: Server, folder: Path, command: Command, signum: signal.Signals
) -> None:
    server.pages["/x"] = slow
    words = [*FETCH, "-q", "-o", str(folder), server.url("/x")]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        while not any("," in _ranges(path) for path in folder.glob("*.about")):
            assert process.poll() is None, "over before there were gaps"
            time.sleep(0.01)
        process.send_signal(signum)
        process.wait(timeout=60)
    assert not (folder / "x").exists()
    run = command("/x")
    assert run.status == 0 and 0 < run.files["/x"]["resumed"] < len(BODY)
    assert (folder / "x").read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["x"]


def _ranges(about: Path) -> str:
    lines = about.read_text().splitlines()
    return next((line for line in lines if line.startswith("ranges ")), "")
