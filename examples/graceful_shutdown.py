"""A service that stops gracefully on SIGTERM.

Clients send jobs over real sockets. In the middle of it the service gets SIGTERM, as from a service
manager or a container's runtime: it takes no more connections, finishes every job that it has
begun, tells its clients that it is over, and ends.

    python graceful_shutdown.py
    juggler run graceful_shutdown.py

What to look at:

* `loop.add_signal_handler` runs its callback in the loop, between two steps of tasks, so it may
  touch what tasks touch; a handler of `signal.signal` may not.
* Stopping goes from the outside to the inside: first the server, then the waiting for jobs to come,
  and at last, after a time of grace, what is still running.
* `timeout` around the jobs' last wait is that time of grace: a job that hangs does not keep the
  service from ending.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys


class Service:
    """Answers jobs until it is told to stop."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._stopping = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self.answered = 0

    def stop(self) -> None:
        """Begin to stop; returns at once."""
        self._stopping.set()

    async def run(self, port: asyncio.Future[int]) -> bool:
        """Serve until `stop` was called, and then finish; whether all ended within the grace."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port.set_result(server.sockets[0].getsockname()[1])
        await self._stopping.wait()
        server.close()
        try:
            async with asyncio.timeout(self._grace):
                await asyncio.gather(*self._connections)
        except TimeoutError:
            return False
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while job := await self._next_job(reader):
                await asyncio.sleep(0.001)
                self.answered += 1
                writer.write(b"done " + job)
                await writer.drain()
            writer.write(b"closing\n")
            writer.close()
            await writer.wait_closed()
        finally:
            self._connections.discard(task)

    async def _next_job(self, reader: asyncio.StreamReader) -> bytes:
        """Wait for a job or for the end, whatever comes first; nothing (b"") is the end."""
        if self._stopping.is_set():
            return b""
        job = asyncio.create_task(reader.readline())
        end = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({job, end}, return_when=asyncio.FIRST_COMPLETED)
        for unneeded in {job, end}:
            unneeded.cancel()
        return job.result() if job.done() and not job.cancelled() else b""


async def send_jobs(port: int, name: str) -> tuple[int, bool]:
    """Send jobs until the service closes; how many were done, and whether it said goodbye."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done = 0
    while True:
        writer.write(f"{name} {done}\n".encode())
        answer = await reader.readline()
        if not answer.startswith(b"done "):
            break
        assert answer == f"done {name} {done}\n".encode()
        done += 1
    writer.close()
    return done, answer == b"closing\n"


async def run(options: argparse.Namespace) -> int:
    """Run the service and its clients, send SIGTERM in the middle, and check how it ended."""
    loop = asyncio.get_running_loop()
    service = Service(grace=10.0)
    loop.add_signal_handler(signal.SIGTERM, service.stop)
    port: asyncio.Future[int] = loop.create_future()
    running = asyncio.create_task(service.run(port))
    address = await port
    clients = [
        asyncio.create_task(send_jobs(address, f"client-{number}"))
        for number in range(options.clients)
    ]
    while service.answered < options.jobs:
        await asyncio.sleep(0.005)
    os.kill(os.getpid(), signal.SIGTERM)
    in_time = await running
    ends = await asyncio.gather(*clients)
    nothing_lost = sum(done for done, _ in ends) == service.answered
    told = all(said for _, said in ends)
    enough = service.answered >= options.jobs
    print(f"did what it was there for  {'yes' if enough else 'no'}")
    print(f"every job begun was answered  {'yes' if nothing_lost else 'no'}")
    print(f"every client was told  {'yes' if told else 'no'}")
    print(f"ended within the time of grace  {'yes' if in_time else 'no'}")
    return 0 if enough and nothing_lost and told and in_time else 1


def main() -> int:
    """Read the command line, run the service and return the exit status."""
    parser = argparse.ArgumentParser(description="Stop a service gracefully on SIGTERM.")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=8000, help="SIGTERM comes after so many")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
