"""What a browser opens WebSockets to: FastAPI for a server of WSGI, and Flask-Sock for one of ASGI."""

from __future__ import annotations

from typing import Any

import fastapi
import flask
from flask_sock import Sock

from a2wsgi import ASGIMiddleware, WSGIMiddleware

api = fastapi.FastAPI()


@api.get("/")
async def page() -> fastapi.Response:
    """Be a page."""
    return fastapi.responses.HTMLResponse("<!doctype html><title>WebSockets</title>")


@api.websocket("/echo")
async def echo(ws: fastapi.WebSocket) -> None:
    """Send back what comes."""
    await ws.accept(subprotocol=ws.scope["subprotocols"][-1])
    while (message := await ws.receive())["type"] == "websocket.receive":
        await ws.send({**message, "type": "websocket.send"})


@api.websocket("/close")
async def close(ws: fastapi.WebSocket) -> None:
    """Close at once."""
    await ws.accept()
    await ws.close(4001, "bye")


@api.websocket("/deny")
async def deny(ws: fastapi.WebSocket) -> None:
    """Refuse."""
    await ws.send_denial_response(fastapi.Response("no", 401))


shop = flask.Flask(__name__)
shop.config["SOCK_SERVER_OPTIONS"] = {"subprotocols": ["b"]}
sock = Sock(shop)


@shop.before_request
def check() -> Any:
    """Refuse."""
    return ("no", 401) if flask.request.path == "/deny" else None


@shop.get("/")
def page_of_shop() -> str:
    """Be a page."""
    return "<!doctype html><title>WebSockets</title>"


@sock.route("/echo")  # type: ignore[untyped-decorator, unused-ignore]  # Flask-Sock comes without types
def echo_of_shop(ws: Any) -> None:
    """Send back what comes."""
    while True:
        ws.send(ws.receive())


@sock.route("/close")  # type: ignore[untyped-decorator, unused-ignore]  # as above
def close_of_shop(ws: Any) -> None:
    """Close at once."""
    ws.close(4001, "bye")


@sock.route("/deny")  # type: ignore[untyped-decorator, unused-ignore]  # as above
def deny_of_shop(ws: Any) -> None:
    """Is never reached."""


on_wsgi = ASGIMiddleware(api)
on_asgi = WSGIMiddleware(shop)
