"""Apps that fail under bridges, with Sentry's own middleware and integrations around them.

The path says which: ``/<stack>/<moment>``. `ON_ASGI` and `ON_WSGI` are what a server is given. What Sentry would send
goes to the file that the environment variable ``A2WSGI_TEST_EVENTS`` names, an event a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fastapi
import flask
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.integrations.fastapi import FastApiIntegration
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.integrations.starlette import StarletteIntegration
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from sentry_sdk.transport import Transport
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from a2wsgi import ASGIMiddleware, WSGIMiddleware

EVENTS = Path(os.environ["A2WSGI_TEST_EVENTS"])

#: What comes before the middle. With the second part the first has left for the client, whatever is queued: until then
#: an error in the stream is answered as one before it.
FIRST = (b"x" * 1_000_000,) * 2
LAST = b"last\n"


class ToFile(Transport):
    """Writes events down instead of sending them. One write each: the lines of two threads do not mix."""

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            with EVENTS.open("a") as file:
                file.write(json.dumps(event, default=str) + "\n")


sentry_sdk.init(
    "http://key@127.0.0.1:9/1",
    transport=ToFile,
    traces_sample_rate=1.0,
    # Which integrations there are would else depend on what is installed.
    auto_enabling_integrations=False,
    integrations=[FlaskIntegration(), StarletteIntegration(), FastApiIntegration()],
)


def fail(path: str) -> None:
    """Raise an error that is told from those of other paths."""
    raise ArithmeticError(path.removeprefix("/"))


# -- The apps: each fails at the moment that its path ends with -----------------------------------------------------


class Body:
    """A WSGI app's iterable, which fails in the middle, or in its close()."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        yield from FIRST
        if self._path.endswith("/middle"):
            fail(self._path)
        yield LAST

    def close(self) -> None:
        if self._path.endswith("/after"):
            fail(self._path)


def plain_wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Body:
    """Fail, as WSGI."""
    path = environ["PATH_INFO"]
    if path.endswith("/before"):
        fail(path)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Body(path)


async def plain_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Fail, as ASGI; no lifespan."""
    path = scope["path"]
    if path.endswith("/before"):
        fail(path)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for chunk in FIRST:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if path.endswith("/middle"):
        fail(path)
    await send({"type": "http.response.body", "body": LAST, "more_body": False})
    if path.endswith("/after"):
        fail(path)


flask_app = flask.Flask("failing")


@flask_app.get("/<path:_>")
def flask_view(_: str) -> flask.Response:
    """Fail, as Flask."""
    path = flask.request.root_path + flask.request.path
    if path.endswith("/before"):
        fail(path)
    body = Body(path)
    response = flask.Response(iter(body), mimetype="text/plain")
    response.call_on_close(body.close)
    return response


def fastapi_app() -> fastapi.FastAPI:
    """Make an app of its own for each stack: each has its own lifespan."""
    app = fastapi.FastAPI()

    @app.get("/{stack}/{moment}")
    async def view(stack: str, moment: str) -> StreamingResponse:
        path = f"/{stack}/{moment}"
        if path.endswith("/before"):
            fail(path)

        async def body() -> AsyncIterator[bytes]:
            for chunk in FIRST:
                yield chunk
            if path.endswith("/middle"):
                fail(path)
            yield LAST

        background = BackgroundTask(fail, path) if path.endswith("/after") else None
        return StreamingResponse(body(), background=background)

    return app


# -- The stacks -----------------------------------------------------------------------------------------------------


def to_wsgi(app: Any, *, lifespan: bool = False, **options: bool) -> Any:
    """Bridge an app of ASGI. `plain_asgi` knows no lifespan, and Sentry would report that."""
    bridge: Any = ASGIMiddleware
    return bridge(app, lifespan=lifespan, **options)


def to_asgi(app: Any) -> Any:
    """Bridge an app of WSGI."""
    return WSGIMiddleware(app)


def flask_in_fastapi() -> fastapi.FastAPI:
    """Mount Flask's app."""
    app = fastapi.FastAPI()
    app.mount("/flask_in_fastapi", to_asgi(flask_app))
    return app


#: By where Sentry is: around a bridge, around the app in it, or, with a framework's integration, in the framework.
ON_ASGI: Mapping[str, Any] = {
    "outside": SentryAsgiMiddleware(to_asgi(plain_wsgi)),
    "inside": to_asgi(SentryWsgiMiddleware(plain_wsgi)),
    "both": SentryAsgiMiddleware(to_asgi(SentryWsgiMiddleware(plain_wsgi))),
    "three": SentryAsgiMiddleware(to_asgi(SentryWsgiMiddleware(to_wsgi(SentryAsgiMiddleware(plain_asgi))))),
    "flask": to_asgi(flask_app),
    "around_flask": SentryAsgiMiddleware(to_asgi(flask_app)),
    "flask_in_fastapi": flask_in_fastapi(),
}

ON_WSGI: Mapping[str, Any] = {
    "outside": SentryWsgiMiddleware(to_wsgi(plain_asgi)),
    "inside": to_wsgi(SentryAsgiMiddleware(plain_asgi)),
    "both": SentryWsgiMiddleware(to_wsgi(SentryAsgiMiddleware(plain_asgi))),
    "three": SentryWsgiMiddleware(to_wsgi(SentryAsgiMiddleware(to_asgi(SentryWsgiMiddleware(plain_wsgi))))),
    "inline": SentryWsgiMiddleware(to_wsgi(SentryAsgiMiddleware(plain_asgi), inline=True)),
    "outside_detached": SentryWsgiMiddleware(to_wsgi(plain_asgi, detach_background=True)),
    "both_detached": SentryWsgiMiddleware(to_wsgi(SentryAsgiMiddleware(plain_asgi), detach_background=True)),
    "fastapi": to_wsgi(fastapi_app(), lifespan=True),
    "around_fastapi": SentryWsgiMiddleware(to_wsgi(fastapi_app(), lifespan=True)),
}


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """What an ASGI server is given. Asked for ``/``, it says that it is there."""
    name = scope["path"].split("/")[1]
    if name:
        await ON_ASGI[name](scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """What a WSGI server is given. As above."""
    name = environ["PATH_INFO"].split("/")[1]
    if name:
        return ON_WSGI[name](environ, start_response)
    start_response("204 No Content", [])
    return []
