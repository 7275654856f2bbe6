"""The plainest app: one piece, and no word of its length."""

from __future__ import annotations

from collections.abc import Iterable

from a2wsgi.wsgi_typing import Environ, StartResponse


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """As the module says."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
