"""Serves the WSGI app that ``A2WSGI_TEST_APP`` names under a bridge: at the root, and mounted in two frameworks.

All of them share the app, and the process: where an app is mounted is told by each request. ``/collect`` collects the
garbage: some frameworks keep a request, with its files, in a cycle.
"""

from __future__ import annotations

import gc
import importlib
import os
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from a2wsgi import WSGIMiddleware

module, _, attribute = os.environ["A2WSGI_TEST_APP"].partition(":")
app = getattr(importlib.import_module(module), attribute)

root = WSGIMiddleware(app)
starlette = Starlette(
    routes=[Mount("/base", WSGIMiddleware(app)), Mount("/spooled", WSGIMiddleware(app, spool_request=True))]
)
fastapi = FastAPI()
fastapi.mount("/api/v1", WSGIMiddleware(app))

PREFIXES = {"/base/": starlette, "/spooled/": starlette, "/api/": fastapi}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Pass a request on to what has its path."""
    path = scope.get("path", "")
    if path == "/collect":
        gc.collect()
        await PlainTextResponse()(scope, receive, send)
        return
    found = next((mounted for prefix, mounted in PREFIXES.items() if path.startswith(prefix)), root)
    await found(scope, receive, send)
