"""What was written for a2wsgi 1.10.10, for type checkers: mypy has no complaint of it there, nor here.

It is checked and never run.
"""

# ruff: noqa: D103  # the code is what is told here

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable
from typing import cast

from a2wsgi import ASGIMiddleware, WSGIMiddleware
from a2wsgi.asgi import build_scope
from a2wsgi.asgi_typing import (
    ASGIApp,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    HTTPScope,
    LifespanScope,
    Receive,
    ReceiveEvent,
    Scope,
    Send,
    SendEvent,
    WebSocketScope,
)
from a2wsgi.wsgi import Body, build_environ
from a2wsgi.wsgi_typing import Environ, IterableChunks, StartResponse, WSGIApp

# -- Apps -------------------------------------------------------------------------------------------------------------


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "http":
        await http(scope, receive, send)
    else:
        await websocket(scope, receive, send)


async def lifespan(scope: LifespanScope, receive: Receive, send: Send) -> None:
    scope.get("state", {})["pool"] = object()
    message = await receive()
    if message["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    else:
        await send({"type": "lifespan.startup.failed", "message": "no pool"})


async def http(scope: HTTPScope, receive: Receive, send: Send) -> None:
    path: str = scope["path"]
    names = [name.lower() for name, _ in scope["headers"]]
    if "client" in scope:
        address, port = scope["client"]
        path += f"{address}:{port + 1}"
    if "server" in scope:
        address, server_port = scope["server"]
        path += f"{address}:{server_port or 80}"
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body", False):
                break
        elif message["type"] == "http.disconnect":
            return
    start: HTTPResponseStartEvent = {"type": "http.response.start", "status": 200, "headers": [(names[0], b"x")]}
    await send(start)
    part: HTTPResponseBodyEvent = {"type": "http.response.body", "body": path.encode() + body}
    await send(part)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def websocket(scope: WebSocketScope, receive: Receive, send: Send) -> None:
    await receive()
    for subprotocol in scope["subprotocols"]:
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
    message = await receive()
    if message["type"] == "websocket.receive" and "text" in message:
        await send({"type": "websocket.send", "text": message["text"].upper()})
    await send({"type": "websocket.close", "code": 1000, "reason": "done"})


# -- Middleware -------------------------------------------------------------------------------------------------------


class Timing:
    """Wraps `receive` and `send`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped_receive() -> ReceiveEvent:
            message: ReceiveEvent = await receive()
            return message

        async def wrapped_send(message: SendEvent) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"x-time", b"1")]
            await send(message)

        if scope["type"] == "http":
            await self.app(rooted(scope), wrapped_receive, wrapped_send)
        else:
            await self.app(scope, receive, send)


def rooted(scope: HTTPScope) -> HTTPScope:
    scope["root_path"] = "/root"
    return scope


timed: ASGIApp = Timing(app)

# -- The bridges and their subclasses ---------------------------------------------------------------------------------


def wsgi_app(environ: Environ, start_response: StartResponse) -> IterableChunks:
    write = start_response("200 OK", [("Content-Type", "text/plain")], None)
    write(environ["PATH_INFO"].encode())
    return [environ["wsgi.input"].read()]


typed: WSGIApp = wsgi_app


class Counted(WSGIMiddleware):
    """Counts its calls."""

    calls = 0

    def __init__(self, app: WSGIApp, workers: int = 10, send_queue_size: int = 10) -> None:
        super().__init__(app, workers, send_queue_size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        await super().__call__(scope, receive, send)


class Pooled(ASGIMiddleware):
    """Uses another loop."""

    def __init__(self, app: ASGIApp, wait_time: float | None = None) -> None:
        super().__init__(app, wait_time, asyncio.new_event_loop())

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return super().__call__(environ, start_response)


as_asgi: ASGIApp = WSGIMiddleware(wsgi_app)
as_wsgi: WSGIApp = ASGIMiddleware(timed, wait_time=1.0)


async def attributes() -> None:
    loop: asyncio.AbstractEventLoop = ASGIMiddleware(app).loop
    seconds: float | None = ASGIMiddleware(app).wait_time
    name = WSGIMiddleware(wsgi_app).executor.submit(str, seconds).result()
    loop.call_soon(print, name)


# -- The translators --------------------------------------------------------------------------------------------------


def translate(environ: Environ) -> Environ:
    scope: HTTPScope = build_scope(environ)
    return build_environ(scope, cast("Body", io.BytesIO()))
