# ruff: noqa: D103  # the paths say what the views are
"""Flask and Django with async code in their views, on one bridge: ``X-Bridge: django`` chooses Django.

Both have the same paths. ``/ask/n`` calls this very server n times, by the one client of the process. It is answered
outside the bridge, since all workers may be waiting for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import django.core.wsgi
import flask
import httpx
from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.utils.deprecation import MiddlewareMixin
from django.views import View

import a2wsgi
from a2wsgi.wsgi_typing import Environ, StartResponse

DIRECTORY = Path(os.environ["A2WSGI_TEST_DIR"])

client = httpx.AsyncClient(limits=httpx.Limits(max_connections=10), timeout=30)
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
loops: set[int] = set()
lock = threading.Lock()


async def ask(environ: Environ, times: int) -> int:
    """Call this server, and count those calls that were answered."""
    with lock:
        loops.add(id(asyncio.get_running_loop()))
    answers = 0
    for _ in range(times):
        answers += (await client.get(f"http://127.0.0.1:{environ['SERVER_PORT']}/hello")).text == '"hello"'
    return answers


async def wait_for_ever() -> None:
    """Tell when it begins and when it is cancelled."""
    (DIRECTORY / "begun").touch()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        (DIRECTORY / "cancelled").touch()
        raise


async def left() -> dict[str, Any]:
    """What async code has left behind in this process."""
    tasks = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
    return {
        "loops": len(loops),
        "tasks": sorted(name for name in tasks if name in {"Call._run", "ask"} and "left" not in name),
        "threads": sorted({thread.name.rstrip("-0123456789") for thread in threading.enumerate()}),
    }


# -- Flask ------------------------------------------------------------------------------------------------------------


class App(flask.Flask):
    """With its hook for async functions."""

    def async_to_sync(self, func: Any) -> Any:
        return a2wsgi.async_to_sync(func)


flask_app = App(__name__)
closed: list[str] = []


@flask_app.before_request
async def bind() -> None:
    """What it sets, the view sees: it is Flask's part of the request."""
    variable.set(f"of {flask.request.path}")
    flask.g.loop = asyncio.get_running_loop()


@flask_app.teardown_request
async def clean_up(error: BaseException | None) -> None:
    """It runs on the same loop, also if the client has left."""
    await asyncio.sleep(0)
    if asyncio.get_running_loop() is flask.g.loop and flask.request.path.startswith("/wait"):
        (DIRECTORY / "cleaned-up").touch()


@flask_app.get("/ask/<int:times>")
async def ask_async(times: int) -> Any:
    assert asyncio.get_running_loop() is flask.g.loop
    return {"answers": await ask(flask.request.environ, times), "bound": variable.get()}


@flask_app.get("/run/<int:times>")
def ask_sync(times: int) -> Any:
    answers = a2wsgi.run_in_loop(ask(flask.request.environ, times), timeout=60)
    return {"answers": answers, "bound": variable.get()}


@flask_app.get("/wait")
async def wait() -> str:
    await wait_for_ever()
    return "never"


@flask_app.get("/fail")
async def fail() -> str:
    await asyncio.sleep(0)
    raise ZeroDivisionError("of an async view")


@flask_app.errorhandler(ZeroDivisionError)
async def explain(error: ZeroDivisionError) -> Any:
    return {"error": str(error)}


@flask_app.get("/left")
def show_left() -> Any:
    return a2wsgi.run_in_loop(left())


# -- Django -----------------------------------------------------------------------------------------------------------


class ServerLoopMiddleware(MiddlewareMixin):  # type: ignore[misc]  # it has no types
    """As in ``examples/django_async_views.py``."""

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> Any:
        return a2wsgi.async_to_sync(view)(request, *args, **kwargs) if iscoroutinefunction(view) else None


async def django_ask(request: HttpRequest, times: int) -> JsonResponse:
    return JsonResponse({"answers": await ask(request.META, times)})


class Ask(View):  # type: ignore[misc]  # it has no types
    """The same, as a class."""

    async def get(self, request: HttpRequest, times: int) -> JsonResponse:
        return await django_ask(request, times)


def django_run(request: HttpRequest, times: int) -> JsonResponse:
    return JsonResponse({"answers": a2wsgi.run_in_loop(ask(request.META, times), timeout=60)})


async def django_wait(request: HttpRequest) -> JsonResponse:
    await wait_for_ever()
    return JsonResponse({})


async def django_fail(request: HttpRequest) -> JsonResponse:
    await asyncio.sleep(0)
    raise ZeroDivisionError("of an async view")


urlpatterns = [
    path("ask/<int:times>", django_ask),
    path("class/<int:times>", Ask.as_view()),
    path("wrapped/<int:times>", a2wsgi.async_to_sync(Ask.as_view())),
    path("run/<int:times>", django_run),
    path("wait", django_wait),
    path("fail", django_fail),
    path("left", lambda _: JsonResponse(a2wsgi.run_in_loop(left()))),
]
settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="none", MIDDLEWARE=[f"{__name__}.ServerLoopMiddleware"]
)
django_app = django.core.wsgi.get_wsgi_application()


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    app: Any = django_app if environ.get("HTTP_X_BRIDGE") == "django" else flask_app
    return app(environ, start_response)  # type: ignore[no-any-return]


bridge = a2wsgi.WSGIMiddleware(application)
inside = a2wsgi.ASGIMiddleware(a2wsgi.WSGIMiddleware(application))


async def app(scope: Any, receive: Any, send: Any) -> None:
    """For ASGI servers."""
    if scope["type"] != "http" or scope["path"] != "/hello":
        await bridge(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
    await send({"type": "http.response.body", "body": b'"hello"'})


def pair(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """For WSGI servers."""
    if environ["PATH_INFO"] != "/hello":
        return inside(environ, start_response)
    start_response("200 OK", [("Content-Length", "7")])
    return [b'"hello"']
