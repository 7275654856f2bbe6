"""The contract in FastAPI. Some of its views are plain functions, which run in threads."""
# ruff: noqa: D103 - the contract says what each view does

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import BackgroundTasks, Cookie, Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse

from interop.frameworks import notes
from interop.frameworks.asgi_starlette import HANDLERS, MIDDLEWARE, lifespan
from interop.frameworks.contract import ITEM


async def note_teardown(id_: Annotated[str | None, Query(alias="id")] = None) -> AsyncIterator[None]:
    """A dependency that runs on after the response, or after an error."""
    try:
        yield
    finally:
        notes.note(id_, "dependency")


app = FastAPI(
    middleware=MIDDLEWARE,
    exception_handlers=HANDLERS,
    lifespan=lifespan,
    dependencies=[Depends(note_teardown)],
)


@app.middleware("http")
async def note_around(request: Request, call_next: Callable[[Request], Any]) -> Response:
    """A middleware of the kind that FastAPI's documentation shows."""
    name = request.query_params.get("id")
    notes.note(name, "called")
    response: Response = await call_next(request)
    notes.note(name, "answered")
    return response


@app.get("/", response_class=PlainTextResponse)
async def index() -> str:
    return "index"


@app.get("/hello", response_class=PlainTextResponse)
def hello(background: BackgroundTasks, id_: Annotated[str | None, Query(alias="id")] = None) -> str:
    notes.note(id_, "view")
    background.add_task(notes.note, id_, "background")
    return "Hello, world!"


@app.get("/items/{name}")
async def item(name: str) -> dict[str, str]:
    return {"item": name}


@app.get("/links")
async def links(request: Request) -> dict[str, str]:
    url = request.url_for("item", name=ITEM)
    return {"path": url.path, "url": str(url)}


@app.get("/redirect")
async def redirect(request: Request) -> RedirectResponse:
    return RedirectResponse(request.url_for("hello"))


@app.get("/folder/", response_class=PlainTextResponse)
async def folder() -> str:
    return "folder"


@app.post("/login")
async def login(request: Request, name: Annotated[str, Form()]) -> RedirectResponse:
    request.session["name"] = name
    return RedirectResponse(request.url_for("whoami"), 303)


@app.get("/whoami")
async def whoami(request: Request) -> dict[str, Any]:
    return {"name": request.session.get("name")}


@app.get("/cookies")
async def cookies(
    response: Response,
    first: Annotated[str | None, Cookie()] = None,
    second: Annotated[str | None, Cookie()] = None,
) -> dict[str, str]:
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return {key: value for key, value in {"first": first, "second": second}.items() if value is not None}


@app.get("/query")
async def query(a: Annotated[list[str], Query()], b: Annotated[list[str], Query()]) -> dict[str, list[str]]:
    return {"a": a, "b": b}


@app.post("/upload")
def upload(title: Annotated[str, Form()], file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    return {"title": title, "filename": file.filename, **notes.summary(file.file)}


@app.post("/body")
async def body(request: Request) -> dict[str, Any]:
    return await notes.summary_of(request.stream())


@app.get("/steps/{name}")
async def steps(name: str) -> StreamingResponse:
    return StreamingResponse(notes.async_steps(name), media_type="text/plain")


@app.post("/steps/{name}/go")
async def go(name: str) -> str:
    notes.async_go(name)
    return "gone"


@app.get("/endless/{name}")
def endless(name: str) -> StreamingResponse:
    return StreamingResponse(notes.async_endless(name), media_type="text/plain")


@app.get("/fails")
def fails() -> None:
    raise ValueError("in an operation")


@app.get("/breaks")
async def breaks() -> StreamingResponse:
    return StreamingResponse(notes.async_breaks(), media_type="text/plain")


@app.get("/isolated/{name}")
async def isolated(name: str, party: int, request: Request) -> dict[str, Any]:
    before = {"state": getattr(request.state, "name", None), "context": notes.enter_context(name)}
    request.state.name = name
    await notes.async_meet(party)
    return {"before": before, "after": {"state": request.state.name, "context": notes.in_context()}}


@app.get("/events/{name}")
async def events(name: str) -> list[str]:
    return notes.noted(name)
