"""The app that `responsiveness` asks for its health, as a WSGI app and as an ASGI app.

``/health`` answers at once. ``/events`` sends a server-sent event ten times a second, until its client leaves.
``/upload`` reads its body as it comes.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

HEALTH = b"healthy\n"
_EVENT = b"data: tick\n\n"
_EVENT_SECONDS = 0.1
_EVENTS = 600  # some bridges never hear that the client has left


def _events() -> Iterator[bytes]:
    for _ in range(_EVENTS):
        yield _EVENT
        time.sleep(_EVENT_SECONDS)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return _events()
    if path == "/upload":
        while environ["wsgi.input"].read(1024):
            pass
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(HEALTH)))])
    return [HEALTH]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["path"] == "/events":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(_EVENTS):
            await send({"type": "http.response.body", "body": _EVENT, "more_body": True})
            await asyncio.sleep(_EVENT_SECONDS)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if scope["path"] == "/upload":
        while (await receive()).get("more_body"):
            pass
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(HEALTH))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": HEALTH, "more_body": False})
