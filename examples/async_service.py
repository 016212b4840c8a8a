"""A service of asyncio that computes in a pool of processes, so that its event loop stays awake.

Clients send a text over a real socket, and the service answers with a stamp for it: a number that,
hashed with the text, gives a hash with so many zero bits in front. To find one takes a loop of pure
Python, which would hold the event loop up, and with it all the other clients.

    python async_service.py
    juggler run async_service.py

What to look at:

* `await loop.run_in_executor(pool, find_stamp, ...)` is all that it takes: the call runs in
  another process, and meanwhile the loop serves others.
* A thread pool would not do here: all threads of a process share one interpreter lock.
* Each client asks for its next stamp when it has the last one, so what counts is how soon an answer
  is back.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count


def find_stamp(text: str, bits: int) -> int:
    """Return the first number that gives `text` a hash with `bits` zero bits in front."""
    return next(number for number in count() if is_stamp(text, number, bits))


def is_stamp(text: str, number: int, bits: int) -> bool:
    """Whether `number` is one: quick to say, unlike to find it."""
    digest = hashlib.sha256(f"{text} {number}".encode()).digest()
    return int.from_bytes(digest[:8]) >> (64 - bits) == 0


async def serve(
    pool: ProcessPoolExecutor,
    bits: int,
    ended: asyncio.Semaphore,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Answer each line of a client with a line."""
    loop = asyncio.get_running_loop()
    while line := await reader.readline():
        stamp = await loop.run_in_executor(pool, find_stamp, line.decode().rstrip(), bits)
        writer.write(b"%d\n" % stamp)
        await writer.drain()
    writer.close()
    ended.release()


async def ask(port: int, texts: list[str]) -> dict[str, int]:
    """Be a client: ask for a stamp for each text, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stamps = {}
    for text in texts:
        writer.write(f"{text}\n".encode())
        stamps[text] = int(await reader.readline())
    writer.close()
    await writer.wait_closed()
    return stamps


async def tick(seconds: float, ticks: list[float]) -> None:
    """Note the time again and again, which only a loop that is awake can do."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(seconds)
        ticks.append(loop.time())


async def run(options: argparse.Namespace) -> int:
    """Run the service and its clients, check the answers, and return the exit status."""
    texts = [f"letter {number}" for number in range(options.letters)]
    ticks: list[float] = []
    with ProcessPoolExecutor(options.workers) as pool:
        # Have the workers started now: forked later, they would hold the clients' sockets open.
        await asyncio.get_running_loop().run_in_executor(pool, is_stamp, "", 0, 1)
        ended = asyncio.Semaphore(0)
        service = partial(serve, pool, options.bits, ended)
        server = await asyncio.start_server(service, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        ticker = asyncio.create_task(tick(0.005, ticks))
        clients = [ask(port, texts[number :: options.clients]) for number in range(options.clients)]
        answers = await asyncio.gather(*clients)
        ticker.cancel()
        server.close()
        for _ in clients:
            await ended.acquire()
    stamps = {text: stamp for answer in answers for text, stamp in answer.items()}
    good = sum(is_stamp(text, stamps[text], options.bits) for text in texts)
    print(f"letters  {len(texts)}")
    print(f"good stamps  {good}")
    print(f"hashes computed  {sum(stamps.values()) + len(stamps)}")
    print(f"the loop stayed awake  {'yes' if ticks else 'no'}")
    return 0 if good == len(texts) and ticks else 1


def main() -> int:
    """Read the command line, run the service and return the exit status."""
    parser = argparse.ArgumentParser(description="Compute in a pool of processes from asyncio.")
    parser.add_argument("--letters", type=int, default=3000)
    parser.add_argument("--bits", type=int, default=8, help="how hard a stamp is to find")
    parser.add_argument("--clients", type=int, default=8, help="at the same time")
    parser.add_argument("--workers", type=int, default=2)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
