"""The contract in Connexion. Its operations stand in an OpenAPI document; beneath it is Starlette."""
# ruff: noqa: D103 - the contract says what each operation does
# mypy: disable-error-code="import-untyped"
# pyright: reportArgumentType=false
# Connexion comes without types.

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from connexion import AsyncApp, request
from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from connexion.middleware import MiddlewarePosition
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse

from interop.frameworks import notes
from interop.frameworks.asgi_starlette import Hooks, lifespan
from interop.frameworks.contract import ITEM


def url_of(path: str) -> Any:
    """Connexion's operations have no names to make links of; what stands before their paths is told by the request."""
    url: Any = request.url
    return url.replace(path=request.scope["root_path"] + path, query="")


async def index() -> Response:
    return PlainTextResponse("index")


async def hello() -> Response:
    notes.note(request.query_params.get("id"), "view")
    return PlainTextResponse("Hello, world!")


async def item(name: str) -> dict[str, Any]:
    return {"item": name}


async def links() -> dict[str, Any]:
    url = url_of(f"/items/{quote(ITEM)}")
    return {"path": url.path, "url": str(url)}


async def redirect() -> Response:
    return RedirectResponse(url_of("/hello"))


async def folder() -> Response:
    return PlainTextResponse("folder")


async def login(body: dict[str, Any]) -> Response:
    request.session["name"] = body["name"]
    return RedirectResponse(url_of("/whoami"), 303)


async def whoami() -> dict[str, Any]:
    return {"name": request.session.get("name")}


async def cookies() -> Response:
    response = JSONResponse(request.cookies)
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return response


async def query(a: list[str], b: list[str]) -> dict[str, Any]:
    return {"a": a, "b": b}


async def upload(body: dict[str, Any], file: Any) -> dict[str, Any]:
    return {"title": body["title"], "filename": file.filename, **notes.summary(file.file)}


async def body() -> dict[str, Any]:
    return await notes.summary_of(request.stream())


async def steps(name: str) -> Response:
    return StreamingResponse(notes.async_steps(name), media_type="text/plain")


async def go(name: str) -> str:
    notes.async_go(name)
    return "gone"


async def endless(name: str) -> Response:
    return StreamingResponse(notes.async_endless(name), media_type="text/plain")


def fails() -> None:
    raise ValueError("in an operation")


async def breaks() -> Response:
    return StreamingResponse(notes.async_breaks(), media_type="text/plain")


async def isolated(name: str, party: int) -> dict[str, Any]:
    before = {"context": request.context.get("name"), "task": notes.enter_context(name)}
    request.context["name"] = name
    await notes.async_meet(party)
    return {"before": before, "after": {"context": request.context["name"], "task": notes.in_context()}}


async def events(name: str) -> list[str]:
    return notes.noted(name)


async def our_page(_: ConnexionRequest, error: Exception) -> ConnexionResponse:
    if isinstance(error, HTTPException):
        return ConnexionResponse(
            error.status_code, "text/plain", body=f"our {error.status_code}", headers=error.headers
        )
    return ConnexionResponse(500, "text/plain", body=f"our 500: {type(error).__name__}")


def parameter(name: str, place: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def form(kind: str, **fields: dict[str, str]) -> dict[str, Any]:
    return {"content": {kind: {"schema": {"type": "object", "properties": fields}}}}


def strings(*, kind: str = "string") -> dict[str, Any]:
    return {"type": "array", "items": {"type": kind}}


TEXT = {"type": "string"}
PATHS: dict[str, dict[str, Any]] = {
    "/": {"get": {"operationId": "index"}},
    "/hello": {"get": {"operationId": "hello", "parameters": [parameter("id", "query", **TEXT)]}},
    "/items/{name}": {"get": {"operationId": "item"}},
    "/links": {"get": {"operationId": "links"}},
    "/redirect": {"get": {"operationId": "redirect"}},
    "/folder/": {"get": {"operationId": "folder"}},
    "/login": {"post": {"operationId": "login", "requestBody": form("application/x-www-form-urlencoded", name=TEXT)}},
    "/whoami": {"get": {"operationId": "whoami"}},
    "/cookies": {"get": {"operationId": "cookies"}},
    "/query": {
        "get": {
            "operationId": "query",
            "parameters": [parameter("a", "query", **strings()), parameter("b", "query", **strings())],
        }
    },
    "/upload": {
        "post": {
            "operationId": "upload",
            "requestBody": form("multipart/form-data", title=TEXT, file={"type": "string", "format": "binary"}),
        }
    },
    "/body": {"post": {"operationId": "body"}},
    "/steps/{name}": {"get": {"operationId": "steps"}},
    "/steps/{name}/go": {"post": {"operationId": "go"}},
    "/endless/{name}": {"get": {"operationId": "endless"}},
    "/fails": {"get": {"operationId": "fails"}},
    "/breaks": {"get": {"operationId": "breaks"}},
    "/isolated/{name}": {
        "get": {"operationId": "isolated", "parameters": [parameter("party", "query", type="integer")]}
    },
    "/events/{name}": {"get": {"operationId": "events"}},
}
for path, item_of in PATHS.items():
    for operation in item_of.values():
        operation["operationId"] = f"{__name__}.{operation['operationId']}"
        operation["responses"] = {"200": {"description": "as the contract says"}}
    if "{name}" in path:
        item_of["parameters"] = [parameter("name", "path", **TEXT)]

app = AsyncApp(__name__, lifespan=lifespan)
app.add_middleware(Hooks, position=MiddlewarePosition.BEFORE_EXCEPTION)
app.add_middleware(SessionMiddleware, position=MiddlewarePosition.BEFORE_EXCEPTION, secret_key=notes.SECRET)
app.add_api({"openapi": "3.0.3", "info": {"title": "contract", "version": "1"}, "paths": PATHS})
for code in (404, 405, Exception):
    app.add_error_handler(code, our_page)
