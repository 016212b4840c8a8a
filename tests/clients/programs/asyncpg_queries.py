"""asyncpg against a PostgreSQL server, in whose folder PGHOST its Unix socket is."""

import asyncio
import io

import asyncpg
from whose import assert_ours


async def queries(pool: asyncpg.Pool) -> None:
    await pool.execute("DROP TABLE IF EXISTS squares")
    await pool.execute("CREATE TABLE squares (number int PRIMARY KEY, square bigint, blob bytea)")
    rows = [(number, number**2, bytes([number % 256]) * 1000) for number in range(2000)]
    async with pool.acquire() as connection:
        await connection.copy_records_to_table("squares", records=rows[:1000])
        await connection.executemany("INSERT INTO squares VALUES ($1, $2, $3)", rows[1000:])
        async with connection.transaction():
            found = [tuple(row) async for row in connection.cursor("SELECT * FROM squares")]
        assert sorted(found) == rows
        copied = io.BytesIO()
        await connection.copy_from_query("SELECT number FROM squares", output=copied)
        assert copied.getvalue().count(b"\n") == 2000

    async def ask(number: int) -> int:
        assert_ours()
        answer: int = await pool.fetchval("SELECT square FROM squares WHERE number = $1", number)
        return answer

    answers = await asyncio.gather(*(ask(number) for number in range(300)))
    assert answers == [number**2 for number in range(300)]


async def faults(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        try:
            async with connection.transaction():
                await connection.execute("DELETE FROM squares")
                await connection.execute("SELECT 1 / 0")
        except asyncpg.DivisionByZeroError:
            pass
        assert await connection.fetchval("SELECT count(*) FROM squares") == 2000
        try:
            await connection.execute("SELECT pg_sleep(60)", timeout=0.05)
        except TimeoutError:
            pass
        else:
            raise AssertionError("an answer before the timeout")
        assert await connection.fetchval("SELECT 1") == 1


async def notifications(pool: asyncpg.Pool) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with pool.acquire() as listener, pool.acquire() as speaker:
        await listener.add_listener("news", lambda *args: heard.put_nowait(args[3]))
        for number in range(100):
            await speaker.execute("SELECT pg_notify('news', $1)", str(number))
        assert [await heard.get() for _ in range(100)] == [str(number) for number in range(100)]
        await listener.reset()


async def main() -> None:
    assert_ours()
    async with asyncpg.create_pool(database="postgres", user="juggler", max_size=10) as pool:
        for part in (queries, faults, notifications):
            await part(pool)


if __name__ == "__main__":
    asyncio.run(main())
