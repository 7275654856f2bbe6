"""The app that `memory` sends to and receives from, as a WSGI app and as an ASGI app.

A GET is answered with as many bytes as the query string says; a POST with the number of bytes that came in. A POST
whose query string is ``slow`` reads nothing for a second.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

PIECE_BYTES = 64 * 1024
PAUSE_SECONDS = 1.0
_PIECE = bytes(PIECE_BYTES - 1)


def new_piece() -> bytes:
    """Make a piece that takes memory of its own: a queue of one and the same object would look small."""
    return _PIECE + b"\n"


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] == "GET":
        length = int(environ["QUERY_STRING"])
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(length))])
        return (new_piece() for _ in range(length // PIECE_BYTES))
    if environ["QUERY_STRING"] == "slow":
        time.sleep(PAUSE_SECONDS)
    received = 0
    while piece := environ["wsgi.input"].read(PIECE_BYTES):
        received += len(piece)
    text = b"%d" % received
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["method"] == "GET":
        length = int(scope["query_string"])
        await send(_head(b"application/octet-stream", length))
        for _ in range(length // PIECE_BYTES):
            await send({"type": "http.response.body", "body": new_piece(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if scope["query_string"] == b"slow":
        await asyncio.sleep(PAUSE_SECONDS)
    received, more = 0, True
    while more:
        message = await receive()
        received += len(message.get("body", b""))
        more = message.get("more_body", False)
    text = b"%d" % received
    await send(_head(b"text/plain", len(text)))
    await send({"type": "http.response.body", "body": text, "more_body": False})


def _head(content_type: bytes, length: int) -> dict[str, Any]:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": 200, "headers": headers}
