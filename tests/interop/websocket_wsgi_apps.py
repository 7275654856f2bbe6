"""Unmodified WSGI apps with WebSockets, of every library that has them, each under a bridge and a prefix of its own."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from a2wsgi import ASGIMiddleware, WebSocket, WebSocketClosed, WSGIMiddleware
from a2wsgi._protocol.upgrade import Handshake, accept_token, head_101

logging.basicConfig(level=logging.INFO)
DIRECTORY = Path(os.environ.get("A2WSGI_TEST_DIR", "."))
MEGABYTE = bytes(1_000_000)


def note(name: str, what: object) -> None:
    """Tell the test something, in a file that is there whole or not at all."""
    path = DIRECTORY / f"{name}.part"
    path.write_text(json.dumps(what))
    path.rename(DIRECTORY / name)


def sends_until_it_cannot(name: str, send: Callable[[bytes], object], sizes: Iterator[int]) -> None:
    """Send megabytes, and tell the test how many and when the app was free again."""
    sent = 0
    try:
        for size in sizes:
            send(MEGABYTE[:size])
            sent += size
            note(f"{name}-sent", sent)
    except Exception as error:  # noqa: BLE001 - each library has its own
        note(f"{name}-failed", type(error).__name__)
    note(f"{name}-free", True)


# -- Flask-Sock ---------------------------------------------------------------------------------------------------


def flask_sock_app() -> Any:
    """Flask-Sock's views."""
    from flask import Flask, Response, abort, request
    from flask_sock import Sock
    from simple_websocket import ConnectionClosed

    flask = Flask(__name__)
    sock = Sock(flask)

    @flask.before_request
    def check() -> Any:
        if request.path == "/401":
            return Response("who?", 401, {"WWW-Authenticate": "Basic"})
        if request.path == "/streamed":
            return Response((f"{number}," for number in range(1000)), 200, {"X-Streamed": "yes"})
        if request.path in {"/403", "/500"}:
            abort(int(request.path[1:]))
        return None

    @sock.route("/echo")
    def echo(ws: Any) -> None:
        while True:
            ws.send(ws.receive())

    @sock.route("/offered")
    def offered(ws: Any) -> None:
        ws.send(json.dumps(request.headers.get("Sec-WebSocket-Extensions")))
        ws.send(ws.receive())

    @sock.route("/code/<name>")
    def code(ws: Any, name: str) -> None:
        try:
            ws.receive()
        except ConnectionClosed as error:
            note(name, [int(error.reason), error.message])

    @sock.route("/close")
    def close(ws: Any) -> None:
        ws.send("last")
        ws.close(4001, "bye")

    @sock.route("/raises")
    def raises(ws: Any) -> None:
        ws.send("last")
        raise ValueError("raised in a view")

    @sock.route("/flood/<name>")
    def flood(ws: Any, name: str) -> None:
        sends_until_it_cannot(name, ws.send, iter([100_000] * 200))

    @sock.route("/waits/<name>")
    def waits(ws: Any, name: str) -> None:
        ws.send("waiting")
        try:
            ws.receive()
        except ConnectionClosed:
            note(f"{name}-free", True)
            raise

    @flask.get("/hello")
    def hello() -> str:
        return "hello"

    return flask


# -- simple-websocket's ping, and subprotocols ------------------------------------------------------------------------


def simple_websocket_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Bare, without a framework."""
    import simple_websocket

    if environ["PATH_INFO"] == "/ping":
        ws = simple_websocket.Server.accept(environ, ping_interval=1)
    else:
        ws = simple_websocket.Server.accept(environ, subprotocols=["b"])
    try:
        while True:
            ws.send(ws.receive())
    except simple_websocket.ConnectionClosed:
        pass
    start_response("200 OK", [])
    return []


# -- Django -----------------------------------------------------------------------------------------------------------


def django_app() -> Any:
    """One view of Django's."""
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="key", MIDDLEWARE=[])
    django.setup()

    def echo(request: Any) -> Any:
        import simple_websocket

        if request.GET.get("denied"):
            return HttpResponse(b"no", status=401)
        ws = simple_websocket.Server.accept(request.META)
        try:
            while True:
                ws.send(ws.receive())
        except simple_websocket.ConnectionClosed:
            return HttpResponse()

    globals()["urlpatterns"] = [path("echo", echo)]
    return get_wsgi_application()


# -- gevent-websocket and bottle-websocket, gevent not running --------------------------------------------------------


def gevent_app() -> Any:
    """A Resource with one application."""
    from collections import OrderedDict

    from geventwebsocket import Resource, WebSocketApplication, WebSocketError

    class Echo(WebSocketApplication):  # type: ignore[misc, unused-ignore]  # it has no types
        def on_message(self, message: Any, *args: Any) -> None:
            if message is None:
                try:
                    self.ws.receive()
                except WebSocketError:
                    note("gevent-ended", True)
                return
            self.ws.send(message)

    return Resource(OrderedDict([("^/echo", Echo)]))


