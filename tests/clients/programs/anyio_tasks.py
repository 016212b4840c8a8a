"""anyio: worker threads and back, task groups, cancel scopes, channels, sockets, a process."""

import asyncio
import sys
import threading

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread
from whose import assert_ours


async def threads() -> None:
    main_thread, limiter = threading.get_ident(), anyio.CapacityLimiter(4)
    squares: dict[int, int] = {}

    async def keep(number: int) -> None:
        assert_ours()
        assert threading.get_ident() == main_thread
        squares[number] = number**2

    def work(number: int) -> None:
        assert threading.get_ident() != main_thread
        anyio.from_thread.run(keep, number)

    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(lambda n: anyio.to_thread.run_sync(work, n, limiter=limiter), number)
    assert squares == {number: number**2 for number in range(40)}


async def cancellation() -> None:
    cleaned: list[str] = []

    async def forever(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
                cleaned.append(name)

    with anyio.move_on_after(0.01) as scope:
        await forever("scope")
    assert scope.cancelled_caught
    try:
        with anyio.fail_after(0.01):
            await forever("timeout")
    except TimeoutError:
        cleaned.append("raised")
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(forever, "sibling")
            await anyio.sleep(0)
            raise ValueError("the host fails")
    except* ValueError:
        cleaned.append("group")
    assert cleaned == ["scope", "timeout", "raised", "sibling", "group"]


async def channels() -> None:
    send, receive = anyio.create_memory_object_stream[int](5)
    received: list[int] = []

    async def produce(own: anyio.abc.ObjectSendStream[int], start: int) -> None:
        async with own:
            for number in range(start, start + 100):
                await own.send(number)

    async with receive, anyio.create_task_group() as group:
        async with send:
            for start in (0, 100, 200):
                group.start_soon(produce, send.clone(), start)
        received += [number async for number in receive]
    assert sorted(received) == list(range(300))


async def sockets() -> None:
    async def echo(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                sent, received = b"0123456789" * 20_000, b""
                group.start_soon(stream.send, sent)
                while len(received) < len(sent):
                    received += await stream.receive()
                assert received == sent
            group.cancel_scope.cancel()


async def process() -> None:
    program = "import sys; print(sys.stdin.read()[::-1])"
    done = await anyio.run_process([sys.executable, "-c", program], input=b"stressed")
    assert done.stdout == b"desserts\n"


async def main() -> None:
    assert_ours()
    for part in (threads, cancellation, channels, sockets, process):
        await part()


if __name__ == "__main__":
    asyncio.run(main())
