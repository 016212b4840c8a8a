"""redis-py against a Redis server, whose Unix socket REDIS_SOCKET names."""

import asyncio
import os

from redis.asyncio import Redis
from whose import assert_ours


async def commands(redis: Redis) -> None:
    await redis.flushall()
    large = bytes(range(256)) * 4096
    await redis.set("large", large)
    assert await redis.get("large") == large
    await asyncio.gather(*(redis.incrby("sum", number) for number in range(50)))
    assert int(await redis.get("sum")) == sum(range(50))
    async with redis.pipeline(transaction=True) as pipe:
        for number in range(100):
            pipe.hset("squares", str(number), number**2)
        assert await pipe.hlen("squares").execute() == [1] * 100 + [100]
    found = {int(key): int(value) async for key, value in redis.hscan_iter("squares")}
    assert found == {number: number**2 for number in range(100)}


async def work_queue(redis: Redis) -> None:
    done: list[int] = []

    async def worker() -> None:
        while True:
            _, item = await redis.blpop("work")
            if item == b"stop":
                return
            done.append(int(item))

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(worker())
        for number in range(200):
            await redis.rpush("work", number)
        await redis.rpush("work", *["stop"] * 5)
    assert sorted(done) == list(range(200))


async def subscription(redis: Redis) -> None:
    async with redis.pubsub() as channel:
        await channel.subscribe("news")
        publisher = asyncio.create_task(publish(redis))
        heard = []
        async for message in channel.listen():
            if message["type"] == "message":
                heard.append(int(message["data"]))
            if len(heard) == 100:
                break
        await publisher
        assert heard == list(range(100))


async def publish(redis: Redis) -> None:
    assert_ours()
    for number in range(100):
        assert await redis.publish("news", number) == 1


async def main() -> None:
    assert_ours()
    async with Redis(unix_socket_path=os.environ["REDIS_SOCKET"]) as redis:
        for part in (commands, work_queue, subscription):
            await part(redis)


if __name__ == "__main__":
    asyncio.run(main())