def bottle_app() -> Any:
    """One route with the plugin."""
    import bottle  # type: ignore[import-untyped, unused-ignore]
    from bottle_websocket import websocket

    app = bottle.Bottle()

    @app.get("/echo", apply=[websocket])  # pyright: ignore[reportCallIssue]  # Bottle makes its methods at run time
    def echo(ws: Any) -> None:
        while (message := ws.receive()) is not None:
            ws.send(message)

    return app


# -- Socket.IO --------------------------------------------------------------------------------------------------------


def socketio_app() -> Any:
    """Events, rooms and acknowledgements."""
    from flask import Flask, request
    from flask_socketio import SocketIO, disconnect, emit, join_room

    flask = Flask(__name__)
    socketio = SocketIO(flask, async_mode="threading", cors_allowed_origins="*")

    @socketio.on("connect")
    def connect() -> Any:
        return request.args.get("refuse") is None

    @socketio.on("echo")
    def echo(data: Any) -> Any:
        emit("echoed", data)
        return data

    @socketio.on("join")
    def join(room: str) -> str:
        join_room(room)
        return room

    @socketio.on("tell")
    def tell(room: str, data: str) -> None:
        emit("told", data, to=room)

    @socketio.on("kick")
    def kick() -> None:
        disconnect()

    return flask


# -- Our own object ---------------------------------------------------------------------------------------------------


def native_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """No library."""
    ws: WebSocket = environ["a2wsgi.websocket"]
    path = environ["PATH_INFO"]
    name = path.rpartition("/")[2]
    if path == "/echo":
        for message in ws:
            ws.send(message)
    elif path.startswith("/code/"):
        ws.accept("b" if "b" in ws.subprotocols else None, [("X-Native", "yes")])
        for _ in ws:
            pass
        note(name, [ws.close_code, ws.close_reason])
    elif path == "/threads":
        threads = [threading.Thread(target=ws.send, args=[f"{number}" * 100_000]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            ws.receive(timeout=0.05)
        except TimeoutError:
            ws.send("none came")
    elif path.startswith("/flood/"):
        sends_until_it_cannot(name, ws.send, iter([100_000] * 200))
    elif path.startswith("/deaf/"):
        ws.accept()
        until_told(name)
        ws.send(str(sum(1 for _ in iter(lambda: quiet(ws), None))))
    elif path == "/raises":
        raise ValueError("raised before the answer")
    elif path == "/rsv1":
        handshake = Handshake(accept_token(environ["HTTP_SEC_WEBSOCKET_KEY"]), (), "")
        environ["werkzeug.socket"].sendall(head_101(handshake).data + b"\xc1\x01x")
    return []


def quiet(ws: WebSocket) -> Any:
    """The next message; None at the end."""
    try:
        message = ws.receive(timeout=10)
    except WebSocketClosed:
        return None
    return None if message == "end" else message


def until_told(name: str) -> None:
    """Wait until the test tells it."""
    deadline = time.monotonic() + 30
    while not (DIRECTORY / f"{name}-go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


# -- All of them ------------------------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[], Any]] = {
    "sock": flask_sock_app,
    "simple": lambda: simple_websocket_app,
    "django": django_app,
    "gevent": gevent_app,
    "bottle": bottle_app,
    "native": lambda: native_app,
    "single": lambda: native_app,
    "single-with-one": lambda: native_app,
    "socket.io": socketio_app,
}

#: Options of those that need their own.
OPTIONS: dict[str, dict[str, Any]] = {
    "single": {"workers": 1},
    "single-with-one": {"workers": 1, "max_websockets": 1},
}


class Dispatcher:
    """An ASGI app that sends each path to the bridge of its first segment, which is made at its first use."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._bridges: dict[str, WSGIMiddleware] = {}

    def _bridge(self, name: str) -> WSGIMiddleware:
        if name not in self._bridges:
            self._bridges[name] = WSGIMiddleware(MAKERS[name](), **{**self._options, **OPTIONS.get(name, {})})
        return self._bridges[name]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._bridge("native")(scope, receive, send)
            return
        name = scope["path"].split("/")[1]
        if name == "statistics":
            body = json.dumps({key: asdict(bridge.statistics()) for key, bridge in self._bridges.items()}).encode()
            body = body[:-1] + b', "threads": %d}' % threading.active_count()
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
            )
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return
        if name == "ready":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        if name == "bare":
            await bare_asgi(receive, send)
            return
        if name != "socket.io":  # which has a path of its own
            scope = {**scope, "path": scope["path"].removeprefix(f"/{name}") or "/"}
            scope["raw_path"] = scope["path"].encode()
        await self._bridge(name)(scope, receive, send)


async def bare_asgi(receive: Any, send: Any) -> None:
    """An echo without a bridge, to compare with."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        key = "bytes" if message.get("text") is None else "text"
        await send({"type": "websocket.send", key: message[key]})


application = Dispatcher(workers=2)
# A client that polls holds a worker each time.
roomy = Dispatcher()
application_on_wsgi = ASGIMiddleware(application)
roomy_on_wsgi = ASGIMiddleware(roomy)
