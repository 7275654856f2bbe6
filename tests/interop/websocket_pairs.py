"""Apps with a WebSocket behind two bridges, one around the other."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, WebSocket
from flask import Flask
from flask_sock import Sock

from a2wsgi import ASGIMiddleware, WSGIMiddleware

api = FastAPI()
shop = Flask(__name__)
sock = Sock(shop)


@api.websocket("/echo")
async def echo_of_api(ws: WebSocket) -> None:
    """Send back what comes."""
    await ws.accept()
    async for text in ws.iter_text():
        await ws.send_text(text)


@sock.route("/echo")  # type: ignore[untyped-decorator, unused-ignore]  # Flask-Sock comes without types
def echo_of_shop(ws: Any) -> None:
    """Send back what comes."""
    while True:
        ws.send(ws.receive())


#: For an ASGI server. The inner bridge takes the outer one's socket over, so no worker is held.
on_asgi = WSGIMiddleware(ASGIMiddleware(api), max_websockets=4)
#: For a WSGI server.
on_wsgi = ASGIMiddleware(WSGIMiddleware(shop))
