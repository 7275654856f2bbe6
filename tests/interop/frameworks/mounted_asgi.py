"""Serves the ASGI app that ``A2WSGI_TEST_APP`` names under a bridge: at the root, and mounted by a WSGI dispatcher.

Both share the bridge, and with it the app's lifespan: where an app is mounted is told by each request. A framework that
does not listen to that has another app beside it, as ``mounted``. ``/collect`` collects the garbage.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Iterable
from typing import Any

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from a2wsgi import ASGIMiddleware
from interop.frameworks.notes import PREFIX

app = importlib.import_module(os.environ["A2WSGI_TEST_APP"])

options = getattr(app, "OPTIONS", {})
root = ASGIMiddleware(app.app, **options)
mounted = ASGIMiddleware(app.mounted, **options) if hasattr(app, "mounted") else root


def collect(_: Any, start_response: Any) -> Iterable[bytes]:
    """Collect the garbage: some frameworks keep a request, with its files, in a cycle."""
    gc.collect()
    start_response("204 No Content", [])
    return []


application = DispatcherMiddleware(root, {PREFIX: mounted, "/collect": collect})
