"""The contract in Django."""
# ruff: noqa: D103 - the contract says what each view does
# mypy: disable-error-code="untyped-decorator"
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# Django comes without types.

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import django
from asgiref.local import Local
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from django.views.decorators.http import require_POST, require_safe

from interop.frameworks import notes
from interop.frameworks.contract import ITEM

local = Local()


def text(body: str, status: int = 200) -> HttpResponse:
    return HttpResponse(body, status=status, content_type="text/plain")


@require_safe
def hello(request: HttpRequest) -> HttpResponseBase:
    notes.note(request.GET.get("id"), "view")
    return text("Hello, world!")


def item(_: HttpRequest, name: str) -> HttpResponseBase:
    return JsonResponse({"item": name})


def links(request: HttpRequest) -> HttpResponseBase:
    link = reverse("item", args=[ITEM])
    return JsonResponse({"path": link, "url": request.build_absolute_uri(link)})


def redirect_to_hello(_: HttpRequest) -> HttpResponseBase:
    return redirect("hello")


@require_POST
def login(request: HttpRequest) -> HttpResponseBase:
    request.session["name"] = request.POST["name"]
    response = redirect("whoami")
    response.status_code = 303
    return response


def whoami(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse({"name": request.session.get("name")})


def cookies(request: HttpRequest) -> HttpResponseBase:
    response = JsonResponse(dict(request.COOKIES))
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return response


def query(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse(dict(request.GET.lists()))


def upload(request: HttpRequest) -> HttpResponseBase:
    file: Any = request.FILES["file"]
    return JsonResponse({"title": request.POST["title"], "filename": file.name, **notes.summary(file)})


def body(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse(notes.summary(request))


def steps(_: HttpRequest, name: str) -> HttpResponseBase:
    return StreamingHttpResponse(notes.steps(name))


def go(_: HttpRequest, name: str) -> HttpResponseBase:
    notes.go(name)
    return text("gone")


def endless(_: HttpRequest, name: str) -> HttpResponseBase:
    return StreamingHttpResponse(notes.endless(name))


def fails(_: HttpRequest) -> HttpResponseBase:
    raise ValueError("in a view")


def breaks(_: HttpRequest) -> HttpResponseBase:
    return StreamingHttpResponse(notes.breaks())


def isolated(request: HttpRequest, name: str) -> HttpResponseBase:
    before = {"local": getattr(local, "name", None), "thread": notes.enter(name)}
    local.name = name
    notes.meet(int(request.GET["party"]))
    return JsonResponse({"before": before, "after": {"local": local.name, "thread": notes.here()}})


def events(_: HttpRequest, name: str) -> HttpResponseBase:
    return JsonResponse(notes.noted(name), safe=False)


# -- Errors and hooks ---------------------------------------------------------------------------------------------


def handler404(_: HttpRequest, exception: Exception) -> HttpResponseBase:
    return text("our 404", 404)


def handler500(_: HttpRequest) -> HttpResponseBase:
    kind = sys.exc_info()[0]
    return text(f"our 500: {kind and kind.__name__}", 500)


def middleware(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    def handle(request: HttpRequest) -> HttpResponseBase:
        local.request = name = request.GET.get("id")
        notes.note(name, "before")
        response = get_response(request)
        notes.note(name, "after")
        if response.status_code == 405:  # Django has no handler of one's own for it
            allowed = response["Allow"]
            response = text("our 405", 405)
            response["Allow"] = allowed
        return response

    return handle


def note_start(environ: dict[str, Any], **_: object) -> None:
    for name in parse_qs(environ["QUERY_STRING"]).get("id", ()):
        notes.note(name, "started")


def note_finish(**_: object) -> None:
    notes.leave()
    notes.note(local.request, "finished")


urlpatterns = [
    path("", lambda _: text("index")),
    path("hello", hello, name="hello"),
    path("items/<name>", item, name="item"),
    path("links", links),
    path("redirect", redirect_to_hello),
    path("folder/", lambda _: text("folder")),
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
app: Any = get_wsgi_application()
