"""The Flask app that `through_servers` loads: one view, 13 bytes."""

from __future__ import annotations

import flask

wsgi = flask.Flask(__name__)


@wsgi.get("/")
def hello() -> flask.Response:
    """Answer with 13 bytes and a length."""
    return flask.Response("Hello, world!", mimetype="text/plain")
