"""A pytest plugin: has the test clients of the frameworks call their apps behind two bridges.

It does nothing unless the environment variable ``DOUBLE_BRIDGE`` is set. An ASGI app is called as
``WSGIMiddleware(ASGIMiddleware(app))``, a WSGI app as ``ASGIMiddleware(WSGIMiddleware(app))``.

A WebSocket goes to the app itself: no WSGI server has a word for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from a2wsgi import ASGIMiddleware, WSGIMiddleware

if TYPE_CHECKING:
    import pytest


class BridgedASGI:
    """An ASGI app behind two bridges, with the attributes of the app."""

    def __init__(self, app: Any) -> None:
        self.__dict__["_app"] = app
        self.__dict__["_bridge"] = WSGIMiddleware(ASGIMiddleware(app))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._app, name, value)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        await (self._app if scope["type"] == "websocket" else self._bridge)(scope, receive, send)


def bridged_wsgi(app: Any) -> Any:
    """A WSGI app behind two bridges."""
    return ASGIMiddleware(WSGIMiddleware(app))


def patch_starlette() -> None:
    """``TestClient``, of Starlette and of FastAPI."""
    with contextlib.suppress(ImportError):
        from starlette import testclient

        original = testclient.TestClient.__init__

        def init(self: Any, app: Any, *args: Any, **options: Any) -> None:
            original(self, app, *args, **options)
            # What it has made of the app: an ASGI 2 app is one of ASGI 3 by now.
            transport = self._transport
            transport.app = self.app = BridgedASGI(transport.app)

        testclient.TestClient.__init__ = init


def patch_werkzeug() -> None:
    """``Client``, of Werkzeug and of Flask."""
    with contextlib.suppress(ImportError):
        from werkzeug import test

        original = test.run_wsgi_app

        def run_wsgi_app(app: Any, environ: Any, buffered: bool = False) -> Any:
            # An app may run another, such as an error, on its own environ: that is behind the bridges already.
            return original(app if "asgi.scope" in environ else bridged_wsgi(app), environ, buffered)

        test.run_wsgi_app = run_wsgi_app


def patch_bottle() -> None:
    """``ServerTestBase`` of Bottle's own tests."""
    tools = sys.modules.get("test.tools") or sys.modules.get("tools")
    if tools is None or not hasattr(tools, "ServerTestBase"):
        return
    original = tools.ServerTestBase.setUp

    def set_up(self: Any) -> None:
        original(self)
        self.wsgiapp = bridged_wsgi(self.wsgiapp)

    tools.ServerTestBase.setUp = set_up


def pytest_configure(config: pytest.Config) -> None:
    """Patch what is installed."""
    if os.environ.get("DOUBLE_BRIDGE"):
        patch_starlette()
        patch_werkzeug()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Patch what the tests bring themselves."""
    if os.environ.get("DOUBLE_BRIDGE"):
        patch_bottle()
