"""The contract in Sanic, as far as it goes: it has no sessions, and leaves them to its users."""
# ruff: noqa: D103 - the contract says what each view does

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

from sanic import Blueprint, HTTPResponse, Request, Sanic
from sanic.exceptions import SanicException
from sanic.response import BaseHTTPResponse, ResponseStream, json, redirect, text

from interop.frameworks import notes
from interop.frameworks.contract import ITEM

Pages = Blueprint("pages")
App = Sanic[Any, Any]


def field_of(request: Request, name: str) -> str:
    """What a form has under a name."""
    assert request.form is not None
    return str(request.form[name][0])


@Pages.get("/")
async def index(request: Request) -> HTTPResponse:
    return text("index")


@Pages.get("/hello")
async def hello(request: Request) -> HTTPResponse:
    notes.note(request.args.get("id"), "view")
    return text("Hello, world!")


@Pages.get("/items/<name>")
async def item(request: Request, name: str) -> HTTPResponse:
    return json({"item": unquote(name)})


@Pages.get("/links")
async def links(request: Request) -> HTTPResponse:
    path = request.app.url_for("pages.item", name=quote(ITEM))
    return json({"path": path, "url": request.url_for("pages.item", name=quote(ITEM))})


@Pages.get("/redirect")
async def redirect_to_hello(request: Request) -> HTTPResponse:
    return redirect(request.app.url_for("pages.hello"))


@Pages.get("/folder/", strict_slashes=False)
async def folder(request: Request) -> HTTPResponse:
    return text("folder")


@Pages.post("/login")
async def login(request: Request) -> HTTPResponse:
    response = redirect(request.app.url_for("pages.whoami"), status=303)
    response.add_cookie("name", quote(field_of(request, "name")), secure=False)
    return response


@Pages.get("/whoami")
async def whoami(request: Request) -> HTTPResponse:
    name = request.cookies.get("name")
    return json({"name": name and unquote(name)})


@Pages.get("/cookies")
async def cookies(request: Request) -> HTTPResponse:
    response = json({key: request.cookies.get(key) for key in request.cookies})
    response.add_cookie("first", "1", secure=False)
    response.add_cookie("second", "2", secure=False)
    return response


@Pages.get("/query")
async def query(request: Request) -> HTTPResponse:
    return json(dict(request.args))


@Pages.post("/upload")
async def upload(request: Request) -> HTTPResponse:
    assert request.files is not None
    file = request.files["file"][0]
    return json({"title": field_of(request, "title"), "filename": file.name, **notes.summary_of_bytes(file.body)})


@Pages.post("/body", stream=True)
async def body(request: Request) -> HTTPResponse:
    pieces: Any = request.stream
    return json(await notes.summary_of(pieces))


@Pages.get("/steps/<name>")
async def steps(request: Request, name: str) -> None:
    response: Any = await request.respond(content_type="text/plain")
    async for piece in notes.async_steps(name):
        await response.send(piece)
    await response.eof()


@Pages.post("/steps/<name>/go")
async def go(request: Request, name: str) -> HTTPResponse:
    notes.async_go(name)
    return text("gone")


@Pages.get("/endless/<name>")
async def endless(request: Request, name: str) -> ResponseStream:
    async def send_all(response: Any) -> None:
        async for piece in notes.async_endless(name):
            await response.write(piece)

    return ResponseStream(send_all, content_type="text/plain")


@Pages.get("/fails")
async def fails(request: Request) -> HTTPResponse:
    raise ValueError("in a handler")


@Pages.get("/breaks")
async def breaks(request: Request) -> None:
    response: Any = await request.respond(content_type="text/plain")
    async for piece in notes.async_breaks():
        await response.send(piece)


@Pages.get("/isolated/<name>")
async def isolated(request: Request, name: str) -> HTTPResponse:
    before = {"ctx": getattr(request.ctx, "name", None), "context": notes.enter_context(name)}
    request.ctx.name = name
    await notes.async_meet(int(request.args["party"][0]))
    return json({"before": before, "after": {"ctx": request.ctx.name, "context": notes.in_context()}})


@Pages.get("/events/<name>")
async def events(request: Request, name: str) -> HTTPResponse:
    return json(notes.noted(name))


async def our_page(request: Request, error: Exception) -> HTTPResponse:
    if isinstance(error, SanicException):
        return text(f"our {error.status_code}", error.status_code, error.headers)
    return text(f"our 500: {type(error).__name__}", 500)


async def note_before(request: Request) -> None:
    notes.note(request.args.get("id"), "before")


async def note_after(request: Request, response: BaseHTTPResponse) -> None:
    notes.note(request.args.get("id"), "after")


async def startup(_: App) -> None:
    notes.tell("startup")


async def shutdown(_: App) -> None:
    notes.tell("shutdown")


def make(name: str, prefix: str) -> App:
    """An app whose routes begin with the prefix under which it is mounted: Sanic looks for the whole path."""
    app = Sanic(name)
    app.config.TOUCHUP = False  # with it, Sanic rewrites its classes at startup, which can be done once in a process
    app.blueprint(Pages, url_prefix=prefix)
    app.exception(Exception)(our_page)
    app.register_middleware(note_before, "request")
    app.register_middleware(note_after, "response")
    app.before_server_start(startup)
    app.after_server_stop(shutdown)
    return app


app = make("root", "")
mounted = make("mounted", notes.PREFIX)
