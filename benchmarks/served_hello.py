"""The smallest apps that `through_servers` loads: 13 bytes, by either interface."""

from __future__ import annotations

from typing import Any

BODY = b"Hello, world!"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "13")]


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with 13 bytes and a length."""
    start_response("200 OK", HEADERS)
    return [BODY]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer the same."""
    if scope["type"] != "http":
        raise NotImplementedError
    await receive()
    headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY, "more_body": False})
