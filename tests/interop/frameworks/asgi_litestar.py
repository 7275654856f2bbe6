"""The contract in Litestar."""
# ruff: noqa: D103 - the contract says what each view does

from __future__ import annotations

from typing import Annotated, Any

from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import Cookie, UploadFile
from litestar.enums import RequestEncodingType, ScopeType
from litestar.exceptions import HTTPException
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.params import Body
from litestar.response import Redirect, Stream
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from interop.frameworks import notes
from interop.frameworks.contract import ITEM


@get("/", media_type=MediaType.TEXT)
async def index() -> str:
    return "index"


@get("/hello", name="hello")
async def hello(request: Request[Any, Any, Any]) -> Response[str]:
    name = request.query_params.get("id")
    notes.note(name, "view")
    background = BackgroundTask(notes.note, name, "background")
    return Response("Hello, world!", media_type=MediaType.TEXT, background=background)


@get("/items/{title:str}", name="item")
async def item(title: str) -> dict[str, str]:
    return {"item": title}


@get("/links")
async def links(request: Request[Any, Any, Any]) -> dict[str, str]:
    path = request.app.route_reverse("item", title=ITEM)
    return {"path": request.scope.get("root_path", "") + path, "url": request.url_for("item", title=ITEM)}


@get("/redirect")
async def redirect(request: Request[Any, Any, Any]) -> Redirect:
    return Redirect(request.url_for("hello"))


@get("/folder/", media_type=MediaType.TEXT)
async def folder() -> str:
    return "folder"


@post("/login")
async def login(request: Request[Any, Any, Any]) -> Redirect:
    form = await request.form()
    request.set_session({"name": form["name"]})
    return Redirect(request.url_for("whoami"), status_code=303)


@get("/whoami", name="whoami")
async def whoami(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return {"name": request.session.get("name")}


@get("/cookies")
async def cookies(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    return Response(dict(request.cookies), cookies=[Cookie("first", value="1"), Cookie("second", value="2")])


@get("/query")
async def query(request: Request[Any, Any, Any]) -> dict[str, list[str]]:
    return {key: request.query_params.getall(key) for key in request.query_params}


@post("/upload", status_code=200)
async def upload(
    data: Annotated[dict[str, Any], Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    file: UploadFile = data["file"]
    return {"title": data["title"], "filename": file.filename, **notes.summary(file.file)}


@post("/body", status_code=200)
async def body(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return await notes.summary_of(request.stream())


@get("/steps/{name:str}")
async def steps(name: str) -> Stream:
    return Stream(notes.async_steps(name), media_type=MediaType.TEXT)


@post("/steps/{name:str}/go", status_code=200)
async def go(name: str) -> str:
    notes.async_go(name)
    return "gone"


@get("/endless/{name:str}")
async def endless(name: str) -> Stream:
    return Stream(notes.async_endless(name), media_type=MediaType.TEXT)


@get("/fails", sync_to_thread=True)
def fails() -> None:
    raise ValueError("in a handler")


@get("/breaks")
async def breaks() -> Stream:
    return Stream(notes.async_breaks(), media_type=MediaType.TEXT)


@get("/isolated/{name:str}")
async def isolated(name: str, party: int, request: Request[Any, Any, Any]) -> dict[str, Any]:
    before = {"state": request.state.get("name"), "context": notes.enter_context(name)}
    request.state.name = name
    await notes.async_meet(party)
    return {"before": before, "after": {"state": request.state.name, "context": notes.in_context()}}


@get("/events/{name:str}")
async def events(name: str) -> list[str]:
    return notes.noted(name)


def our_page(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
    if isinstance(error, HTTPException):
        text = f"our {error.status_code}"
        return Response(text, status_code=error.status_code, headers=error.headers, media_type=MediaType.TEXT)
    return Response(f"our 500: {type(error).__name__}", status_code=500, media_type=MediaType.TEXT)


def note_before(request: Request[Any, Any, Any]) -> None:
    notes.note(request.query_params.get("id"), "before")


async def note_response(request: Request[Any, Any, Any]) -> None:
    """When the response is out."""
    notes.note(request.query_params.get("id"), "after")


def hooks(app: ASGIApp) -> ASGIApp:
    """A middleware of the kind that sees each message."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        name = Request[Any, Any, Any](scope).query_params.get("id") if scope["type"] == ScopeType.HTTP else None

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                notes.note(name, "answered")
            await send(message)

        try:
            await app(scope, receive, noting_send)
        finally:
            notes.note(name, "teardown")

    return call


app = Litestar(
    [
        index,
        hello,
        item,
        links,
        redirect,
        folder,
        login,
        whoami,
        cookies,
        query,
        upload,
        body,
        steps,
        go,
        endless,
        fails,
        breaks,
        isolated,
        events,
    ],
    before_request=note_before,
    after_response=note_response,
    exception_handlers={HTTPException: our_page, Exception: our_page},
    middleware=[hooks, ServerSideSessionConfig().middleware],
    on_startup=[lambda: notes.tell("startup")],
    on_shutdown=[lambda: notes.tell("shutdown")],
    openapi_config=None,
)
