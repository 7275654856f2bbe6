"""Apps that give early hints as their frameworks have it, each under a bridge or, below ``/pair``, under two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import fastapi
import flask

from a2wsgi import ASGIMiddleware, WSGIMiddleware

STYLE, SCRIPT = "</style.css>; rel=preload; as=style", "</app.js>; rel=preload; as=script"

flask_app = flask.Flask(__name__)
fastapi_app = fastapi.FastAPI()


@flask_app.get("/hello")
def hello() -> str:
    """For a test that waits for the server."""
    return "Hello"


@flask_app.route("/hinted", methods=["GET", "POST"])
@flask_app.route("/pair/hinted", methods=["GET", "POST"])
def hinted() -> str:
    """Give two hints, one of two links, where the server takes them."""
    early_hints = flask.request.environ.get("wsgi.early_hints")
    if early_hints is None:
        return "no hints"
    early_hints([("Link", STYLE)])
    early_hints([("Link", STYLE), ("Link", SCRIPT)])
    return "hinted"


@fastapi_app.get("/hello")
async def fastapi_hello() -> str:
    """As above."""
    return "Hello"


@fastapi_app.api_route("/hinted", methods=["GET", "POST"])
@fastapi_app.api_route("/pair/hinted", methods=["GET", "POST"])
async def fastapi_hinted(request: fastapi.Request) -> fastapi.Response:
    """As above."""
    if "http.response.early_hint" not in request.scope["extensions"]:
        return fastapi.Response("no hints")
    await request.send_early_hints(STYLE)
    await request.send_early_hints(STYLE, SCRIPT)
    return fastapi.Response("hinted")


flask_bridge, flask_pair = WSGIMiddleware(flask_app), ASGIMiddleware(WSGIMiddleware(flask_app))
fastapi_bridge, fastapi_pair = ASGIMiddleware(fastapi_app), WSGIMiddleware(ASGIMiddleware(fastapi_app))


async def for_asgi(scope: Any, receive: Any, send: Any) -> None:
    """For an ASGI server."""
    pair = scope["type"] == "http" and scope["path"].startswith("/pair")
    await (fastapi_pair if pair else flask_bridge)(scope, receive, send)


def for_wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    """For a WSGI server."""
    return (flask_pair if environ["PATH_INFO"].startswith("/pair") else fastapi_bridge)(environ, start_response)
