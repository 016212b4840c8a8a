"""What servers do wrong, and what becomes of the files; the table is in the docs."""

from __future__ import annotations

import email.utils
import hashlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command
from misbehaving import Request, Server

BODY = random.Random(1).randbytes(300_000)
HALF = len(BODY) // 2
OTHER = random.Random(2).randbytes(280_000)


def left(folder: Path) -> set[str]:
    """The files in the folder."""
    return {path.name for path in folder.iterdir()}


def good(request: Request) -> None:
    request.serve(b"as it should be")


@pytest.fixture(autouse=True)
def a_good_file(server: Server) -> None:
    """Beside each file that goes wrong one is fetched that must not suffer."""
    server.pages["/good"] = good


# ---------------------------------------------------------------- ends with the right file


def asked_to_wait(request: Request) -> None:
    if request.count == 0:
        request.answer("429 Too Many Requests", "Retry-After: 1")
    else:
        request.serve(BODY)


def asked_to_wait_until(request: Request) -> None:
    if request.count == 0:
        date = email.utils.formatdate(time.time() + 2, usegmt=True)
        request.answer("503 Service Unavailable", f"Retry-After: {date}")
    else:
        request.serve(BODY)


def unavailable_twice(request: Request) -> None:
    if request.count < 2:
        request.answer("503 Service Unavailable", body=b"later")
    else:
        request.serve(BODY)


def resets_midway(request: Request) -> None:
    if request.count == 0:
        request.answer("200 OK", 'ETag: "1"', body=BODY[:HALF], length=len(BODY))
        request.reset()
    else:
        request.serve(BODY)


def truncates(request: Request) -> None:
    request.serve(BODY, until=HALF if request.count == 0 else None)


def truncates_chunks(request: Request) -> None:
    if request.count == 0:
        request.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: "1"\r\n\r\n')
        request.send(f"{HALF:x}\r\n", BODY[:HALF], "\r\n")
        request.close()
    else:
        request.serve(BODY)


def stalls(request: Request) -> None:
    if request.count == 0:
        request.answer("200 OK", 'ETag: "1"', body=BODY[:HALF], length=len(BODY))
        request.connection.recv(1)  # until the client gives up
    else:
        request.serve(BODY)


def never_answers(request: Request) -> None:
    if request.count == 0:
        request.connection.recv(1)
    else:
        request.serve(BODY)


def trickles(request: Request) -> None:
    request.answer("200 OK", 'ETag: "1"', length=len(BODY))
    request.send(BODY[:-20])
    for at in range(len(BODY) - 20, len(BODY)):
        time.sleep(0.1)
        request.send(BODY[at : at + 1])


def ignores_the_range_and_breaks_off_once(request: Request) -> None:
    request.headers.pop("range", None)
    request.serve(BODY, until=HALF if request.count == 0 else None)


def drops_the_connection_while_it_lies_there(request: Request) -> None:
    request.serve(BODY)
    request.close()


