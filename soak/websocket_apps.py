"""What WebSockets are opened to: the same for a WSGI app and for an ASGI app. The last part of the path says which.

===============  ======================================================
``ws_echo``      sends back what comes
``ws_close``     closes with 4001
``ws_return``    accepts, and returns
``ws_crash``     accepts, sends a message, and raises
``ws_raise``     raises before it accepts
``ws_refuse``    answers 401
``ws_flood``     sends 10 MB
``ws_deaf``      reads nothing for a while, and closes
===============  ======================================================
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from misbehaviour import ERRORS

FLOOD = b"x" * 100_000
FLOODS = 100
DEAF_SECONDS = 0.3


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """As a WSGI app, without a library."""
    ws: Any = environ["a2wsgi.websocket"]
    what = environ["PATH_INFO"].rpartition("/")[2]
    if what == "ws_refuse":
        start_response("401 Unauthorized", [("WWW-Authenticate", "Basic"), ("Content-Length", "4")])
        return [b"who?"]
    if what == "ws_raise":
        raise ERRORS["plain"]
    ws.accept()
    if what == "ws_echo":
        for message in ws:
            ws.send(message)
    elif what == "ws_close":
        ws.close(4001, "bye")
    elif what == "ws_crash":
        ws.send("last")
        raise ERRORS["plain"]
    elif what == "ws_flood":
        for _ in range(FLOODS):
            ws.send(FLOOD)
    elif what == "ws_deaf":
        time.sleep(DEAF_SECONDS)
    return []


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """As an ASGI app."""
    what = scope["path"].rpartition("/")[2]
    if what == "ws_refuse":
        headers = [(b"www-authenticate", b"Basic"), (b"content-length", b"4")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"who?"})
        return
    if what == "ws_raise":
        raise ERRORS["plain"]
    await receive()
    await send({"type": "websocket.accept"})
    if what == "ws_echo":
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
    elif what == "ws_close":
        await send({"type": "websocket.close", "code": 4001, "reason": "bye"})
    elif what == "ws_crash":
        await send({"type": "websocket.send", "text": "last"})
        raise ERRORS["plain"]
    elif what == "ws_flood":
        for _ in range(FLOODS):
            await send({"type": "websocket.send", "bytes": FLOOD})
    elif what == "ws_deaf":
        await asyncio.sleep(DEAF_SECONDS)
