"""The contract in Flask."""
# ruff: noqa: D103 - the contract says what each view does

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import flask
from werkzeug.exceptions import HTTPException

from interop.frameworks import notes
from interop.frameworks.contract import ITEM

View = Callable[..., Any]

pages = flask.Blueprint("pages", __name__)


def request_id() -> str | None:
    """The name for which the hooks note something."""
    return flask.request.args.get("id")


def text(body: str | Any) -> flask.Response:
    """A response that is plain text."""
    return flask.Response(body, mimetype="text/plain")


def with_request(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same, if the request is still there at each of them."""
    for piece in pieces:
        assert flask.request.endpoint == "pages.steps"
        yield piece


@pages.get("/")
def index() -> flask.Response:
    return text("index")


@pages.get("/hello")
def hello() -> flask.Response:
    notes.note(request_id(), "view")
    return text("Hello, world!")


@pages.get("/items/<name>")
def item(name: str) -> dict[str, str]:
    return {"item": name}


@pages.get("/links")
def links() -> dict[str, str]:
    return {
        "path": flask.url_for("pages.item", name=ITEM),
        "url": flask.url_for("pages.item", name=ITEM, _external=True),
    }


@pages.get("/redirect")
def redirect() -> Any:
    return flask.redirect(flask.url_for("pages.hello"))


@pages.get("/folder/")
def folder() -> flask.Response:
    return text("folder")


@pages.post("/login")
def login() -> Any:
    flask.session["name"] = flask.request.form["name"]
    return flask.redirect(flask.url_for("pages.whoami"), 303)


@pages.get("/whoami")
def whoami() -> dict[str, Any]:
    return {"name": flask.session.get("name")}


@pages.get("/cookies")
def cookies() -> flask.Response:
    response = flask.jsonify(flask.request.cookies.to_dict())
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return response


@pages.get("/query")
def query() -> dict[str, list[str]]:
    return flask.request.args.to_dict(flat=False)


@pages.post("/upload")
def upload() -> dict[str, Any]:
    file = flask.request.files["file"]
    return {"title": flask.request.form["title"], "filename": file.filename, **notes.summary(file.stream)}


@pages.post("/body")
def body() -> dict[str, Any]:
    return notes.summary(flask.request.stream)


@pages.get("/steps/<name>")
def steps(name: str) -> flask.Response:
    return text(flask.stream_with_context(with_request(notes.steps(name))))


@pages.post("/steps/<name>/go")
def go(name: str) -> str:
    notes.go(name)
    return "gone"


@pages.get("/endless/<name>")
def endless(name: str) -> flask.Response:
    return text(notes.endless(name))


@pages.get("/fails")
def fails() -> str:
    raise ValueError("in a view")


@pages.get("/breaks")
def breaks() -> flask.Response:
    return text(notes.breaks())


@pages.get("/isolated/<name>")
def isolated(name: str) -> dict[str, Any]:
    before = {"g": flask.g.get("name"), "thread": notes.enter(name)}
    flask.g.name = name
    notes.meet(flask.request.args.get("party", 1, int))
    return {"before": before, "after": {"g": flask.g.name, "thread": notes.here(), "view": name}}


@pages.get("/events/<name>")
def events(name: str) -> Any:
    return flask.jsonify(notes.noted(name))


def note_before() -> None:
    notes.note(request_id(), "before")


def note_after(response: flask.Response) -> flask.Response:
    notes.note(name := request_id(), "after")
    response.call_on_close(lambda: notes.note(name, "closed"))
    return response


def note_teardown(error: BaseException | None) -> None:
    notes.leave()
    notes.note(request_id(), "teardown")


def our_page(error: Exception) -> tuple[flask.Response, int] | flask.Response:
    if not isinstance(error, HTTPException):
        return text(f"our 500: {type(error).__name__}"), 500
    if error.code in {404, 405}:
        response = flask.Response(f"our {error.code}", error.code)
        response.allow.update(getattr(error, "valid_methods", None) or ())
        return response
    raise error


def make(adapt: Callable[[View], View]) -> flask.Flask:
    """A Flask with these pages and hooks, each view of them adapted."""
    app = flask.Flask(__name__)
    app.secret_key = notes.SECRET
    app.register_blueprint(pages)
    app.view_functions = {name: adapt(view) for name, view in app.view_functions.items()}
    app.before_request(note_before)
    app.after_request(note_after)
    app.teardown_request(note_teardown)
    app.register_error_handler(Exception, our_page)
    return app


app = make(lambda view: view)
