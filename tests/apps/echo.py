"""Gives back the request's body, read whole."""

from __future__ import annotations

from collections.abc import Iterable

from a2wsgi.wsgi_typing import Environ, StartResponse


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """As the module says."""
    body: bytes = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [body]