@pytest.mark.parametrize(
    ("page", "attempts", "continued"),
    [
        (asked_to_wait, 2, False),
        (asked_to_wait_until, 2, False),
        (unavailable_twice, 3, False),
        (resets_midway, 2, True),
        (truncates, 2, True),
        (truncates_chunks, 2, True),
        (stalls, 2, True),
        (ignores_the_range_and_breaks_off_once, 2, False),
        (never_answers, 2, False),
        (trickles, 1, False),
        (drops_the_connection_while_it_lies_there, 1, False),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_ends_with_the_right_file(
    server: Server,
    folder: Path,
    command: Command,
    page: Callable[[Request], None],
    attempts: int,
    continued: bool,
) -> None:
    server.pages["/file"] = page
    run = command("/file", "/good", "--stall", "1", "--timeout", "1")
    assert run.status == 0, run.stderr
    assert (folder / "file").read_bytes() == BODY
    assert left(folder) == {"file", "good"}
    assert run.files["/file"]["attempts"] == attempts
    last = server.asked("/file")[-1]
    assert last.first_byte == (HALF if continued else None)


@pytest.mark.parametrize("seed", range(4))
def test_everything_goes_wrong_in_turn(
    server: Server, folder: Path, command: Command, seed: int
) -> None:
    chance = random.Random(seed)

    def page(request: Request) -> None:
        """Fail in some way, up to a point; a little further each time."""
        if request.count == 12:
            request.serve(BODY)
            return
        first = request.first_byte or 0
        until = min(first + chance.randrange(1, 20_000), len(BODY) - 1)
        match chance.choice(["busy", "unavailable", "cut", "reset", "stalls", "drops"]):
            case "busy":
                request.answer("429 Too Many Requests", "Retry-After: 0")
            case "unavailable":
                request.answer("503 Service Unavailable", body=b"later")
            case "cut":
                request.serve(BODY, until=until)
            case "reset":
                request.serve(BODY, until=until, end=request.reset)
            case "stalls":
                request.serve(BODY, until=until, end=lambda: request.connection.recv(1))
            case "drops":
                request.close()

    server.pages["/file"] = page
    run = command("/file", "/good", "--stall", "0.3", "--retries", "12", "--backoff", "0.001")
    assert run.status == 0, run.stderr
    assert (folder / "file").read_bytes() == BODY
    assert left(folder) == {"file", "good"}
    firsts = [request.first_byte or 0 for request in server.asked("/file")]
    assert firsts == sorted(firsts) and firsts[-1] > 0


def test_what_the_server_asks_to_wait_is_waited(
    server: Server, folder: Path, command: Command
) -> None:
    server.pages["/file"] = asked_to_wait
    began = time.monotonic()
    run = command("/file")
    assert run.status == 0 and time.monotonic() - began >= 1


def test_what_the_server_asks_to_wait_is_capped(
    server: Server, folder: Path, command: Command
) -> None:
    def for_a_year(request: Request) -> None:
        if request.count == 0:
            request.answer("429 Too Many Requests", "Retry-After: 31536000")
        else:
            request.serve(BODY)

    server.pages["/file"] = for_a_year
    assert command("/file", "--patience", "0.5").status == 0
    assert (folder / "file").read_bytes() == BODY


def test_a_host_that_asks_for_a_pause_gets_one(
    server: Server, folder: Path, command: Command
) -> None:
    times: list[float] = []

    def page(request: Request) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            request.answer("429 Too Many Requests", "Retry-After: 1")
        else:
            request.serve(BODY)

    server.pages["/a"] = server.pages["/b"] = server.pages["/c"] = page
    assert command("/a", "/b", "/c", "--per-host", "1").status == 0
    assert times[1] - times[0] >= 1


def test_the_deadline_ends_a_wait_that_would_be_longer(
    server: Server, folder: Path, command: Command
) -> None:
    server.pages["/file"] = lambda request: request.answer(
        "503 Service Unavailable", "Retry-After: 60"
    )
    run = command("/file", "/good", "--per-host", "1", "--deadline", "20")
    assert run.status == 1 and run.files["/file"]["error"]["kind"] == "deadline"
    assert run.files["/file"]["attempts"] == 1


def test_the_deadline_ends_a_file_that_comes_too_slowly(
    server: Server, folder: Path, command: Command
) -> None:
    def page(request: Request) -> None:
        request.answer("200 OK", 'ETag: "1"', length=1000)
        while not server.ended.wait(0.05):
            request.send(b"x")

    server.pages["/file"] = page
    run = command("/file", "/good", "--deadline", "1")
    assert run.status == 1 and run.files["/file"]["error"]["kind"] == "deadline"
    assert "good" in left(folder) and "file" not in left(folder)


# ---------------------------------------------------------------- the file changes midway


def changes(request: Request) -> None:
    """Another file by the second request; knows If-Range."""
    if request.count == 0:
        request.serve(BODY, etag='"1"', until=HALF)
    else:
        request.serve(OTHER, etag='"2"')


def changes_and_ignores_if_range(request: Request) -> None:
    """Sends the rest of the other file, as if nothing had been."""
    if request.count == 0:
        request.serve(BODY, etag='"1"', until=HALF)
    elif request.first_byte is not None:
        first, last = request.first_byte, len(OTHER) - 1
        range_ = f"Content-Range: bytes {first}-{last}/{len(OTHER)}"
        request.answer("206 Partial Content", 'ETag: "2"', range_, body=OTHER[first:])
    else:
        request.serve(OTHER, etag='"2"')


def changes_and_says_nothing(request: Request) -> None:
    """As above, and does not say which file the rest is of."""
    if request.count == 0:
        request.serve(BODY, etag='"1"', until=HALF)
    elif request.first_byte is not None:
        first = request.first_byte
        range_ = f"Content-Range: bytes {first}-{len(BODY) - 1}/{len(BODY)}"
        request.answer("206 Partial Content", range_, body=bytes(len(BODY) - first))
    else:
        request.serve(OTHER, etag='"2"')


def shrinks(request: Request) -> None:
    if request.count == 0:
        request.serve(BODY, etag='"1"', until=HALF)
    elif request.first_byte is not None:
        request.answer("416 Range Not Satisfiable", "Content-Range: bytes */10")
    else:
        request.serve(OTHER, etag='"2"')


def changes_and_has_weak_validators(request: Request) -> None:
    if request.count == 0:
        request.answer("200 OK", 'ETag: W/"1"', body=BODY[:HALF], length=len(BODY))
        request.close()
    else:
        assert request.first_byte is None
        request.serve(OTHER, etag='W/"1"')


@pytest.mark.parametrize(
    "page",
    [
        changes,
        changes_and_ignores_if_range,
        changes_and_says_nothing,
        shrinks,
        changes_and_has_weak_validators,
    ],
)
def test_a_file_that_changes_midway_starts_over(
    server: Server, folder: Path, command: Command, page: Callable[[Request], None]
) -> None:
    server.pages["/file"] = page
    digest = hashlib.sha256(OTHER).hexdigest()
    run = command("/file", "--checksum", f"sha256:{digest}")
    assert run.status == 0, run.stderr
    assert (folder / "file").read_bytes() == OTHER
    assert left(folder) == {"file"}


def test_a_file_that_changes_between_two_calls_starts_over(
    server: Server, folder: Path, command: Command
) -> None:
    server.pages["/file"] = changes
    assert command("/file", "--retries", "0").status == 1
    assert command("/file").status == 0
    assert (folder / "file").read_bytes() == OTHER


# ---------------------------------------------------------------- ends with an error


def ignores_the_range(request: Request) -> None:
    """And never gets beyond the middle."""
    request.answer("200 OK", 'ETag: "1"', body=BODY[:HALF], length=len(BODY))
    request.close()


def sends_another_range(request: Request) -> None:
    if request.first_byte is None:
        request.serve(BODY, until=HALF)
    else:
        range_ = f"Content-Range: bytes 0-{len(BODY) - 1}/{len(BODY)}"
        request.answer("206 Partial Content", 'ETag: "1"', range_, body=BODY)


def sends_a_range_unasked(request: Request) -> None:
    range_ = f"Content-Range: bytes 10-{len(BODY) - 1}/{len(BODY)}"
    request.answer("206 Partial Content", range_, body=BODY[10:])


def stalls_each_time(request: Request) -> None:
    """And never gets beyond the middle."""
    first = request.first_byte or 0
    range_ = f"Content-Range: bytes {first}-{len(BODY) - 1}/{len(BODY)}"
    status, headers = ("206 Partial Content", [range_]) if first else ("200 OK", [])
    length = len(BODY) - first
    request.answer(status, 'ETag: "1"', *headers, body=BODY[first:HALF], length=length)
    request.connection.recv(1)  # until the client gives up


def sends_less_than_it_says(request: Request) -> None:
    request.answer("200 OK", body=BODY[:HALF], length=len(BODY))
    request.close()


def sends_less_than_it_says_again(request: Request) -> None:
    """Knows ranges, but the file always ends in the middle."""
    if request.first_byte is None:
        request.serve(BODY, until=HALF)
    else:
        range_ = f"Content-Range: bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"
        request.answer("206 Partial Content", 'ETag: "1"', range_, length=len(BODY) - HALF)
        request.close()


def sends_more_than_it_says(request: Request) -> None:
    request.answer("200 OK", body=BODY[:1000], length=900)


def contradicts_itself_about_the_length(request: Request) -> None:
    if request.first_byte is None:
        request.serve(BODY, until=HALF)
    else:
        range_ = f"Content-Range: bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"
        request.answer("206 Partial Content", 'ETag: "1"', range_, body=BODY[HALF:-100])


def redirects_in_a_circle(request: Request) -> None:
    request.answer("302 Found", f"Location: /{'file' if request.path == '/b' else 'b'}")


def redirects_for_ever(request: Request) -> None:
    request.answer("302 Found", f"Location: {request.path}x")


def redirects_to_a_file(request: Request) -> None:
    request.answer("302 Found", "Location: file:///etc/passwd")


def redirects_nowhere(request: Request) -> None:
    request.answer("302 Found")


def is_not_there(request: Request) -> None:
    request.answer("404 Not Found", body=b"no such page")


def names_a_file_above(request: Request) -> None:
    request.answer("200 OK", 'Content-Disposition: attachment; filename="../../up"', body=BODY)


def names_a_file_at_the_root(request: Request) -> None:
    request.answer("200 OK", "Content-Disposition: attachment; filename=/tmp/up", body=BODY)


def names_a_file_above_in_code(request: Request) -> None:
    header = "Content-Disposition: attachment; filename*=UTF-8''..%2F..%2Fup"
    request.answer("200 OK", header, body=BODY)


def is_too_large_for_any_disk(request: Request) -> None:
    request.answer("200 OK", body=b"begins", length=1 << 60)


def speaks_something_else(request: Request) -> None:
    request.send("220 mail.example.org ESMTP\r\n")
    request.close()


def says_two_lengths(request: Request) -> None:
    request.answer("200 OK", "Content-Length: 999", body=BODY[:1000])


def sends_a_coding_that_nobody_knows(request: Request) -> None:
    request.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "0\r\n\r\n")


def sends_chunks_that_are_none(request: Request) -> None:
    request.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabcdef")
    request.close()


def ends_amid_the_chunks(request: Request) -> None:
    request.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n")
    request.close()


@pytest.mark.parametrize(
    ("page", "kind", "says"),
    [
        (stalls_each_time, "stalled", "150000"),
        (ignores_the_range, "truncated", "150000"),
        (sends_another_range, "range", "the bytes from 0 on"),
        (sends_a_range_unasked, "range", "a part of the file"),
        (sends_less_than_it_says, "truncated", "150000"),
        (sends_less_than_it_says_again, "truncated", "150000"),
        (sends_more_than_it_says, "length", "more bytes"),
        (contradicts_itself_about_the_length, "length", "150000 bytes"),
        (redirects_in_a_circle, "redirects", "in a circle"),
        (redirects_for_ever, "redirects", "more than 20 times"),
        (redirects_to_a_file, "redirects", "file:///etc/passwd"),
        (redirects_nowhere, "redirects", "nowhere"),
        (is_not_there, "status", "404 Not Found"),
        (names_a_file_above, "name", "../../up"),
        (names_a_file_at_the_root, "name", "/tmp/up"),
        (names_a_file_above_in_code, "name", "../../up"),
        (is_too_large_for_any_disk, "disk", "no room"),
        (speaks_something_else, "protocol", "not an answer in HTTP"),
        (says_two_lengths, "protocol", "content-length"),
        (sends_a_coding_that_nobody_knows, "protocol", "gzip, chunked"),
        (sends_chunks_that_are_none, "truncated", "Invalid chunk"),
        (ends_amid_the_chunks, "truncated", "byte 3"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_ends_with_an_error_and_no_file(
    server: Server,
    folder: Path,
    command: Command,
    page: Callable[[Request], None],
    kind: str,
    says: str,
) -> None:
    server.pages |= {f"/file{'x' * count}": page for count in range(22)} | {"/b": page}
    run = command("/file", "/good", "--retries", "2", "--stall", "1")
    assert run.status == 1
    told = run.files["/file"]
    assert told["path"] is None and told["error"]["kind"] == kind, told
    assert says in told["error"]["message"]
    assert says in run.stderr and server.url("/file") in run.stderr
    assert {name for name in left(folder) if ".part" not in name} == {"good"}
    assert (folder / "good").read_bytes() == b"as it should be"
    assert not (folder.parent / "up").exists()
    assert (run.summary["whole"], run.summary["failed"]) == (1, 1)


def test_a_wrong_digest(server: Server, folder: Path, command: Command, tmp_path: Path) -> None:
    server.pages["/file"] = lambda request: request.serve(BODY)
    right, wrong = hashlib.sha256(b"as it should be").hexdigest(), "0" * 64
    (tmp_path / "list").write_text(
        f"# two files\n{server.url('/file')} sha256:{wrong}\n\n"
        f"{server.url('/good')} sha256:{right}\n"
    )
    run = command(f"--input={tmp_path / 'list'}")
    assert run.status == 1 and run.files["/file"]["error"]["kind"] == "digest"
    assert hashlib.sha256(BODY).hexdigest() in run.files["/file"]["error"]["message"]
    # What is known to be wrong is not kept to be continued.
    assert left(folder) == {"good"}


def test_a_name_in_the_address_that_climbs_out(
    server: Server, folder: Path, command: Command
) -> None:
    run = command("/a/..%2f..%2fup", "/good")
    assert run.status == 1 and run.files["/a/..%2f..%2fup"]["error"]["kind"] == "name"
    assert left(folder) == {"good"}


def test_nobody_listens(server: Server, folder: Path, command: Command) -> None:
    run = command("http://127.0.0.1:9/file", "/good", "--retries", "1")
    assert run.status == 1 and left(folder) == {"good"}
    assert run.files["http://127.0.0.1:9/file"]["error"]["kind"] == "connect"
    assert run.files["http://127.0.0.1:9/file"]["attempts"] == 2
