"""The contract in web.py."""
# ruff: noqa: D103 - the contract says what each view does
# mypy: disable-error-code="import-untyped, no-any-return"
# web.py comes without types.

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote

import web

from interop.frameworks import notes
from interop.frameworks.contract import ITEM

web.config.debug = False


def text(body: Any) -> Any:
    web.header("Content-Type", "text/plain; charset=UTF-8")
    return body


def data(value: Any) -> str:
    web.header("Content-Type", "application/json")
    return json.dumps(value)


def request_id() -> str | None:
    return next(iter(parse_qs(web.ctx.env["QUERY_STRING"]).get("id", ())), None)


def hello() -> Any:
    notes.note(request_id(), "view")
    return text("Hello, world!")


def links() -> Any:
    rest = quote(f"/items/{ITEM}")
    return data({"path": web.ctx.homepath + rest, "url": web.ctx.home + rest})


def redirect() -> Any:
    raise web.found("/hello")


def login() -> Any:
    session.name = web.input().name
    raise web.seeother("/whoami")


def whoami() -> Any:
    return data({"name": session.get("name")})


def cookies() -> Any:
    web.setcookie("first", "1")
    web.setcookie("second", "2")
    return data(dict(web.cookies()))


def query() -> Any:
    return data(web.input(a=[], b=[]))


def upload() -> Any:
    form = web.input(file={})
    return data({"title": form.title, "filename": form.file.filename, **notes.summary(form.file.file)})


def body() -> Any:
    return data(notes.summary(web.ctx.env["wsgi.input"]))


def go(name: str) -> Any:
    notes.go(name)
    return text("gone")


def fails() -> Any:
    raise ValueError("in a handler")


def isolated(name: str) -> Any:
    before = {"ctx": web.ctx.get("own_name"), "thread": notes.enter(name)}
    web.ctx.own_name = name
    notes.meet(int(web.input().party))
    return data({"before": before, "after": {"ctx": web.ctx.own_name, "thread": notes.here()}})


def page(method: str, function: Callable[..., Any]) -> type[object]:
    """A class as web.py wants one for each path."""
    return type(function.__name__, (), {method: lambda _, *arguments: function(*arguments)})


def our_404() -> Exception:
    return web.notfound("our 404")


def our_500() -> Exception:
    kind = sys.exc_info()[0]
    return web.internalerror(f"our 500: {kind and kind.__name__}")


def before() -> None:
    notes.note(request_id(), "before")


def after() -> None:
    notes.leave()
    notes.note(request_id(), "after")


NAME = "([^/]+)"
PAGES: dict[str, tuple[str, Callable[..., Any]]] = {
    "/": ("GET", lambda: text("index")),
    "/hello": ("GET", hello),
    f"/items/{NAME}": ("GET", lambda name: data({"item": name})),
    "/links": ("GET", links),
    "/redirect": ("GET", redirect),
    "/folder/": ("GET", lambda: text("folder")),
    "/login": ("POST", login),
    "/whoami": ("GET", whoami),
    "/cookies": ("GET", cookies),
    "/query": ("GET", query),
    "/upload": ("POST", upload),
    "/body": ("POST", body),
    f"/steps/{NAME}": ("GET", lambda name: text(notes.steps(name))),
    f"/steps/{NAME}/go": ("POST", go),
    f"/endless/{NAME}": ("GET", lambda name: text(notes.endless(name))),
    "/fails": ("GET", fails),
    "/breaks": ("GET", lambda: text(notes.breaks())),
    f"/isolated/{NAME}": ("GET", isolated),
    f"/events/{NAME}": ("GET", lambda name: data(notes.noted(name))),
}

application = web.application([part for path, what in PAGES.items() for part in (path, page(*what))])
application.notfound = our_404
application.internalerror = our_500
session = web.session.Session(application, web.session.MemoryStore(), {})
application.add_processor(web.loadhook(before))
application.add_processor(web.unloadhook(after))
app = application.wsgifunc()
