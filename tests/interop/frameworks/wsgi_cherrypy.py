"""The contract in CherryPy."""
# ruff: noqa: D103 - the contract says what each view does
# mypy: disable-error-code="import-untyped, untyped-decorator"
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# CherryPy comes without types.

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote

import cherrypy

from interop.frameworks import notes
from interop.frameworks.contract import ITEM


def text(body: Any) -> Any:
    cherrypy.response.headers["Content-Type"] = "text/plain; charset=UTF-8"
    return body


def request_id() -> str | None:
    name: str | None = cherrypy.request.params.get("id")
    return name


class Folder:
    @cherrypy.expose
    def index(self) -> Any:
        return text("folder")


class Pages:
    folder = Folder()

    @cherrypy.expose
    def index(self) -> Any:
        return text("index")

    @cherrypy.expose
    @cherrypy.tools.allow(methods=["GET", "HEAD"])
    def hello(self, **_: str) -> Any:
        notes.note(request_id(), "view")
        return text("Hello, world!")

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def items(self, name: str) -> Any:
        return {"item": name}

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def links(self) -> Any:
        rest = quote(f"/items/{ITEM}")
        return {"path": cherrypy.url(rest, relative="server"), "url": cherrypy.url(rest)}

    @cherrypy.expose
    def redirect(self) -> Any:
        raise cherrypy.HTTPRedirect(cherrypy.url("/hello"))

    @cherrypy.expose
    @cherrypy.tools.allow(methods=["POST"])
    def login(self, name: str) -> Any:
        cherrypy.session["name"] = name
        raise cherrypy.HTTPRedirect(cherrypy.url("/whoami"), 303)

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def whoami(self) -> Any:
        return {"name": cherrypy.session.get("name")}

    @cherrypy.expose
    @cherrypy.tools.json_out()
    @cherrypy.tools.sessions(on=False)
    def cookies(self) -> Any:
        cherrypy.response.cookie["first"] = "1"
        cherrypy.response.cookie["second"] = "2"
        return {key: morsel.value for key, morsel in cherrypy.request.cookie.items()}

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def query(self, **parameters: Any) -> Any:
        return {key: value if isinstance(value, list) else [value] for key, value in parameters.items()}

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def upload(self, title: str, file: Any) -> Any:
        return {"title": title, "filename": file.filename, **notes.summary(file.file)}

    @cherrypy.expose
    @cherrypy.tools.json_out()
    @cherrypy.config(**{"request.process_request_body": False})
    def body(self) -> Any:
        return notes.summary(cherrypy.request.rfile)

    @cherrypy.expose
    @cherrypy.config(**{"response.stream": True})
    def steps(self, name: str, action: str | None = None) -> Any:
        if action is None:
            return text(notes.steps(name))
        notes.go(name)
        return text("gone")

    @cherrypy.expose
    @cherrypy.config(**{"response.stream": True})
    def endless(self, name: str, **_: str) -> Any:
        return text(notes.endless(name))

    @cherrypy.expose
    def fails(self, **_: str) -> Any:
        raise ValueError("in a handler")

    @cherrypy.expose
    @cherrypy.config(**{"response.stream": True})
    def breaks(self) -> Any:
        return text(notes.breaks())

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def isolated(self, name: str, party: str) -> Any:
        before = {"request": getattr(cherrypy.request, "own_name", None), "thread": notes.enter(name)}
        cherrypy.request.own_name = name
        notes.meet(int(party))
        return {"before": before, "after": {"request": cherrypy.request.own_name, "thread": notes.here()}}

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def events(self, name: str) -> Any:
        return notes.noted(name)


def our_page(status: str, **_: object) -> str:
    code = status[:3]
    kind = sys.exc_info()[0]
    return f"our {code}: {kind and kind.__name__}" if code == "500" else f"our {code}"


def noting(event: str) -> Any:
    return lambda: notes.note(request_id(), event)


def end() -> None:
    notes.leave()
    notes.note(request_id(), "teardown")


cherrypy.config.update({"environment": "embedded"})
app = cherrypy.Application(
    Pages(),
    None,  # where it is mounted is in each request
    {
        "/": {
            "tools.sessions.on": True,
            "error_page.default": our_page,
            "hooks.before_handler": noting("before"),
            "hooks.before_finalize": noting("after"),
            "hooks.after_error_response": noting("error"),
            "hooks.on_end_request": end,
        }
    },
)
