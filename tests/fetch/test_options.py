"""What the options do, one test each."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import threading
import time
import zlib
from pathlib import Path

import pytest
from conftest import FETCH, FETCH_IN_PYTHON, Command
from misbehaving import Request, Server

BODY = b"juggler " * 20_000
PEM = Path(__file__).with_name("localhost.pem")


def serves(request: Request) -> None:
    request.serve(BODY)


@pytest.mark.parametrize(("option", "most"), [("--limit", 3), ("--per-host", 2)])
def test_no_more_at_once_than_the_limit(
    server: Server, command: Command, option: str, most: int
) -> None:
    lock, now, seen = threading.Lock(), 0, 0

    def page(request: Request) -> None:
        nonlocal now, seen
        with lock:
            now += 1
            seen = max(seen, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        request.serve(b"x")

    server.pages = {f"/{count}": page for count in range(12)}
    assert command(*server.pages, option, str(most)).status == 0
    assert seen == most


def test_the_rate_is_kept(server: Server, folder: Path, command: Command) -> None:
    server.pages["/a"] = server.pages["/b"] = serves
    began = time.monotonic()
    assert command("/a", "/b", "--rate", "200kB/s").status == 0
    # A tenth of a second's worth may come at once.
    assert time.monotonic() - began >= 2 * len(BODY) / 200_000 - 0.1
    assert (folder / "b").read_bytes() == BODY


def test_headers_and_credentials_stay_with_their_host(
    server: Server, folder: Path, command: Command
) -> None:
    with Server() as other:
        server.pages["/a"] = lambda request: request.answer(
            "302 Found", f"Location: {other.url('/b')}"
        )
        other.pages["/b"] = serves
        run = command("/a", "--header", "Authorization: secret", "--header", "X-More: told")
        assert run.status == 0
        assert server.asked("/a")[0].headers["authorization"] == "secret"
        assert other.asked("/b")[0].headers["x-more"] == "told"
        assert "authorization" not in other.asked("/b")[0].headers


def test_credentials_from_the_address_and_from_netrc(
    server: Server, folder: Path, command: Command, tmp_path: Path
) -> None:
    server.pages["/a"] = server.pages["/b"] = serves
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    address = server.url("/b").replace("http://", "http://you:p%40ss@")
    run = command("/a", address, "--netrc", env={"NETRC": str(tmp_path / "netrc")})
    assert run.status == 0
    told = {r.path: r.headers["authorization"].removeprefix("Basic ") for r in server.requests}
    assert base64.b64decode(told["/a"]) == b"me:secret"
    assert base64.b64decode(told["/b"]) == b"you:p@ss"
    assert command("/a").status == 0
    assert "authorization" not in server.requests[-1].headers


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_compressed_bodies(
    server: Server, folder: Path, command: Command, encoding: str, broken: bool
) -> None:
    pack = {"gzip": gzip.compress, "br": _brotli, "zstd": _zstd}[encoding]
    packed = pack(BODY)
    if broken:
        packed = bytes(20) + packed[20:] if encoding != "br" else packed[:-1]
    server.pages["/x"] = lambda request: request.answer(
        "200 OK", f"Content-Encoding: {encoding}", body=packed
    )
    run = command("/x", "--compressed")
    assert set(server.requests[0].headers["accept-encoding"].split(", ")) == {"gzip", "br", "zstd"}
    if broken:
        assert run.status == 1 and run.files["/x"]["error"]["kind"] == "coding"
        assert list(folder.iterdir()) == []
    else:
        assert run.status == 0 and (folder / "x").read_bytes() == BODY


def _brotli(data: bytes) -> bytes:
    """Brotli's frame around bytes that it does not compress (RFC 7932, 9.2)."""
    out = b""
    bits, count = 0, 0

    def put(value: int, width: int) -> None:
        nonlocal bits, count
        bits |= value << count
        count += width

    put(0, 1)  # a window of 16 bits
    for at in range(0, len(data), 65536):
        chunk = data[at : at + 65536]
        put(0, 1)  # not the last
        put(0, 2)  # a length of four digits
        put(len(chunk) - 1, 16)
        put(1, 1)  # as it is
        count += -count % 8
        out += bits.to_bytes(count // 8, "little") + chunk
        bits, count = 0, 0
    return out + b"\x03"  # the last, and empty


def _zstd(data: bytes) -> bytes:
    """Zstandard's frame around bytes that it does not compress (RFC 8878, 3.1.1)."""
    out = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x38"  # no checksum, a window of 128 KiB
    for at in range(0, len(data), 65536):
        chunk = data[at : at + 65536]
        last = at + 65536 >= len(data)
        out += (len(chunk) << 3 | last).to_bytes(3, "little") + chunk
    return out


def test_nothing_is_unpacked_that_was_not_asked_for(
    server: Server, folder: Path, command: Command
) -> None:
    packed = zlib.compress(BODY)
    server.pages["/x"] = lambda request: request.answer(
        "200 OK", "Content-Encoding: gzip", body=packed
    )
    assert command("/x").status == 0
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert (folder / "x").read_bytes() == packed


def secure() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


def test_a_certificate_that_nobody_signed(server: Server, folder: Path, command: Command) -> None:
    server.pages["/good"] = serves
    with Server(context=secure()) as other:
        other.pages["/x"] = serves
        run = command(other.url("/x"), "/good")
        assert run.status == 1 and run.files[other.url("/x")]["error"]["kind"] == "tls"
        assert run.files[other.url("/x")]["attempts"] == 1
        assert "certificate" in run.files[other.url("/x")]["error"]["message"]
    assert [path.name for path in folder.iterdir()] == ["good"]


def test_a_server_that_speaks_no_tls(server: Server, folder: Path, command: Command) -> None:
    server.pages["/x"] = serves
    url = server.url("/x").replace("http:", "https:")
    run = command(url, "--retries", "0")
    assert run.status == 1 and run.files[url]["error"]["kind"] == "tls"
    assert list(folder.iterdir()) == []


def test_certificates_that_are_trusted(folder: Path, command: Command) -> None:
    with Server(context=secure()) as server:
        server.pages["/x"] = lambda request: request.serve(
            BODY, until=1000 if request.count == 0 else None
        )
        assert command(server.url("/x"), "--cacert", str(PEM)).status == 0
        assert (folder / "x").read_bytes() == BODY
        assert server.requests[-1].first_byte == 1000
        assert command(server.url("/x"), env={"SSL_CERT_FILE": str(PEM)}).status == 0


def tunnel(request: Request) -> None:
    """What a proxy does with CONNECT."""
    assert request.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
    host, _, port = request.path.partition(":")
    request.send("HTTP/1.1 200 OK\r\n\r\n")
    with socket.create_connection((host, int(port))) as other:
        back = threading.Thread(target=_copy, args=[other, request.connection])
        back.start()
        _copy(request.connection, other)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(65536):
        sink.sendall(data)
    with contextlib.suppress(OSError):  # which the other side has closed
        sink.shutdown(socket.SHUT_WR)


def test_a_proxy(server: Server, folder: Path, command: Command) -> None:
    """Of the option, for addresses that need not exist."""
    server.pages["http://example.org/x"] = serves
    proxy = server.url("").replace("http://", "http://u:p@")
    assert command("http://example.org/x", "--proxy", proxy).status == 0
    request = server.requests[0]
    assert request.headers["host"] == "example.org"
    assert request.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"u:p").decode()


