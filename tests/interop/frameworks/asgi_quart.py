"""The contract in Quart."""
# ruff: noqa: D103 - the contract says what each view does

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import quart
from quart import Quart, Response
from werkzeug.exceptions import HTTPException

from interop.frameworks import notes
from interop.frameworks.contract import ITEM

#: Quart-Trio has a class of its own; all else is the same.
QuartOrTrio: Any = import_module("quart_trio").QuartTrio if os.environ["A2WSGI_TEST_APP"].endswith("_trio") else Quart

app: Quart = QuartOrTrio(__name__)
app.secret_key = notes.SECRET


def request_id() -> str | None:
    """The name for which the hooks note something."""
    return quart.request.args.get("id")


def text(body: Any) -> Response:
    return Response(body, mimetype="text/plain")


async def with_request(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, if the request is still there at each of them."""
    async for piece in pieces:
        assert quart.request.endpoint == "steps"
        yield piece


@app.get("/")
async def index() -> Response:
    return text("index")


@app.get("/hello")
async def hello() -> Response:
    notes.note(request_id(), "view")
    return text("Hello, world!")


@app.get("/items/<name>")
async def item(name: str) -> dict[str, str]:
    return {"item": name}


@app.get("/links")
async def links() -> dict[str, str]:
    return {
        "path": quart.url_for("item", name=ITEM),
        "url": quart.url_for("item", name=ITEM, _external=True),
    }


@app.get("/redirect")
async def redirect() -> Any:
    return quart.redirect(quart.url_for("hello"))


@app.get("/folder/")
async def folder() -> Response:
    return text("folder")


@app.post("/login")
async def login() -> Any:
    form = await quart.request.form
    quart.session["name"] = form["name"]
    return quart.redirect(quart.url_for("whoami"), 303)


@app.get("/whoami")
def whoami() -> dict[str, Any]:
    """A plain function: Quart runs it in a thread."""
    return {"name": quart.session.get("name")}


@app.get("/cookies")
async def cookies() -> Response:
    response = quart.jsonify(quart.request.cookies.to_dict())
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return response


@app.get("/query")
async def query() -> dict[str, list[str]]:
    return quart.request.args.to_dict(flat=False)


@app.post("/upload")
async def upload() -> dict[str, Any]:
    form, files = await quart.request.form, await quart.request.files
    return {"title": form["title"], "filename": files["file"].filename, **notes.summary(files["file"].stream)}


@app.post("/body")
async def body() -> dict[str, Any]:
    return await notes.summary_of(quart.request.body)


@app.get("/steps/<name>")
async def steps(name: str) -> Response:
    return text(quart.stream_with_context(with_request)(notes.async_steps(name)))


@app.post("/steps/<name>/go")
async def go(name: str) -> str:
    notes.async_go(name)
    return "gone"


@app.get("/endless/<name>")
async def endless(name: str) -> Response:
    response = text(notes.async_endless(name))
    response.timeout = None
    return response


@app.get("/fails")
async def fails() -> str:
    raise ValueError("in a view")


@app.get("/breaks")
async def breaks() -> Response:
    return text(notes.async_breaks())


@app.get("/isolated/<name>")
async def isolated(name: str) -> dict[str, Any]:
    before = {"g": quart.g.get("name"), "context": notes.enter_context(name)}
    quart.g.name = name
    await notes.async_meet(int(quart.request.args["party"]))
    return {"before": before, "after": {"g": quart.g.name, "context": notes.in_context()}}


@app.get("/events/<name>")
async def events(name: str) -> Response:
    return quart.jsonify(notes.noted(name))


@app.before_request
async def note_before() -> None:
    notes.note(request_id(), "before")


@app.after_request
async def note_after(response: Any) -> Any:
    notes.note(request_id(), "after")
    return response


@app.teardown_request
async def note_teardown(error: BaseException | None) -> None:
    notes.note(request_id(), "teardown")


@app.errorhandler(Exception)
async def our_page(error: Exception) -> Any:
    if not isinstance(error, HTTPException):
        return text(f"our 500: {type(error).__name__}"), 500
    if error.code in {404, 405}:
        response = Response(f"our {error.code}", error.code)
        response.allow.update(getattr(error, "valid_methods", None) or ())
        return response
    return error


@app.before_serving
async def startup() -> None:
    notes.tell("startup")


@app.after_serving
async def shutdown() -> None:
    notes.tell("shutdown")
