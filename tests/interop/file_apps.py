"""What serves files in `test_files`: each framework by its own means, under one bridge or a pair.

The path is ``/<how>/<name>``, or ``/pair/<how>/<name>`` for two bridges. The file ``<name>`` is in the directory
``A2WSGI_TEST_DIR``; ``<name>-read`` tells that Python has read some of it. ``/memory`` answers with the most memory
that the process has had, in KiB.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import django
import flask
from django.conf import settings
from django.core.files import File
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse as DjangoFileResponse
from django.http import HttpRequest, HttpResponseBase
from django.urls import path as route
from fastapi import FastAPI
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.background import BackgroundTask
from starlette.staticfiles import StaticFiles
from whitenoise import WhiteNoise  # type: ignore[import-untyped, unused-ignore]

from a2wsgi import ASGIMiddleware, WSGIMiddleware
from interop import file_reads

DIRECTORY = Path(os.environ.get("A2WSGI_TEST_DIR", "."))

file_reads.watch(lambda name: (DIRECTORY / f"{name}-read").touch())


def memory() -> str:
    """The peak of the process, in KiB."""
    status = Path("/proc/self/status").read_text()
    return next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))


# -- WSGI apps ----------------------------------------------------------------------------------------------------

flask_app = flask.Flask(__name__)


@flask_app.get("/flask/<name>")
def flask_file(name: str) -> flask.Response:
    """By ``send_file``."""
    return flask.send_file(DIRECTORY / name, mimetype="application/octet-stream")


@flask_app.get("/hello")
def hello() -> str:
    """Not a file."""
    return "Hello, world!"


@flask_app.get("/memory")
def flask_memory() -> str:
    """See above."""
    return memory()


def django_file(request: HttpRequest, name: str) -> HttpResponseBase:
    """By ``FileResponse``, of what ``open()`` returned."""
    return DjangoFileResponse((DIRECTORY / name).open("rb"))


def django_stored(request: HttpRequest, name: str) -> HttpResponseBase:
    """As above, of a file as Django's storages return it."""
    return DjangoFileResponse(File((DIRECTORY / name).open("rb")))


class Deleting(DjangoFileResponse):  # type: ignore[misc, unused-ignore]
    """Deletes its file, as many do that are made for one download."""

    def close(self) -> None:
        super().close()
        with contextlib.suppress(FileNotFoundError):
            Path(str(getattr(self.file_to_stream, "name", ""))).unlink()


def django_deleting(request: HttpRequest, name: str) -> HttpResponseBase:
    """By such a one."""
    return Deleting((DIRECTORY / name).open("rb"))


settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of the tests")
django.setup()
urlpatterns = [
    route("django/<name>", django_file),
    route("stored/<name>", django_stored),
    route("deleting/<name>", django_deleting),
]
django_app = get_wsgi_application()
# It looks for its files at each request.
whitenoise_app = WhiteNoise(flask_app, root=str(DIRECTORY), prefix="/whitenoise/", autorefresh=True)


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Dispatches. It returns what the app returned, as the wrapper wants it."""
    how = environ["PATH_INFO"].split("/")[1]
    app: Any = django_app if how in {"django", "stored", "deleting"} else whitenoise_app
    answer: Iterable[bytes] = app(environ, start_response)
    return answer


# -- ASGI apps ----------------------------------------------------------------------------------------------------

asgi = FastAPI()


@asgi.get("/hello", response_class=PlainTextResponse)
def asgi_hello() -> str:
    """Not a file."""
    return "Hello, world!"


@asgi.get("/memory", response_class=PlainTextResponse)
def asgi_memory() -> str:
    """See above."""
    return memory()


@asgi.get("/fastapi/{name}")
@asgi.head("/fastapi/{name}")
def fastapi_file(name: str) -> FileResponse:
    """By ``FileResponse``."""
    return FileResponse(DIRECTORY / name, media_type="application/octet-stream")


@asgi.get("/deleting/{name}")
def fastapi_deleting(name: str) -> FileResponse:
    """By one that deletes its file."""
    return FileResponse(DIRECTORY / name, background=BackgroundTask(os.unlink, DIRECTORY / name))


asgi.mount("/static", StaticFiles(directory=DIRECTORY))

# -- Under bridges ------------------------------------------------------------------------------------------------

_wsgi_as_asgi, _asgi_as_wsgi = WSGIMiddleware(wsgi), ASGIMiddleware(asgi)
_asgi_pair, _wsgi_pair = WSGIMiddleware(ASGIMiddleware(asgi)), ASGIMiddleware(WSGIMiddleware(wsgi))


async def for_asgi(scope: Any, receive: Any, send: Any) -> None:
    """The WSGI apps, or a pair around the ASGI apps."""
    if scope["type"] == "lifespan" or not scope["path"].startswith("/pair/"):
        await _wsgi_as_asgi(scope, receive, send)
    else:
        path = scope["path"].removeprefix("/pair")
        await _asgi_pair({**scope, "path": path, "raw_path": path.encode()}, receive, send)


def for_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The ASGI apps, or a pair around the WSGI apps."""
    if not environ["PATH_INFO"].startswith("/pair/"):
        return _asgi_as_wsgi(environ, start_response)
    environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/pair")
    return _wsgi_pair(environ, start_response)