def test_a_tunnel_through_a_proxy(server: Server, folder: Path, command: Command) -> None:
    with Server(context=secure()) as other:
        other.pages["/x"] = serves
        server.pages[other.url("").removeprefix("https://")] = tunnel
        proxy = server.url("").replace("http://", "http://u:p@")
        env = {"https_proxy": proxy, "no_proxy": ""}
        assert command(other.url("/x"), "--cacert", str(PEM), env=env).status == 0
        assert len(server.requests) == 1
        env["no_proxy"] = "127.0.0.1"
        assert command(other.url("/x"), "--cacert", str(PEM), env=env).status == 0
        assert len(server.requests) == 1
    assert (folder / "x").read_bytes() == (folder / "x-1").read_bytes() == BODY


def test_an_empty_proxy_is_none(server: Server, folder: Path, command: Command) -> None:
    server.pages["/x"] = serves
    env = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    assert command("/x", "--retries", "0", env=env).status == 1
    assert command("/x", "--proxy", "", env=env).status == 0


def test_addresses_from_standard_input(server: Server, folder: Path) -> None:
    server.pages["/a"] = server.pages["/b"] = serves
    done = subprocess.run(
        [*FETCH, "-i", "-", "-o", str(folder)],
        input=f"{server.url('/a')}\n# not this: {server.url('/c')}\n\n  {server.url('/b')}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and done.stdout == ""
    assert {path.name for path in folder.iterdir()} == {"a", "b"}
    lines = done.stderr.splitlines()
    assert lines[0].startswith("whole   ") and lines[-1].startswith(
        "2 of 2 files whole: 320.00 kB in"
    )


@pytest.mark.parametrize(
    ("into", "told"), [(".", "x"), ("./a//b", "a/b/x"), ("../here", "../here/x")]
)
def test_a_path_is_told_as_pathlib_writes_it(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, into: str, told: str
) -> None:
    here = folder.parent / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    server.pages["/x"] = serves
    done = subprocess.run(
        [*FETCH, "--json", "-o", into, server.url("/x")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    path = json.loads(done.stdout.splitlines()[0])["path"]
    assert path == told == str(Path(into, "x")) and Path(path).read_bytes() == BODY


@pytest.mark.parametrize("fetch", [FETCH, FETCH_IN_PYTHON], ids=["program", "module"])
@pytest.mark.parametrize("words", [["--help"], ["--json"]], ids=" ".join)
def test_an_output_that_is_broken(
    server: Server, folder: Path, fetch: list[str], words: list[str]
) -> None:
    server.pages["/x"] = serves
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [*fetch, *words, "-o", str(folder), server.url("/x")],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "error: standard output: Broken pipe (os error 32)\n"


@pytest.mark.parametrize("fetch", [FETCH, FETCH_IN_PYTHON], ids=["program", "module"])
def test_ctrl_c_while_a_list_is_read(folder: Path, fetch: list[str]) -> None:
    words = [*fetch, "-i", "-", "-o", str(folder)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(1)  # until it reads
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "interrupted: nothing was begun\n"


def test_ctrl_c_while_files_come_without_end(server: Server, folder: Path) -> None:
    server.pages["/x"] = lambda request: request.serve(b"x")
    addresses = "\n".join([server.url("/x")] * 20_000)
    words = [*FETCH, "-q", "--no-sync", "-i", "-", "-o", str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(addresses)
        process.stdin.close()
        while len(server.requests) < 50:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130


def test_what_is_told_does_not_command_the_terminal(server: Server, folder: Path) -> None:
    done = subprocess.run(
        [*FETCH, "-o", str(folder), "http://\x1b[2Jx/"],
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and b"failed" in done.stderr and b"\x1b" not in done.stderr


def test_bars_on_a_terminal(server: Server, folder: Path) -> None:
    server.pages |= {"/a": serves, "/no": lambda request: request.answer("404 Not Found")}

    def slowly(request: Request) -> None:
        request.answer("200 OK", length=len(BODY))
        for part in range(4):
            request.send(BODY[part * 40_000 : (part + 1) * 40_000])
            time.sleep(0.2)

    server.pages["/slowly"] = slowly
    ours, theirs = pty.openpty()
    words = [*FETCH, "-o", str(folder), *map(server.url, server.pages)]
    with subprocess.Popen(words, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # which says that nobody writes any more
            while piece := os.read(ours, 65536):
                shown += piece
    os.close(ours)
    assert process.returncode == 1
    text = shown.decode()
    assert "all files" in text and "slowly" in text and "━" in text
    assert "404 Not Found" in text and "2 of 3 files whole, 1 failed" in text


def test_one_connection_for_many_files(server: Server, folder: Path, command: Command) -> None:
    server.pages = {f"/{count}": serves for count in range(10)}
    assert command(*server.pages, "--limit", "1").status == 0
    assert len({request.connection for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which address?"),
        (["--limit", "0", "http://x/"], "'0' for '--limit"),
        (["--rate", "fast", "http://x/"], "'fast' for '--rate"),
        (["--stall", "-1", "http://x/"], "'-1' for '--stall"),
        (["--stall", "nan", "http://x/"], "'nan' for '--stall"),
        (["--stall", "1s", "http://x/"], "not a number of seconds"),
        (["--retries", "-1", "http://x/"], "'-1' for '--retries"),
        (["--checksum", "md5:0", "http://x/"], "md5"),
        (["--checksum", "sha1:" + "0" * 40, "http://x/", "http://y/"], "single address"),
        (["--header", "nothing", "http://x/"], "NAME: TEXT"),
        (["--header", "a b: c", "http://x/"], "not a header"),
        (["--proxy", "http:// ", "http://x/"], "not the address of a proxy"),
        (["-i", "does/not/exist"], "No such file"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_command_line(command: Command, words: list[str], says: str) -> None:
    run = command(*words)
    assert run.status == 2 and says in run.stderr, run.stderr
    assert "Traceback" not in run.stderr


def test_addresses_that_are_none(server: Server, folder: Path, command: Command) -> None:
    server.pages["/good"] = serves
    run = command("nonsense", "ftp://example.org/x", "http://", "/good")
    assert run.status == 1 and run.summary["failed"] == 3
    assert {told["error"]["kind"] for told in run.files.values() if told["error"]} == {"address"}
