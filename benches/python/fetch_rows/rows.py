"""What is downloaded: many small files, some larger ones, and a very large one."""

from __future__ import annotations

import atexit
import filecmp
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from fetch_rows.clients import ROOT, program
from harness.contenders import Contender
from harness.measure import Bench, Effort, Metric, Turn

FOLDER = ROOT / ".cache" / "bench" / "files"
"""What the server serves: made once, of random bytes."""

# Users have their bytecode cached: with this variable every start would compile juggler anew.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}

_CONFIG = """\
daemon off;
worker_processes 1;
pid {work}/nginx.pid;
error_log {work}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000;
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@functools.cache
def address() -> str:
    """Start nginx, which ends with this process, and say where it serves."""
    nginx = program("nginx")
    if nginx is None:
        raise RuntimeError("nginx is missing: tools/get-program nginx brings it")
    work = Path(tempfile.mkdtemp(prefix="juggler-bench-"))
    atexit.register(shutil.rmtree, work, ignore_errors=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = work / "nginx.conf"
    config.write_text(_CONFIG.format(work=work, port=port, root=FOLDER))
    if os.geteuid() == 0:
        config.write_text("user root;\n" + config.read_text())
    server = subprocess.Popen(
        [nginx, "-c", str(config), "-p", str(work), "-e", str(work / "error.log")]
    )
    atexit.register(server.terminate)
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"http://127.0.0.1:{port}"
        if server.poll() is not None:
            raise RuntimeError(f"nginx ended:\n{(work / 'error.log').read_text()}")
        time.sleep(0.01)


def originals(name: str, count: int, size: int) -> list[Path]:
    """The files of a row, made when they are not there."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}-{number}.bin" for number in range(count)]
    for file in files:
        if not file.exists() or file.stat().st_size != size:
            with file.open("wb") as out:
                for done in range(0, size, 1 << 24):
                    out.write(os.urandom(min(1 << 24, size - done)))
    return files


@functools.cache
def outputs() -> Path:
    """Where the downloads go, until this process ends."""
    work = Path(tempfile.mkdtemp(dir=FOLDER.parent))
    atexit.register(shutil.rmtree, work, ignore_errors=True)
    return work


def _empty(folder: Path) -> None:
    """Give the room back, and leave the next turn no work of this one.

    The files stay, without content: for a minute ext4 gives out no inode of a deleted file, and
    searches past each of them for every new one, which would be most of what is measured.
    """
    for file in folder.iterdir():
        os.truncate(file, 0)
    # What nobody waited for is otherwise written, and discarded, at the cost of the next.
    os.sync()


def _row(name: str, title: str, full: int, size: int) -> Bench:
    def prepare(contender: Contender, effort: Effort) -> Turn:
        files = originals(name, max(1, int(full * effort.share)), size)

        def turn() -> list[list[float]]:
            folder = Path(tempfile.mkdtemp(dir=outputs()))
            addresses = folder.with_suffix(".list")
            addresses.write_text("".join(f"{address()}/{name}/{f.name}\n" for f in files))
            command = contender.classes["fetch"](addresses, folder)
            begin = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
            _, status, used = os.wait4(process.pid, 0)
            took = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise RuntimeError(f"exit status {process.returncode}: {command}")
            for file in files:
                if not filecmp.cmp(file, folder / file.name, shallow=False):
                    raise RuntimeError(f"{contender.name} spoilt {file.name}")
            _empty(folder)
            return [[took], [used.ru_utime + used.ru_stime]]

        return turn

    metrics = (Metric(title), Metric(f"{title}: CPU"))
    return Bench("downloads", metrics, ("fetch",), prepare, most_rounds=7)


ROWS = [
    _row("small", "2,000 files of 16 KiB", 2_000, 16 << 10),
    _row("middle", "200 files of 1 MiB", 200, 1 << 20),
    _row("large", "1 file of 1 GiB", 1, 1 << 30),
]
