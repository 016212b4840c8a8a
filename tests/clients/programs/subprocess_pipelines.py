"""Child processes: pipelines, conversations, kills, many at once."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, create_subprocess_exec, create_subprocess_shell

from whose import assert_ours


async def pipeline() -> None:
    """`seq 1 100000 | grep 7 | wc -l`, each a process of its own."""
    commands = (["seq", "1", "100000"], ["grep", "7"], ["wc", "-l"])
    source, processes = DEVNULL, []
    for command in commands[:-1]:
        read, write = os.pipe()
        processes.append(await create_subprocess_exec(*command, stdin=source, stdout=write))
        os.close(write)
        if source != DEVNULL:
            os.close(source)
        source = read
    last = await create_subprocess_exec(*commands[-1], stdin=source, stdout=PIPE)
    os.close(source)
    output, _ = await last.communicate()
    assert int(output) == sum("7" in str(number) for number in range(1, 100001))
    assert [await process.wait() for process in (*processes, last)] == [0, 0, 0]


async def conversation() -> None:
    """More than a pipe holds goes in and comes out, line by line and at once."""
    cat = await create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    cat.stdin.write(b"hello\n")
    assert await cat.stdout.readline() == b"hello\n"
    data = bytes(range(256)) * 8192

    async def feed() -> None:
        for start in range(0, len(data), 50_000):
            cat.stdin.write(data[start : start + 50_000])
            await cat.stdin.drain()
        cat.stdin.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        answer = group.create_task(cat.stdout.read())
    assert answer.result() == data
    assert await cat.wait() == 0


async def ends() -> None:
    """A child that is killed, one that times out, one that fails, one that can't be started."""
    sleeper = await create_subprocess_exec("sleep", "60")
    waiting = asyncio.gather(*(sleeper.wait() for _ in range(3)))
    sleeper.kill()
    assert await waiting == [-signal.SIGKILL] * 3
    sleeper = await create_subprocess_exec("sleep", "60", stdout=PIPE)
    try:
        await asyncio.wait_for(sleeper.communicate(), 0.05)
    except TimeoutError:
        sleeper.terminate()
    assert await sleeper.wait() == -signal.SIGTERM
    shell = await create_subprocess_shell(
        "echo out; echo err >&2; exit 3", stdout=PIPE, stderr=PIPE
    )
    assert await shell.communicate() == (b"out\n", b"err\n")
    assert shell.returncode == 3
    try:
        await create_subprocess_exec("there-is-no-such-program")
    except FileNotFoundError:
        pass
    else:
        raise AssertionError("a program that does not exist has started")


async def many() -> None:
    async def reverse(number: int) -> None:
        assert_ours()
        program = "import sys; sys.stdout.write(sys.stdin.read()[::-1])"
        child = await create_subprocess_exec(
            sys.executable, "-S", "-c", program, stdin=PIPE, stdout=PIPE
        )
        output, _ = await child.communicate(str(number).encode())
        assert output.decode() == str(number)[::-1] and child.returncode == 0

    await asyncio.gather(*(reverse(number) for number in range(1000, 1020)))


async def main() -> None:
    assert_ours()
    for part in (pipeline, conversation, ends, many):
        await part()


if __name__ == "__main__":
    asyncio.run(main())
