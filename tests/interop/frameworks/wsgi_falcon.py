"""The contract in Falcon, as far as it goes: it has no links by name and no sessions, and leaves both to its users."""
# ruff: noqa: D103 - the contract says what each view does

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import falcon
from falcon import App, Request, Response

from interop.frameworks import notes
from interop.frameworks.contract import ITEM

Responder = Callable[..., None]


class Pages:
    """A resource with one responder."""

    def __init__(self, method: str, responder: Responder) -> None:
        setattr(self, f"on_{method}", responder)


def index(req: Request, resp: Response) -> None:
    resp.content_type, resp.text = falcon.MEDIA_TEXT, "index"


def hello(req: Request, resp: Response) -> None:
    notes.note(req.get_param("id"), "view")
    resp.content_type, resp.text = falcon.MEDIA_TEXT, "Hello, world!"


def item(req: Request, resp: Response, name: str) -> None:
    resp.media = {"item": name}


def links(req: Request, resp: Response) -> None:
    rest = quote(f"/items/{ITEM}")
    resp.media = {"path": req.root_path + rest, "url": req.prefix + rest}


def redirect(req: Request, resp: Response) -> None:
    raise falcon.HTTPFound(req.prefix + "/hello")


def folder(req: Request, resp: Response) -> None:
    resp.content_type, resp.text = falcon.MEDIA_TEXT, "folder"


def login(req: Request, resp: Response) -> None:
    resp.set_cookie("name", quote(req.get_media()["name"]), path="/", secure=False)
    raise falcon.HTTPSeeOther(req.prefix + "/whoami")


def whoami(req: Request, resp: Response) -> None:
    name = req.cookies.get("name")
    resp.media = {"name": name and unquote(name)}


def cookies(req: Request, resp: Response) -> None:
    resp.media = req.cookies
    resp.set_cookie("first", "1", secure=False)
    resp.set_cookie("second", "2", secure=False)


def query(req: Request, resp: Response) -> None:
    resp.media = {key: req.get_param_as_list(key) for key in req.params}


def upload(req: Request, resp: Response) -> None:
    told: dict[str, Any] = {}
    for part in req.get_media():
        if part.name == "title":
            told["title"] = part.text
        else:
            told |= {"filename": part.filename, **notes.summary(part.stream)}
    resp.media = told


def body(req: Request, resp: Response) -> None:
    # Falcon's bounded stream ends with a Content-Length, or at once; the server's own has its end here.
    resp.media = notes.summary(req.stream if req.content_length is None else req.bounded_stream)


def steps(req: Request, resp: Response, name: str) -> None:
    resp.stream = notes.steps(name)


def go(req: Request, resp: Response, name: str) -> None:
    notes.go(name)


def endless(req: Request, resp: Response, name: str) -> None:
    resp.stream = notes.endless(name)


def fails(req: Request, resp: Response) -> None:
    raise ValueError("in a responder")


def breaks(req: Request, resp: Response) -> None:
    resp.stream = notes.breaks()


def isolated(req: Request, resp: Response, name: str) -> None:
    before = {"context": getattr(req.context, "name", None), "thread": notes.enter(name)}
    req.context.name = name
    notes.meet(req.get_param_as_int("party", required=True))
    resp.media = {"before": before, "after": {"context": req.context.name, "thread": notes.here()}}


def events(req: Request, resp: Response, name: str) -> None:
    resp.media = notes.noted(name)


class Hooks:
    """A middleware."""

    def process_request(self, req: Request, resp: Response) -> None:
        notes.note(req.get_param("id"), "before")

    def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        notes.leave()
        notes.note(req.get_param("id"), "after")


def our_page(req: Request, resp: Response, error: Exception, params: dict[str, Any]) -> None:
    resp.content_type, resp.media = falcon.MEDIA_TEXT, None
    if isinstance(error, falcon.HTTPError):
        resp.status, resp.text = error.status, f"our {error.status_code}"
        resp.set_headers(error.headers or {})
    else:
        resp.status, resp.text = falcon.HTTP_500, f"our 500: {type(error).__name__}"


app = App(middleware=[Hooks()])
app.req_options.strip_url_path_trailing_slash = False
app.add_error_handler(Exception, our_page)
app.add_error_handler(falcon.HTTPError, our_page)
for path, method, responder in (
    ("/", "get", index),
    ("/hello", "get", hello),
    ("/items/{name}", "get", item),
    ("/links", "get", links),
    ("/redirect", "get", redirect),
    ("/folder/", "get", folder),
    ("/login", "post", login),
    ("/whoami", "get", whoami),
    ("/cookies", "get", cookies),
    ("/query", "get", query),
    ("/upload", "post", upload),
    ("/body", "post", body),
    ("/steps/{name}", "get", steps),
    ("/steps/{name}/go", "post", go),
    ("/endless/{name}", "get", endless),
    ("/fails", "get", fails),
    ("/breaks", "get", breaks),
    ("/isolated/{name}", "get", isolated),
    ("/events/{name}", "get", events),
):
    app.add_route(path, Pages(method, responder))
