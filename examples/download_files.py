"""Download files from a server that breaks off, is busy and stalls, and get every byte of them.

The server is in this program, on the loopback interface, so no network is needed. It serves the
source files of the standard library, and misbehaves on purpose: of every third file it sends half
and closes the connection, every fifth is unavailable (503) the first time it is asked for.

    python download_files.py
    juggler run download_files.py

What to look at:

* `juggler.fetch` is the whole client: connections, second tries, continuing where it stopped.
* A file is given out when it is whole and on the disk. `resumed`, `attempts` and `error` say how it
  went; nothing that failed has a file at its final name.
* What was broken off is continued with `Range` and `If-Range`: see how few bytes are sent twice.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import sysconfig
import tempfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import juggler
from juggler.downloads import File


class Web(ThreadingHTTPServer):
    """Serves files by number."""

    request_queue_size = 128

    def __init__(self, files: list[bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.lock = threading.Lock()
        self.asked: Counter[int] = Counter()
        self.sent = 0


class Handler(BaseHTTPRequestHandler):
    """Answers one request, or half of it."""

    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        """Serve a file, or the rest of one."""
        number = int(self.path.rpartition("/")[2])
        body = self.server.files[number]
        with self.server.lock:
            self.server.asked[number] += 1
            is_first = self.server.asked[number] == 1
        if is_first and number % 5 == 4:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        begin = 0
        if self.headers.get("If-Range") == etag:
            begin = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        end = len(body)
        if is_first and number % 3 == 2:
            end //= 2
            self.close_connection = True
        self.wfile.write(body[begin:end])
        with self.server.lock:
            self.server.sent += end - begin

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> int:
    """Download, compare, and say how it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=150, help="how many files (%(default)s)")
    options = parser.parse_args()

    library = [
        path for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")) if path.is_file()
    ]
    bodies = [path.read_bytes() for path in library if path.stat().st_size > 1][: options.files]
    with Web(bodies) as web, tempfile.TemporaryDirectory() as folder:
        # It looks so often whether it is to stop; by default, which is half a second, that would be
        # what the whole program takes.
        threading.Thread(target=web.serve_forever, args=[0.01]).start()
        wanted = [
            File(
                f"http://127.0.0.1:{web.server_port}/{number}",
                name=f"{number}.py",
                checksum=f"sha256:{hashlib.sha256(body).hexdigest()}",
            )
            for number, body in enumerate(bodies)
        ]
        with juggler.fetch(wanted, into=folder, backoff=0.02) as downloads:
            fetched = downloads.wait()
        web.shutdown()
        came = [file.path.read_bytes() for file in fetched if file.path]
        left = len(list(Path(folder).iterdir())) - len(bodies)

    again = sum(file.attempts > 1 for file in fetched)
    same, whole = came == bodies, sum(map(len, bodies))
    print(f"files  {len(fetched)}")
    print(f"files that took more than one attempt  {again}")
    print(f"bytes sent twice  {web.sent - whole}")
    print(f"every file whole  {'yes' if same else 'NO'}")
    print(f"parts left behind  {left or 'none'}")
    return 0 if same and not left else 1


if __name__ == "__main__":
    sys.exit(main())
