"""The contract in Pyramid."""
# ruff: noqa: D103 - the contract says what each view does
# mypy: disable-error-code="import-untyped"
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportOptionalSubscript=false
# Pyramid comes without types.

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator
from pyramid.events import NewRequest, NewResponse
from pyramid.httpexceptions import HTTPFound, HTTPSeeOther
from pyramid.request import Request
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory
from pyramid.threadlocal import get_current_request

from interop.frameworks import notes
from interop.frameworks.contract import ITEM


def text(body: str, status: int = 200) -> Response:
    return Response(body, status=status, content_type="text/plain", charset="UTF-8")


def streamed(pieces: Any) -> Response:
    return Response(app_iter=pieces, content_type="text/plain", charset="UTF-8")


def index(request: Request) -> Response:
    return text("index")


def hello(request: Request) -> Response:
    notes.note(request.GET.get("id"), "view")
    return text("Hello, world!")


def item(request: Request) -> dict[str, Any]:
    return {"item": request.matchdict["name"]}


def links(request: Request) -> dict[str, Any]:
    return {"path": request.route_path("item", name=ITEM), "url": request.route_url("item", name=ITEM)}


def redirect(request: Request) -> Response:
    return HTTPFound(request.route_path("hello"))


def folder(request: Request) -> Response:
    return text("folder")


def login(request: Request) -> Response:
    request.session["name"] = request.POST["name"]
    return HTTPSeeOther(request.route_url("whoami"))


def whoami(request: Request) -> dict[str, Any]:
    return {"name": request.session.get("name")}


def cookies(request: Request) -> dict[str, Any]:
    request.response.set_cookie("first", "1")
    request.response.set_cookie("second", "2")
    return dict(request.cookies)


def query(request: Request) -> dict[str, Any]:
    return {key: request.GET.getall(key) for key in request.GET}


def upload(request: Request) -> dict[str, Any]:
    file = request.POST["file"]
    return {"title": request.POST["title"], "filename": file.filename, **notes.summary(file.file)}


def body(request: Request) -> dict[str, Any]:
    return notes.summary(request.body_file)


def steps(request: Request) -> Response:
    return streamed(notes.steps(request.matchdict["name"]))


def go(request: Request) -> Response:
    notes.go(request.matchdict["name"])
    return text("gone")


def endless(request: Request) -> Response:
    return streamed(notes.endless(request.matchdict["name"]))


def fails(request: Request) -> Response:
    raise ValueError("in a view")


def breaks(request: Request) -> Response:
    return streamed(notes.breaks())


def isolated(request: Request) -> dict[str, Any]:
    name = request.matchdict["name"]
    before = {"request": getattr(request, "own_name", None), "thread": notes.enter(name)}
    request.own_name = name
    notes.meet(int(request.GET["party"]))
    current = get_current_request()
    assert current is not None
    return {"before": before, "after": {"request": current.own_name, "thread": notes.here()}}


def events(request: Request) -> list[str]:
    return notes.noted(request.matchdict["name"])


def our_404(request: Request) -> Response:
    return text("our 404", 404)


def our_500(error: Exception, request: Request) -> Response:
    return text(f"our 500: {type(error).__name__}", 500)


def note_before(event: NewRequest) -> None:
    name = event.request.GET.get("id")
    notes.note(name, "before")

    def finish(request: Request) -> None:
        notes.leave()
        notes.note(name, "teardown")

    event.request.add_finished_callback(finish)


def note_after(event: NewResponse) -> None:
    notes.note(event.request.GET.get("id"), "after")


ROUTES = {
    "index": ("/", index),
    "hello": ("/hello", hello),
    "item": ("/items/{name}", item),
    "links": ("/links", links),
    "redirect": ("/redirect", redirect),
    "folder": ("/folder/", folder),
    "login": ("/login", login),
    "whoami": ("/whoami", whoami),
    "cookies": ("/cookies", cookies),
    "query": ("/query", query),
    "upload": ("/upload", upload),
    "body": ("/body", body),
    "steps": ("/steps/{name}", steps),
    "go": ("/steps/{name}/go", go),
    "endless": ("/endless/{name}", endless),
    "fails": ("/fails", fails),
    "breaks": ("/breaks", breaks),
    "isolated": ("/isolated/{name}", isolated),
    "events": ("/events/{name}", events),
}

with Configurator(session_factory=SignedCookieSessionFactory(notes.SECRET)) as config:
    for name, (pattern, view) in ROUTES.items():
        method = "POST" if name in {"login", "upload", "body", "go"} else "GET"
        config.add_route(name, pattern)
        config.add_view(view, route_name=name, request_method=method, renderer="json")
    config.add_notfound_view(our_404, append_slash=True)
    config.add_exception_view(our_500, context=Exception)
    config.add_subscriber(note_before, NewRequest)
    config.add_subscriber(note_after, NewResponse)
    app = config.make_wsgi_app()
