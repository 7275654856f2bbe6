"""A chat room of a WSGI app, without a WebSocket library: each message goes to everybody in the room.

uvicorn websocket_chat:application
python -m websockets ws://127.0.0.1:8000/
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from a2wsgi import WebSocket, WebSocketClosed, WSGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable

room: set[WebSocket] = set()  # adding, discarding and copying are atomic


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401
    """Pass each message on to everybody in the room."""
    websocket: WebSocket | None = environ.get("a2wsgi.websocket")
    if websocket is None:
        start_response("426 Upgrade Required", [("Upgrade", "websocket")])
        return [b"Come in by a WebSocket.\n"]
    websocket.accept()
    room.add(websocket)
    try:
        for message in websocket:
            for other in tuple(room):
                with contextlib.suppress(WebSocketClosed):  # it is about to leave the room
                    other.send(message)
    finally:
        room.discard(websocket)
    return []


application = WSGIMiddleware(app)
