"""The contract in BlackSheep."""
# ruff: noqa: D103 - the contract says what each view does

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from blacksheep import Application, Content, Cookie, Request, Response, Router, StreamedContent, json, redirect, text
from blacksheep.exceptions import HTTPException
from blacksheep.server.responses import see_other
from blacksheep.server.routing import URLResolver

from interop.frameworks import notes
from interop.frameworks.contract import ITEM

app = Application(router=Router())
app.use_sessions(notes.SECRET)
get, post = app.router.get, app.router.post


def request_id(request: Request) -> str | None:
    """The name for which the hooks note something."""
    return next(iter(request.query.get("id", [])), None)


def streamed(provider: Callable[[], AsyncIterator[bytes]]) -> Response:
    return Response(200, content=StreamedContent(b"text/plain", provider))


@get("/")
async def index() -> Response:
    return text("index")


@get("/hello", name="hello")
async def hello(request: Request) -> Response:
    notes.note(request_id(request), "view")
    return text("Hello, world!")


@get("/items/{title}", name="item")
async def item(title: str) -> Response:
    return json({"item": title})


@get("/links")
async def links(url_resolver: URLResolver) -> Response:
    path, url = url_resolver.url_for("item", title=ITEM), url_resolver.absolute_url_for("item", title=ITEM)
    return json({"path": path, "url": url})


@get("/redirect")
async def redirect_to_hello(url_resolver: URLResolver) -> Response:
    return redirect(url_resolver.url_for("hello"))


@get("/folder/")
async def folder() -> Response:
    return text("folder")


@post("/login")
async def login(request: Request, url_resolver: URLResolver) -> Response:
    form: Any = await request.form()
    request.session["name"] = form["name"]
    return see_other(url_resolver.url_for("whoami"))


@get("/whoami", name="whoami")
async def whoami(request: Request) -> Response:
    return json({"name": request.session.get("name")})


@get("/cookies")
async def cookies(request: Request) -> Response:
    response = json(request.cookies)
    response.set_cookies([Cookie("first", "1"), Cookie("second", "2")])
    return response


@get("/query")
async def query(request: Request) -> Response:
    return json(request.query)


@post("/upload")
async def upload(request: Request) -> Response:
    parts: Any = await request.multipart()
    title, file = parts
    told = notes.summary(file.file)
    return json({"title": title.data.decode(), "filename": file.file_name.decode(), **told})


@post("/body")
async def body(request: Request) -> Response:
    pieces: Any = request.stream()
    return json(await notes.summary_of(pieces))


@get("/steps/{name}")
async def steps(name: str) -> Response:
    return streamed(partial(notes.async_steps, name))


@post("/steps/{name}/go")
async def go(name: str) -> Response:
    notes.async_go(name)
    return text("gone")


@get("/endless/{name}")
async def endless(name: str) -> Response:
    return streamed(partial(notes.async_endless, name))


@get("/fails")
def fails() -> Response:
    raise ValueError("in a handler")


@get("/breaks")
async def breaks() -> Response:
    return streamed(notes.async_breaks)


@get("/isolated/{name}")
async def isolated(name: str, party: int, request: Request) -> Response:
    scope: Any = request.scope
    before = {"scope": scope.get("name"), "context": notes.enter_context(name)}
    scope["name"] = name
    await notes.async_meet(party)
    return json({"before": before, "after": {"scope": scope["name"], "context": notes.in_context()}})


@get("/events/{name}")
async def events(name: str) -> Response:
    return json(notes.noted(name))


async def our_page(_: Application, request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return Response(error.status, content=Content(b"text/plain", f"our {error.status}".encode()))
    return Response(500, content=Content(b"text/plain", f"our 500: {type(error).__name__}".encode()))


async def hooks(request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
    name = request_id(request)
    notes.note(name, "before")
    try:
        response = await handler(request)
        notes.note(name, "after")
        return response
    finally:
        notes.note(name, "teardown")


async def startup(_: Application) -> None:
    notes.tell("startup")


async def shutdown(_: Application) -> None:
    notes.tell("shutdown")


app.middlewares.append(hooks)
app.on_start += startup
app.on_stop += shutdown
app.exceptions_handlers.update({404: our_page, 405: our_page, 500: our_page, Exception: our_page})
