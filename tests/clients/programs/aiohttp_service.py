"""An aiohttp server and an aiohttp client: requests, bodies, streams, a web socket, a timeout."""

import asyncio
import hashlib

import aiohttp
from aiohttp import web
from whose import assert_ours

LARGE = b"a line of a large body\n" * 40_000


async def hello(request: web.Request) -> web.Response:
    assert_ours()
    return web.json_response({"name": request.match_info["name"], **request.query})


async def digest(request: web.Request) -> web.Response:
    found = hashlib.sha256()
    async for chunk in request.content.iter_chunked(8192):
        found.update(chunk)
    return web.Response(text=found.hexdigest())


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(100):
        await response.write(b"%d\n" % number)
        if number % 10 == 0:
            await asyncio.sleep(0)
    await response.write_eof()
    return response


async def slow(_: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def chat(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data[::-1])
    return socket


def application() -> web.Application:
    app = web.Application()
    app.add_routes(
        [
            web.get("/hello/{name}", hello),
            web.post("/digest", digest),
            web.get("/stream", stream),
            web.get("/slow", slow),
            web.get("/chat", chat),
        ]
    )
    return app


async def body() -> object:
    for start in range(0, len(LARGE), 10_000):
        yield LARGE[start : start + 10_000]
        await asyncio.sleep(0)


async def requests(client: aiohttp.ClientSession) -> None:
    async def greet(number: int) -> None:
        async with client.get(f"/hello/{number}", params={"q": "ü"}) as response:
            assert await response.json() == {"name": str(number), "q": "ü"}

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(greet(number))
    for data in (LARGE, body()):
        async with client.post("/digest", data=data) as response:
            assert await response.text() == hashlib.sha256(LARGE).hexdigest()
    async with client.get("/stream") as response:
        lines = [int(line) async for line in response.content]
    assert lines == list(range(100))
    async with client.ws_connect("/chat") as socket:
        for word in ("ping", "x" * 100_000):
            await socket.send_str(word)
            assert await socket.receive_str() == word[::-1]
    try:
        await client.get("/slow", timeout=aiohttp.ClientTimeout(total=0.05))
    except TimeoutError:
        pass
    else:
        raise AssertionError("a response before the timeout")


async def main() -> None:
    assert_ours()
    runner = web.AppRunner(application(), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    try:
        async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
            await requests(client)
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
