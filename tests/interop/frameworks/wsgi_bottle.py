"""The contract in Bottle."""
# ruff: noqa: D103 - the contract says what each view does
# mypy: disable-error-code="import-untyped, untyped-decorator"
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# Bottle comes without types.

from __future__ import annotations

import json
from typing import Any

import bottle
from bottle import Bottle, HTTPError, request, response

from interop.frameworks import notes
from interop.frameworks.contract import ITEM

app = Bottle()


def text(body: Any) -> Any:
    response.content_type = "text/plain; charset=UTF-8"
    return body


@app.get("/")
def index() -> Any:
    return text("index")


@app.get("/hello", name="hello")
def hello() -> Any:
    notes.note(request.query.get("id"), "view")
    return text("Hello, world!")


@app.get("/items/<name>", name="item")
def item(name: str) -> Any:
    return {"item": name}


@app.get("/links")
def links() -> Any:
    path = app.get_url("item", name=ITEM)
    return {"path": path, "url": bottle.urljoin(request.url, path)}


@app.get("/redirect")
def redirect() -> Any:
    bottle.redirect(app.get_url("hello"))


@app.get("/folder/")
def folder() -> Any:
    return text("folder")


@app.post("/login")
def login() -> Any:
    response.set_cookie("name", request.forms.name, secret=notes.SECRET, path="/")
    bottle.redirect(app.get_url("whoami"), 303)


@app.get("/whoami", name="whoami")
def whoami() -> Any:
    return {"name": request.get_cookie("name", secret=notes.SECRET)}


@app.get("/cookies")
def cookies() -> Any:
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return dict(request.cookies)


@app.get("/query")
def query() -> Any:
    return {key: request.query.decode().getall(key) for key in request.query}


@app.post("/upload")
def upload() -> Any:
    file = request.files["file"]
    return {"title": request.forms.title, "filename": file.raw_filename, **notes.summary(file.file)}


@app.post("/body")
def body() -> Any:
    return notes.summary(request.body)


@app.get("/steps/<name>")
def steps(name: str) -> Any:
    return text(notes.steps(name))


@app.post("/steps/<name>/go")
def go(name: str) -> Any:
    notes.go(name)
    return "gone"


@app.get("/endless/<name>")
def endless(name: str) -> Any:
    return text(notes.endless(name))


@app.get("/fails")
def fails() -> Any:
    raise ValueError("in a view")


@app.get("/breaks")
def breaks() -> Any:
    return text(notes.breaks())


@app.get("/isolated/<name>")
def isolated(name: str) -> Any:
    before = {"request": getattr(request, "own_name", None), "thread": notes.enter(name)}
    request.own_name = name
    notes.meet(int(request.query["party"]))
    told = {"before": before, "after": {"request": request.own_name, "thread": notes.here()}}
    notes.leave()  # Bottle has no hook that would run at the end whatever happens
    return told


@app.get("/events/<name>")
def events(name: str) -> Any:
    response.content_type = "application/json"
    return json.dumps(notes.noted(name))


@app.error(404)
def our_404(error: HTTPError) -> Any:
    return text("our 404")


@app.error(405)
def our_405(error: HTTPError) -> Any:
    return text("our 405")


@app.error(500)
def our_500(error: HTTPError) -> Any:
    return text(f"our 500: {type(error.exception).__name__}")


@app.hook("before_request")
def note_before() -> None:
    notes.note(request.query.get("id"), "before")


@app.hook("after_request")
def note_after() -> None:
    notes.note(request.query.get("id"), "after")
