"""What users write, for type checkers: it is checked and never run.

Where mypy and pyright differ, `Any` in an app's own types is why; the frameworks' types are what they ship.
"""

# ruff: noqa: D103  # the code is what is told here

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import make_server

import uvicorn
from asgiref.typing import ASGI3Application
from fastapi import FastAPI
from flask import Flask
from hypercorn.typing import ASGIFramework
from mangum import Mangum
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount
from starlette.types import ASGIApp as StarletteASGIApp
from typing_extensions import assert_type
from werkzeug.middleware.proxy_fix import ProxyFix

from a2wsgi import (
    ASGIMiddleware,
    BackgroundServer,
    ClientDisconnected,
    Interface,
    Statistics,
    WebSocket,
    WebSocketClosed,
    WSGIMiddleware,
    async_to_sync,
    chain,
    interface_of,
    run,
    run_in_loop,
    to_asgi,
    to_wsgi,
)
from a2wsgi.asgi_typing import ASGIApp, Receive, Scope, Send
from a2wsgi.wsgi_typing import Environ, StartResponse, WSGIApp

if TYPE_CHECKING:
    import asyncio

    from _typeshed.wsgi import StartResponse as WsgirefStartResponse
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

flask_app = Flask(__name__)
starlette_app = Starlette()
fastapi_app = FastAPI()


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["wsgi.input"].read()]


