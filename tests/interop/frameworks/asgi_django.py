"""The contract in Django, by its handler for ASGI. Some of its views are plain functions, which run in threads."""
# ruff: noqa: D103 - the contract says what each view does
# mypy: disable-error-code="untyped-decorator"
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# Django comes without types.

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import django
from asgiref.local import Local
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished, request_started
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils.decorators import async_only_middleware
from django.views.decorators.http import require_POST, require_safe

from interop.frameworks import notes
from interop.frameworks.contract import ITEM

local = Local()


def text(body: str, status: int = 200) -> HttpResponse:
    return HttpResponse(body, status=status, content_type="text/plain")


@require_safe
async def hello(request: HttpRequest) -> HttpResponseBase:
    notes.note(request.GET.get("id"), "view")
    return text("Hello, world!")


async def item(_: HttpRequest, name: str) -> HttpResponseBase:
    return JsonResponse({"item": name})


async def links(request: HttpRequest) -> HttpResponseBase:
    link = reverse("item", args=[ITEM])
    return JsonResponse({"path": link, "url": request.build_absolute_uri(link)})


async def redirect_to_hello(_: HttpRequest) -> HttpResponseBase:
    return redirect("hello")


@require_POST
def login(request: HttpRequest) -> HttpResponseBase:
    request.session["name"] = request.POST["name"]
    response = redirect("whoami")
    response.status_code = 303
    return response


async def whoami(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse({"name": await request.session.aget("name")})


async def cookies(request: HttpRequest) -> HttpResponseBase:
    response = JsonResponse(dict(request.COOKIES))
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return response


def query(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse(dict(request.GET.lists()))


async def upload(request: HttpRequest) -> HttpResponseBase:
    file: Any = request.FILES["file"]
    return JsonResponse({"title": request.POST["title"], "filename": file.name, **notes.summary(file)})


async def body(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse(notes.summary(request))


async def steps(_: HttpRequest, name: str) -> HttpResponseBase:
    return StreamingHttpResponse(notes.async_steps(name), content_type="text/plain")


async def go(_: HttpRequest, name: str) -> HttpResponseBase:
    notes.async_go(name)
    return text("gone")


async def endless(_: HttpRequest, name: str) -> HttpResponseBase:
    return StreamingHttpResponse(notes.async_endless(name), content_type="text/plain")


async def fails(_: HttpRequest) -> HttpResponseBase:
    raise ValueError("in a view")


async def breaks(_: HttpRequest) -> HttpResponseBase:
    return StreamingHttpResponse(notes.async_breaks(), content_type="text/plain")


async def isolated(request: HttpRequest, name: str) -> HttpResponseBase:
    before = {"local": getattr(local, "name", None), "context": notes.enter_context(name)}
    local.name = name
    await notes.async_meet(int(request.GET["party"]))
    return JsonResponse({"before": before, "after": {"local": local.name, "context": notes.in_context()}})


async def events(_: HttpRequest, name: str) -> HttpResponseBase:
    return JsonResponse(notes.noted(name), safe=False)


# -- Errors and hooks ---------------------------------------------------------------------------------------------


def handler404(_: HttpRequest, exception: Exception) -> HttpResponseBase:
    return text("our 404", 404)


def handler500(_: HttpRequest) -> HttpResponseBase:
    kind = sys.exc_info()[0]
    return text(f"our 500: {kind and kind.__name__}", 500)


@async_only_middleware
def middleware(
    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]],
) -> Callable[[HttpRequest], Awaitable[HttpResponseBase]]:
    async def handle(request: HttpRequest) -> HttpResponseBase:
        name = request.GET.get("id")
        notes.note(name, "before")
        response = await get_response(request)
        notes.note(name, "after")
        if response.status_code == 405:  # Django has no handler of one's own for it
            allowed = response["Allow"]
            response = text("our 405", 405)
            response["Allow"] = allowed
        return response

    return handle


def note_start(scope: dict[str, Any], **_: object) -> None:
    notes.note(local.request, "started")


def note_finish(**_: object) -> None:
    notes.note(local.request, "finished")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The handler; the signals know nothing of the request but what is in its context."""
    local.request = parse_qs(scope.get("query_string", b"").decode()).get("id", [None])[0]
    await handler(scope, receive, send)


async def index(_: HttpRequest) -> HttpResponseBase:
    return text("index")


async def folder(_: HttpRequest) -> HttpResponseBase:
    return text("folder")


urlpatterns = [
    path("", index),
    path("hello", hello, name="hello"),
    path("items/<name>", item, name="item"),
    path("links", links),
    path("redirect", redirect_to_hello),
    path("folder/", folder),
    path("login", login),
    path("whoami", whoami, name="whoami"),
    path("cookies", cookies),
    path("query", query),
    path("upload", upload),
    path("body", body),
    path("steps/<name>", steps),
    path("steps/<name>/go", go),
    path("endless/<name>", endless),
    path("fails", fails),
    path("breaks", breaks),
    path("isolated/<name>", isolated),
    path("events/<name>", events),
]

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[
        f"{__name__}.middleware",
        "django.middleware.common.CommonMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY=notes.SECRET,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    USE_TZ=True,
)
django.setup(set_prefix=False)
request_started.connect(note_start, weak=False)
request_finished.connect(note_finish, weak=False)
handler: Any = get_asgi_application()
