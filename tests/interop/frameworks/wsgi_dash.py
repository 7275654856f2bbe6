"""A Dash app under a bridge: at the root, and mounted in a Starlette and in a FastAPI.

Its page has a callback for each thing that a browser and a Dash server tell each other.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import flask
from dash import Dash, Input, Output, dcc, html
from dash.exceptions import PreventUpdate
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from a2wsgi import WSGIMiddleware

#: How many callbacks one change calls at once.
FAN = 10


def make(prefix: str) -> Any:
    """The Flask of a Dash app that is mounted at a prefix, which ends with a slash."""
    app = Dash(__name__, requests_pathname_prefix=prefix)
    app.server.secret_key = "none"
    app.layout = html.Div(
        [
            dcc.Location(id="location"),
            dcc.Link("about", id="about", href=app.get_relative_path("/about")),  # type: ignore[no-untyped-call]  # Dash's
            html.Div(id="page"),
            dcc.Input(id="name", value="nobody"),
            html.Div(id="greeting"),
            *(html.Div(id=f"fan-{number}") for number in range(FAN)),
            dcc.Upload(html.Button("upload"), id="upload"),
            html.Div(id="uploaded"),
            html.Button("fail", id="fail", n_clicks=0),
            html.Div(id="failed"),
        ]
    )

    @app.callback(Output("page", "children"), Input("location", "pathname"))
    def show_page(path: str) -> str:
        return f"page {app.strip_relative_path(path)!r} for {flask.session.get('name')}"

    @app.callback(Output("greeting", "children"), Input("name", "value"))
    def greet(name: str) -> str:
        flask.session["name"] = name
        return f"Hello, {name}!"

    for number in range(FAN):

        @app.callback(Output(f"fan-{number}", "children"), Input("greeting", "children"))
        def fan_out(greeting: str, number: int = number) -> str:
            return f"{number}: {greeting}"

    @app.callback(Output("uploaded", "children"), Input("upload", "contents"))
    def upload(contents: str | None) -> str:
        if contents is None:
            raise PreventUpdate
        return hashlib.sha256(base64.b64decode(contents.partition(",")[2])).hexdigest()

    @app.callback(Output("failed", "children"), Input("fail", "n_clicks"))
    def fail(clicks: int) -> str:
        if clicks == 1:
            raise ValueError("in a callback")
        return f"clicked {clicks} times"

    return app.server


root = WSGIMiddleware(make("/"))
starlette = Starlette(routes=[Mount("/base", WSGIMiddleware(make("/base/"))), Mount("/", root)])
application = FastAPI(openapi_url=None)
application.mount("/api/v1", WSGIMiddleware(make("/api/v1/")))
application.mount("/", starlette)
