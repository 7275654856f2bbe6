"""What the servers of `test_multiprocess` serve."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from a2wsgi import WSGIMiddleware


def said(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Answer with what the environ says."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(environ["wsgi.multiprocess"]).encode()]


application = WSGIMiddleware(said)
