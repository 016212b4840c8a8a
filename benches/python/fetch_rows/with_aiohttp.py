"""The downloader that one writes with aiohttp: ADDRESSES FOLDER CONNECTIONS."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp  # type: ignore[import-not-found,unused-ignore]

PIECE = 1 << 18


async def fetch_all(addresses: list[str], folder: Path, connections: int) -> None:
    """Fetch every address into the folder, so many at once."""
    places = asyncio.Semaphore(connections)
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def fetch(address: str) -> None:
            async with places, session.get(address) as answer:
                answer.raise_for_status()
                with (folder / address.rpartition("/")[2]).open("wb") as file:
                    async for piece in answer.content.iter_chunked(PIECE):
                        file.write(piece)

        async with asyncio.TaskGroup() as group:
            for address in addresses:
                group.create_task(fetch(address))


if __name__ == "__main__":
    asyncio.run(
        fetch_all(Path(sys.argv[1]).read_text().split(), Path(sys.argv[2]), int(sys.argv[3]))
    )
