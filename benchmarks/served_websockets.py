"""The apps that `websocket_echo` loads: an echo in FastAPI, in Flask with Flask-Sock, and without a library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fastapi
import flask
import flask_sock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

asgi = fastapi.FastAPI()
wsgi = flask.Flask(__name__)
sock = flask_sock.Sock(wsgi)


@asgi.get("/")
async def hello() -> dict[str, str]:
    return {"message": "Hello, world!"}


@asgi.websocket("/echo")
async def echo_of_fastapi(ws: fastapi.WebSocket) -> None:
    await ws.accept()
    async for text in ws.iter_text():
        await ws.send_text(text)


@wsgi.get("/")
def hello_of_flask() -> str:
    return "Hello, world!"


@sock.route("/echo")
def echo_of_flask(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


def own(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Use the object of the bridge."""
    ws = environ.get("a2wsgi.websocket")
    if ws is None:
        return wsgi(environ, start_response)
    for text in ws:
        ws.send(text)
    return ()
