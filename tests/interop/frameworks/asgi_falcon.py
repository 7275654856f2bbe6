"""The contract in Falcon, as far as it goes: it has no links by name and no sessions, and leaves both to its users."""
# ruff: noqa: D103 - the contract says what each view does

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote

import falcon
from falcon.asgi import App, Request, Response

from interop.frameworks import notes
from interop.frameworks.contract import ITEM

Responder = Callable[..., Awaitable[None]]


class Pages:
    """A resource with one responder."""

    def __init__(self, method: str, responder: Responder) -> None:
        setattr(self, f"on_{method}", responder)


async def index(req: Request, resp: Response) -> None:
    resp.content_type, resp.text = falcon.MEDIA_TEXT, "index"


async def hello(req: Request, resp: Response) -> None:
    name = req.get_param("id")
    notes.note(name, "view")
    resp.content_type, resp.text = falcon.MEDIA_TEXT, "Hello, world!"
    resp.schedule_sync(lambda: notes.note(name, "background"))


async def item(req: Request, resp: Response, name: str) -> None:
    resp.media = {"item": name}


async def links(req: Request, resp: Response) -> None:
    rest = quote(f"/items/{ITEM}")
    resp.media = {"path": req.root_path + rest, "url": req.prefix + rest}


async def redirect(req: Request, resp: Response) -> None:
    raise falcon.HTTPFound(req.prefix + "/hello")


async def folder(req: Request, resp: Response) -> None:
    resp.content_type, resp.text = falcon.MEDIA_TEXT, "folder"


async def login(req: Request, resp: Response) -> None:
    form = await req.get_media()
    resp.set_cookie("name", quote(form["name"]), path="/", secure=False)
    raise falcon.HTTPSeeOther(req.prefix + "/whoami")


async def whoami(req: Request, resp: Response) -> None:
    name = req.cookies.get("name")
    resp.media = {"name": name and unquote(name)}


async def cookies(req: Request, resp: Response) -> None:
    resp.media = req.cookies
    resp.set_cookie("first", "1", secure=False)
    resp.set_cookie("second", "2", secure=False)


async def query(req: Request, resp: Response) -> None:
    resp.media = {key: req.get_param_as_list(key) for key in req.params}


async def upload(req: Request, resp: Response) -> None:
    told: dict[str, Any] = {}
    async for part in await req.get_media():
        if part.name == "title":
            told["title"] = await part.text
        else:
            told |= {"filename": part.filename, **await notes.summary_of(part.stream)}
    resp.media = told


async def body(req: Request, resp: Response) -> None:
    resp.media = await notes.summary_of(req.stream)


async def steps(req: Request, resp: Response, name: str) -> None:
    resp.content_type, resp.stream = falcon.MEDIA_TEXT, notes.async_steps(name)


async def go(req: Request, resp: Response, name: str) -> None:
    notes.async_go(name)


async def endless(req: Request, resp: Response, name: str) -> None:
    resp.content_type, resp.stream = falcon.MEDIA_TEXT, notes.async_endless(name)


async def fails(req: Request, resp: Response) -> None:
    raise ValueError("in a responder")


async def breaks(req: Request, resp: Response) -> None:
    resp.content_type, resp.stream = falcon.MEDIA_TEXT, notes.async_breaks()


async def isolated(req: Request, resp: Response, name: str) -> None:
    before = {"context": getattr(req.context, "name", None), "task": notes.enter_context(name)}
    req.context.name = name
    await notes.async_meet(req.get_param_as_int("party", required=True))
    resp.media = {"before": before, "after": {"context": req.context.name, "task": notes.in_context()}}


async def events(req: Request, resp: Response, name: str) -> None:
    resp.media = notes.noted(name)


class Hooks:
    """A middleware."""

    async def process_startup(self, scope: object, event: object) -> None:
        notes.tell("startup")

    async def process_shutdown(self, scope: object, event: object) -> None:
        notes.tell("shutdown")

    async def process_request(self, req: Request, resp: Response) -> None:
        notes.note(req.get_param("id"), "before")

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        notes.note(req.get_param("id"), "after")


async def our_page(req: Request, resp: Response, error: Exception, params: dict[str, Any]) -> None:
    resp.content_type, resp.media = falcon.MEDIA_TEXT, None
    if isinstance(error, falcon.HTTPError):
        resp.status, resp.text = error.status, f"our {error.status_code}"
        resp.set_headers(error.headers or {})
    else:
        resp.status, resp.text = falcon.HTTP_500, f"our 500: {type(error).__name__}"


ROUTES: dict[str, tuple[str, Responder]] = {
    "/": ("get", index),
    "/hello": ("get", hello),
    "/items/{name}": ("get", item),
    "/links": ("get", links),
    "/redirect": ("get", redirect),
    "/folder/": ("get", folder),
    "/login": ("post", login),
    "/whoami": ("get", whoami),
    "/cookies": ("get", cookies),
    "/query": ("get", query),
    "/upload": ("post", upload),
    "/body": ("post", body),
    "/steps/{name}": ("get", steps),
    "/steps/{name}/go": ("post", go),
    "/endless/{name}": ("get", endless),
    "/fails": ("get", fails),
    "/breaks": ("get", breaks),
    "/isolated/{name}": ("get", isolated),
    "/events/{name}": ("get", events),
}


def make(prefix: str) -> App[Request, Response]:
    """An app whose routes begin with the prefix under which it is mounted: Falcon looks for the whole path."""
    app = App(middleware=[Hooks()])
    app.req_options.strip_url_path_trailing_slash = False
    app.add_error_handler(Exception, our_page)
    app.add_error_handler(falcon.HTTPError, our_page)
    for path, (method, responder) in ROUTES.items():
        app.add_route(prefix + path, Pages(method, responder))
    return app


app = make("")
mounted = make(notes.PREFIX)
