"""An ASGI app that reads its body, under a bridge that soon gives up a client which sends nothing of it."""

from __future__ import annotations

import json
import os
from typing import Any

from a2wsgi import ASGIMiddleware


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Say how long the body is."""
    length, more = 0, scope["method"] == "POST"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


options: dict[str, Any] = json.loads(os.environ.get("A2WSGI_TEST_OPTIONS", "{}"))
application = ASGIMiddleware(app, lifespan=False, receive_timeout=0.5, **options)
