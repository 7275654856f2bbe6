"""Apps that hang for ever under ``/hang``, and answer everywhere else: of both kinds, each under a bridge."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from typing import Any

from a2wsgi import ASGIMiddleware, WSGIMiddleware
from a2wsgi.wsgi_typing import Environ, StartResponse

logging.basicConfig(format="%(name)s: %(message)s")

SECONDS = 0.5


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """``/statistics`` says what the bridge counts."""
    if environ["PATH_INFO"] == "/hang":
        threading.Event().wait()
    statistics = wsgi_on_asgi.statistics()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{statistics.timed_out} {statistics.overdue}".encode()]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """The same."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/hang":
        await asyncio.get_running_loop().create_future()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(asgi_on_wsgi.statistics().timed_out).encode()})


wsgi_on_asgi = WSGIMiddleware(wsgi_app, app_timeout=SECONDS)
asgi_on_wsgi = ASGIMiddleware(asgi_app, app_timeout=SECONDS, lifespan=False)
