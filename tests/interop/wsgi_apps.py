"""What the real servers serve: WSGI apps, each under a bridge or several.

A request says with the header ``X-Bridge`` which of `BRIDGES` it is for; without one it goes to Flask. Paths are passed
on as they are. ``/statistics`` is answered without any of them, so that it takes no worker.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import queue
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import django
import flask
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount

from a2wsgi import WSGIMiddleware

#: How long an app waits for what a test does, at most.
SECONDS = 10.0

#: How many requests to ``/together`` are answered at a time, when so many have come.
TOGETHER = 10


def checksum(stream: Any) -> dict[str, Any]:
    """What a stream holds, read to its end piece by piece."""
    digest, length = hashlib.sha256(), 0
    while piece := stream.read(64 * 1024):
        digest.update(piece)
        length += len(piece)
    return {"sha256": digest.hexdigest(), "length": length}


# -- Flask --------------------------------------------------------------------------------------------------------

app = flask.Flask(__name__)
together = threading.Barrier(TOGETHER)
steps: defaultdict[str, queue.SimpleQueue[bool]] = defaultdict(queue.SimpleQueue)
closed: defaultdict[str, threading.Event] = defaultdict(threading.Event)


@app.get("/hello")
def hello() -> str:
    """A body in one piece."""
    return "Hello, world!"


@app.get("/streamed")
def streamed() -> flask.Response:
    """A body in three pieces, of no length that is said."""
    return flask.Response(iter([b"one ", b"two ", b"three"]), mimetype="text/plain")


@app.get("/empty")
def empty() -> tuple[str, int]:
    """No body, by its status."""
    return "", 204


@app.get("/unchanged")
def unchanged() -> flask.Response:
    """As above, for a request that says what it has."""
    response = flask.Response(status=304)
    response.set_etag("same")
    return response


@app.get("/error")
def error() -> str:
    """An error that Flask makes a page of."""
    raise ValueError("an error of the app's own, which Flask answers")


@app.get("/cookies")
def cookies() -> flask.Response:
    """The cookies that came, and two new ones."""
    response = flask.jsonify(flask.request.cookies.to_dict(flat=False))
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return response


@app.get("/environ")
@app.get("/environ/<path:rest>")
def environ(rest: str = "") -> dict[str, str]:
    """The strings of the environ."""
    return {key: value for key, value in flask.request.environ.items() if isinstance(value, str)}


@app.post("/data")
def data() -> dict[str, Any]:
    """A checksum of the body, read in one go."""
    body = flask.request.get_data()
    return {"sha256": hashlib.sha256(body).hexdigest(), "length": len(body)}


@app.post("/read")
def read() -> dict[str, Any]:
    """A checksum of the body, read piece by piece."""
    return checksum(flask.request.stream)


@app.post("/files")
def files() -> dict[str, Any]:
    """A checksum of the file in a form."""
    return {"title": flask.request.form["title"], **checksum(flask.request.files["file"].stream)}


@app.post("/unread")
def unread() -> tuple[str, int]:
    """A refusal that leaves the body alone."""
    return "not by its head already", 403


@app.get("/together")
def at_once() -> str:
    """An answer as soon as enough others are here."""
    together.wait(SECONDS)
    return "together"


@app.get("/events/<name>")
def events(name: str) -> flask.Response:
    """An event at once and one for each request to ``step``, until one to ``end``."""

    def make() -> Iterator[str]:
        try:
            for number in itertools.count():
                yield f"data: {number}\n\n"
                if not steps[name].get(timeout=SECONDS):
                    return
        finally:
            closed[name].set()

    return flask.Response(make(), mimetype="text/event-stream")


@app.post("/events/<name>/step")
def step(name: str) -> str:
    """Have a stream send its next event."""
    steps[name].put(True)
    return "stepped"


@app.post("/events/<name>/end")
def end(name: str) -> str:
    """Have a stream end."""
    steps[name].put(False)
    return "ended"


@app.get("/endless/<name>")
def endless(name: str) -> flask.Response:
    """A response as fast as the client takes it."""

    def make() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 16_384
        finally:
            closed[name].set()

    return flask.Response(make(), mimetype="application/octet-stream")


@app.get("/quiet/<name>")
def quiet(name: str) -> flask.Response:
    """A response that says nothing after its first byte, until the client has left."""
    disconnected = flask.request.environ["a2wsgi.disconnected"]

    def make() -> Iterator[bytes]:
        yield b"."
        if disconnected.wait(SECONDS):
            closed[name].set()

    return flask.Response(make(), mimetype="text/plain")


@app.get("/stuck")
def stuck() -> str:
    """Never answer, and notice nothing."""
    threading.Event().wait()
    return "never"


@app.get("/closed/<name>")
def wait_until_closed(name: str) -> tuple[str, int]:
    """Wait for the end of a response."""
    return ("closed", 200) if closed[name].wait(SECONDS) else ("still open", 504)


# -- Django -------------------------------------------------------------------------------------------------------


def django_read(request: HttpRequest) -> HttpResponseBase:
    """A checksum of the body, read piece by piece."""
    return JsonResponse(checksum(request))


def django_files(request: HttpRequest) -> HttpResponseBase:
    """A checksum of the file in a form."""
    return JsonResponse({"title": request.POST["title"], **checksum(request.FILES["file"])})


def django_streamed(request: HttpRequest) -> HttpResponseBase:
    """A body in three pieces."""
    return StreamingHttpResponse(iter([b"one ", b"two ", b"three"]))


def django_prefix(request: HttpRequest) -> HttpResponseBase:
    """What Django makes of the path."""
    return JsonResponse({"path": request.path, "path_info": request.path_info, "query": dict(request.GET.lists())})


urlpatterns = [
    path("read", django_read),
    path("files", django_files),
    path("streamed", django_streamed),
    path("prefix", django_prefix),
]

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="none", USE_TZ=True)
django.setup(set_prefix=False)
django_app: Any = get_wsgi_application()


# -- Without a framework ------------------------------------------------------------------------------------------


def plain(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Do what frameworks keep apps from: give another length than was said, or write."""
    match environ["PATH_INFO"]:
        case "/too-long":
            start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
            return iter([b"one and more", b"two"])
        case "/too-short":
            start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "10")])
            return iter([b"one"])
        case _:
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            write(b"written, ")
            return [b"returned"]


# -- The bridges --------------------------------------------------------------------------------------------------

BRIDGES: dict[str, WSGIMiddleware] = {
    "flask": WSGIMiddleware(app),
    "django": WSGIMiddleware(django_app),
    "plain": WSGIMiddleware(plain),
    "one-worker": WSGIMiddleware(app, workers=1),
    "ten-workers": WSGIMiddleware(app, workers=10),
    "impatient": WSGIMiddleware(app, workers=1, send_timeout=0.5),
}
mounted = Starlette(routes=[Mount("/mounted", BRIDGES["flask"]), Mount("/django", BRIDGES["django"])])


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Pass a request on to the bridge that it is for."""
    if scope["type"] == "http" and scope["path"] == "/statistics":
        body = json.dumps({name: asdict(bridge.statistics()) for name, bridge in BRIDGES.items()}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body, "more_body": False})
        return
    name = next((value.decode() for key, value in scope.get("headers", ()) if key == b"x-bridge"), "flask")
    await (mounted if name == "mounted" else BRIDGES[name])(scope, receive, send)
