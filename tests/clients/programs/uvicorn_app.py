"""An ASGI application, and a program that serves it: `uvicorn_app.py` prints uvicorn's log."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from whose import assert_ours


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer every request, after a turn of the loop, with what was sent."""
    if scope["type"] != "http":
        return
    assert_ours()
    sent, more = b"", True
    while more:
        message = await receive()
        sent, more = sent + message.get("body", b""), message.get("more_body", False)
    await asyncio.sleep(0)
    headers = [(b"content-length", b"%d" % len(sent or b"hello"))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": sent or b"hello"})


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, port=0, loop="asyncio")