def wsgiref_app(environ: WSGIEnvironment, start_response: WsgirefStartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return []


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send(await receive())


# -- Either class name takes either kind ------------------------------------------------------------------------------

assert_type(WSGIMiddleware(flask_app), WSGIMiddleware)
assert_type(WSGIMiddleware(flask_app.wsgi_app), WSGIMiddleware)
assert_type(WSGIMiddleware(wsgi_app), WSGIMiddleware)
assert_type(WSGIMiddleware(wsgiref_app), WSGIMiddleware)
assert_type(ASGIMiddleware(flask_app), WSGIMiddleware)
assert_type(ASGIMiddleware(wsgi_app), WSGIMiddleware)

assert_type(ASGIMiddleware(fastapi_app), ASGIMiddleware)
assert_type(ASGIMiddleware(starlette_app), ASGIMiddleware)
assert_type(ASGIMiddleware(asgi_app), ASGIMiddleware)
assert_type(WSGIMiddleware(fastapi_app), ASGIMiddleware)
assert_type(WSGIMiddleware(asgi_app), ASGIMiddleware)

assert_type(WSGIMiddleware(ASGIMiddleware(asgi_app)), WSGIMiddleware)
assert_type(ASGIMiddleware(WSGIMiddleware(wsgi_app)), ASGIMiddleware)

# -- Options are those of what comes out ------------------------------------------------------------------------------


def options(loop: asyncio.AbstractEventLoop) -> None:
    assert_type(WSGIMiddleware(flask_app, 10, 10), WSGIMiddleware)
    assert_type(WSGIMiddleware(flask_app, workers=10, send_queue_size=None, max_queue=0), WSGIMiddleware)
    assert_type(ASGIMiddleware(flask_app, workers=10, spool_request=True), WSGIMiddleware)
    assert_type(ASGIMiddleware(fastapi_app, 5.0, loop), ASGIMiddleware)
    assert_type(ASGIMiddleware(fastapi_app, wait_time=5.0, inline=True), ASGIMiddleware)
    assert_type(ASGIMiddleware(fastapi_app, backend="trio"), ASGIMiddleware)
    assert_type(WSGIMiddleware(fastapi_app, loop=loop, lifespan=False), ASGIMiddleware)
    assert_type(ASGIMiddleware(app=fastapi_app), ASGIMiddleware)
    assert_type(WSGIMiddleware(app=flask_app), WSGIMiddleware)

    ASGIMiddleware(asgi_app, workers=1)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue]
    WSGIMiddleware(wsgi_app, inline=True)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    WSGIMiddleware(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    ASGIMiddleware(asgi_app, backend="curio")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    ASGIMiddleware("shop:app")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    to_asgi(wsgi_app, wait_time=1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue, reportArgumentType]
    to_wsgi(asgi_app, workers=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue, reportArgumentType]


# -- Servers and frameworks -------------------------------------------------------------------------------------------


def serve() -> None:
    fastapi_app.mount("/flask", WSGIMiddleware(flask_app))
    fastapi_app.mount("/flask", ASGIMiddleware(flask_app))
    starlette_app.mount("/flask", WSGIMiddleware(flask_app, workers=4))
    Starlette(routes=[Mount("/flask", app=WSGIMiddleware(flask_app)), Mount("/any", app=to_asgi(flask_app))])

    application = ASGIMiddleware(wsgi_app)  # the quickstart of the published description
    uvicorn.run(application)
    uvicorn.run(WSGIMiddleware(flask_app), port=8000)
    uvicorn.run(to_asgi(flask_app))

    make_server("", 8000, ASGIMiddleware(fastapi_app)).serve_forever()
    make_server("", 8000, WSGIMiddleware(fastapi_app)).serve_forever()
    make_server("", 8000, to_wsgi(fastapi_app)).serve_forever()

    # gunicorn and waitress take any object of this type
    wsgi: WSGIApplication = ASGIMiddleware(fastapi_app)
    wsgi = to_wsgi(fastapi_app)
    Mangum(WSGIMiddleware(flask_app), lifespan="off")
    of_asgiref: ASGI3Application = WSGIMiddleware(flask_app)
    of_hypercorn: ASGIFramework = WSGIMiddleware(flask_app)
    asgi: StarletteASGIApp = WSGIMiddleware(flask_app)
    asgi = to_asgi(flask_app)
    flask_app.wsgi_app = ProxyFix(ASGIMiddleware(fastapi_app))  # type: ignore[method-assign]
    del wsgi, asgi, of_asgiref, of_hypercorn


# -- What bridges can do ----------------------------------------------------------------------------------------------


async def bridges(scope: Scope, receive: Receive, send: Send) -> None:
    to_be_served = WSGIMiddleware(flask_app)
    await to_be_served(scope, receive, send)
    assert_type(to_be_served.statistics(), Statistics)
    assert_type(to_be_served.statistics().busy, int)

    with ASGIMiddleware(fastapi_app) as started:
        assert_type(started, ASGIMiddleware)
        started.start()
    started.close()


def watched(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    try:
        yield environ["wsgi.input"].read()
    except ClientDisconnected as error:
        assert_type(error, ClientDisconnected)


def narrowed(app: WSGIMiddleware | ASGIMiddleware) -> None:
    if isinstance(app, WSGIMiddleware):
        assert_type(app.statistics(), Statistics)
    else:
        app.close()


# -- Converting -------------------------------------------------------------------------------------------------------

assert_type(to_asgi(flask_app), StarletteASGIApp)
assert_type(to_asgi(fastapi_app), StarletteASGIApp)
assert_type(to_asgi(flask_app, workers=4, max_queue=10), StarletteASGIApp)
assert_type(to_wsgi(fastapi_app), WSGIApp)
assert_type(to_wsgi(flask_app), WSGIApp)
assert_type(to_wsgi(fastapi_app, wait_time=1.0, inline=True), WSGIApp)
assert_type(interface_of(flask_app), Interface)


def is_wsgi(app: object) -> bool:
    return interface_of(app) == "wsgi"


# -- Chaining: which kind comes out is the outermost's, and types do not say that --------------------------------------


def tagged(app: ASGIApp, name: str = "x") -> ASGIApp:
    async def tagging(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    del name
    return tagging


asgi: ASGIApp = chain(flask_app, GZipMiddleware, ProxyFix, tagged)
wsgi: WSGIApp = chain(
    fastapi_app,
    (ProxyFix, (), {"x_for": 1}),
    (CORSMiddleware, (), {"allow_origins": ["*"]}),
    (tagged, ["name"], {}),
    lambda app: tagged(app, "other"),
)
uvicorn.run(chain(flask_app, GZipMiddleware))

# -- Subclasses -------------------------------------------------------------------------------------------------------


class Counted(WSGIMiddleware):
    """With a constructor and a call of its own."""

    def __init__(self, name: str, app: WSGIApp) -> None:
        super().__init__(app, workers=4)
        self.name = name
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        await super().__call__(scope, receive, send)


class Named(ASGIMiddleware):
    """As above."""

    def __init__(self, name: str, app: ASGIApp) -> None:
        super().__init__(app, wait_time=1.0)
        self.name = name

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["shop.name"] = self.name
        return super().__call__(environ, start_response)


class Plain(WSGIMiddleware):
    """With no constructor of its own."""

    def busy(self) -> int:
        return self.statistics().busy


assert_type(Counted("a", flask_app), Counted)
assert_type(Counted("a", flask_app).calls, int)
assert_type(Named("a", fastapi_app), Named)
assert_type(Plain(flask_app, workers=1), Plain)
fastapi_app.mount("/counted", Counted("a", flask_app))


def any_app(app: Any) -> None:
    """Of an app without types nobody can tell: it is taken everywhere."""
    fastapi_app.mount("/any", WSGIMiddleware(app))
    make_server("", 8000, ASGIMiddleware(app))


# -- WebSockets -------------------------------------------------------------------------------------------------------


def websocket_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    websocket: WebSocket = environ["a2wsgi.websocket"]
    assert_type(websocket.subprotocols, tuple[str, ...])
    websocket.accept("chat", [("Set-Cookie", "a=1")])
    try:
        assert_type(websocket.receive(timeout=1.0), str | bytes)
    except WebSocketClosed as error:
        assert_type(error.code, int)
    for message in websocket:
        websocket.send(message)
    assert_type(websocket.close_code, int | None)
    websocket.close(4000, "bye")
    return []


assert_type(WSGIMiddleware(websocket_app, max_websockets=10).statistics().websockets, int)


# -- Options of the environ ------------------------------------------------------------------------------------------

assert_type(WSGIMiddleware(websocket_app, multiprocess=False), WSGIMiddleware)
assert_type(WSGIMiddleware(websocket_app, multiprocess=None), WSGIMiddleware)


# -- Serving ----------------------------------------------------------------------------------------------------------


def serve_from_python() -> None:
    run("shop:app", server="gunicorn", threads=8, log_level="debug")
    server = run(Flask("shop"), port=0, background=True, bridge={"spool_request": True})
    assert_type(server, BackgroundServer | None)
    if server is not None:
        with server as running:
            assert_type(running.url, str)


# -- Async code in sync apps ------------------------------------------------------------------------------------------


async def fetch(url: str, *, tries: int = 1) -> bytes:
    return url.encode() * tries


def calling_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    assert_type(run_in_loop(fetch("/"), timeout=1.5), bytes)
    assert_type(async_to_sync(fetch)("/", tries=2), bytes)
    return [run_in_loop(fetch("/"))]


class AsyncFlask(Flask):
    """Flask's documented hook."""

    def async_to_sync(self, func: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        return async_to_sync(func)


@async_to_sync
async def decorated(number: int) -> str:
    return str(number)


assert_type(decorated(1), str)
