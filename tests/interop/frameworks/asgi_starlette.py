"""The contract in Starlette."""
# ruff: noqa: D103 - the contract says what each view does

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interop.frameworks import notes
from interop.frameworks.contract import ITEM


async def index(request: Request) -> Response:
    return PlainTextResponse("index")


async def hello(request: Request) -> Response:
    name = request.query_params.get("id")
    notes.note(name, "view")
    return PlainTextResponse("Hello, world!", background=BackgroundTask(notes.note, name, "background"))


async def item(request: Request) -> Response:
    return JSONResponse({"item": request.path_params["name"]})


async def links(request: Request) -> Response:
    url = request.url_for("item", name=ITEM)
    return JSONResponse({"path": url.path, "url": str(url)})


async def redirect(request: Request) -> Response:
    return RedirectResponse(request.url_for("hello"))


async def folder(request: Request) -> Response:
    return PlainTextResponse("folder")


async def login(request: Request) -> Response:
    async with request.form() as form:
        request.session["name"] = form["name"]
    return RedirectResponse(request.url_for("whoami"), 303)


async def whoami(request: Request) -> Response:
    return JSONResponse({"name": request.session.get("name")})


async def cookies(request: Request) -> Response:
    response = JSONResponse(request.cookies)
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return response


async def query(request: Request) -> Response:
    return JSONResponse({key: request.query_params.getlist(key) for key in request.query_params})


async def upload(request: Request) -> Response:
    async with request.form() as form:
        file = form["file"]
        assert isinstance(file, UploadFile)
        return JSONResponse({"title": form["title"], "filename": file.filename, **notes.summary(file.file)})


async def body(request: Request) -> Response:
    return JSONResponse(await notes.summary_of(request.stream()))


async def steps(request: Request) -> Response:
    return StreamingResponse(notes.async_steps(request.path_params["name"]), media_type="text/plain")


async def go(request: Request) -> Response:
    notes.async_go(request.path_params["name"])
    return PlainTextResponse("gone")


async def endless(request: Request) -> Response:
    return StreamingResponse(notes.async_endless(request.path_params["name"]), media_type="text/plain")


async def fails(request: Request) -> Response:
    raise ValueError("in an endpoint")


async def breaks(request: Request) -> Response:
    return StreamingResponse(notes.async_breaks(), media_type="text/plain")


async def isolated(request: Request) -> Response:
    name = request.path_params["name"]
    before = {"state": getattr(request.state, "name", None), "context": notes.enter_context(name)}
    request.state.name = name
    await notes.async_meet(int(request.query_params["party"]))
    return JSONResponse({"before": before, "after": {"state": request.state.name, "context": notes.in_context()}})


async def events(request: Request) -> Response:
    return JSONResponse(notes.noted(request.path_params["name"]))


async def our_page(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return PlainTextResponse(f"our {error.status_code}", error.status_code, error.headers)
    return PlainTextResponse(f"our 500: {type(error).__name__}", 500)


class Hooks:
    """A middleware of the kind that sees each message."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = Request(scope).query_params.get("id")

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                notes.note(name, "after")
            await send(message)

        notes.note(name, "before")
        try:
            await self.app(scope, receive, noting_send)
        finally:
            notes.note(name, "teardown")


@asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[None]:
    notes.tell("startup")
    yield
    notes.tell("shutdown")


MIDDLEWARE = [Middleware(Hooks), Middleware(SessionMiddleware, secret_key=notes.SECRET)]
HANDLERS: dict[Any, Any] = {404: our_page, 405: our_page, Exception: our_page}

app = Starlette(
    routes=[
        Route("/", index),
        Route("/hello", hello),
        Route("/items/{name}", item),
        Route("/links", links),
        Route("/redirect", redirect),
        Route("/folder/", folder),
        Route("/login", login, methods=["POST"]),
        Route("/whoami", whoami),
        Route("/cookies", cookies),
        Route("/query", query),
        Route("/upload", upload, methods=["POST"]),
        Route("/body", body, methods=["POST"]),
        Route("/steps/{name}", steps),
        Route("/steps/{name}/go", go, methods=["POST"]),
        Route("/endless/{name}", endless),
        Route("/fails", fails),
        Route("/breaks", breaks),
        Route("/isolated/{name}", isolated),
        Route("/events/{name}", events),
    ],
    middleware=MIDDLEWARE,
    exception_handlers=HANDLERS,
    lifespan=lifespan,
)
