"""A pytest plugin: has the test clients of the frameworks call their apps behind two bridges.

It does nothing unless the environment variable ``DOUBLE_BRIDGE`` is set. An ASGI app is called as
``WSGIMiddleware(ASGIMiddleware(app))``, a WSGI app as ``ASGIMiddleware(WSGIMiddleware(app))``. The variable names a
file, which grows by a byte with each call that came through both to the app.

The ASGI app runs on trio where its test client does. A WebSocket goes over the bridges if ``DOUBLE_BRIDGE_WEBSOCKETS``
is set, else to the app itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from a2wsgi import ASGIMiddleware, WSGIMiddleware

if TYPE_CHECKING:
    import pytest


def count() -> None:
    """Note that a call has come through both bridges. Any thread of any process."""
    # Not by open(), in whose place some tests put one of their own.
    descriptor = os.open(os.environ["DOUBLE_BRIDGE"], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b".")
    os.close(descriptor)


#: Bridges live as long as the program, as they do in programs. Else their loop would end with each test, and asgiref,
#: which goes on to use the last loop that a thread has heard of, would have the next test run on it.
_kept: list[BridgedASGI] = []


class BridgedASGI:
    """An ASGI app behind two bridges, with the attributes of the app."""

    def __init__(self, app: Any, backend: str = "asyncio", **options: Any) -> None:
        async def counted(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] in {"http", "websocket"}:
                count()
            await app(scope, receive, send)

        self.__dict__["_app"] = app
        # As long as the test client sends no lifespan, as most do not, the app is to have none of the bridge.
        self.__dict__["_bridge"] = WSGIMiddleware(ASGIMiddleware(counted, lifespan=False, backend=backend), **options)
        self.__dict__["_bridge_with_lifespan"] = WSGIMiddleware(ASGIMiddleware(counted, backend=backend), **options)
        _kept.append(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._app, name, value)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            self.__dict__["_bridge"] = self._bridge_with_lifespan
        over = scope["type"] != "websocket" or os.environ.get("DOUBLE_BRIDGE_WEBSOCKETS")
        await (self._bridge if over else self._app)(scope, receive, send)


def bridged_asgi(app: Any, **options: Any) -> Any:
    """An ASGI app behind two bridges with these options; one that is already is not put behind two more."""
    return app if isinstance(app, BridgedASGI) else BridgedASGI(app, **options)


def bridged_wsgi(app: Any) -> Any:
    """A WSGI app behind two bridges."""

    def counted(environ: Any, start_response: Any) -> Any:
        count()
        return app(environ, start_response)

    return ASGIMiddleware(WSGIMiddleware(counted))


def patch_starlette() -> None:
    """``TestClient``, of Starlette and of FastAPI."""
    with contextlib.suppress(ImportError):
        from starlette import testclient

        original = testclient.TestClient.__init__

        def init(self: Any, app: Any, *args: Any, **options: Any) -> None:
            original(self, app, *args, **options)
            # What it has made of the app: an ASGI 2 app is one of ASGI 3 by now.
            transport = self._transport
            transport.app = self.app = bridged_asgi(transport.app, backend=self.async_backend["backend"])

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


class FalconServer:
    """What a server does, and Falcon's simulated one does not: it closes the WebSocket of an app that fails.

    Its client would wait for ever: it looks for messages only, and not whether the app still runs.
    """

    def __init__(self, app: BridgedASGI) -> None:
        self.__dict__["_app"] = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._app, name, value)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        latest = ""

        async def noted(message: Any) -> None:
            nonlocal latest
            latest = message["type"]
            await send(message)
            if latest == "websocket.accept":
                await asyncio.sleep(0.01)  # its client looks for nothing else before it has come to know of that

        try:
            await self._app(scope, receive, noted)
        except Exception:
            if latest in {"websocket.accept", "websocket.send"}:
                await send({"type": "websocket.close", "code": 1011, "reason": ""})
            raise


def patch_falcon() -> None:
    """``simulate_request()`` and ``ASGIConductor`` of Falcon."""
    with contextlib.suppress(ImportError):
        from wsgiref import validate

        from falcon.testing import client

        validator, init = validate.validator, client.ASGIConductor.__init__
        simulate = client._simulate_request_asgi  # noqa: SLF001 - simulate_request() itself is imported by name

        def bridged(app: Any) -> Any:
            if isinstance(app, FalconServer):
                return app
            # It says http.disconnect as soon as the body is read, and still takes the response. Few tests mean it.
            test = os.environ["PYTEST_CURRENT_TEST"]
            ignore = "test_sse" not in test and "disconnect" not in test
            return FalconServer(bridged_asgi(app, ignore_disconnect=ignore))

        async def simulate_bridged(app: Any, *args: Any, **options: Any) -> Any:
            return await simulate(bridged(app), *args, **options)

        def init_bridged(self: Any, app: Any, *args: Any, **options: Any) -> None:
            init(self, app, *args, **options)
            self.app = bridged(app)

        def bridged_validator(app: Any) -> Any:
            # It stands between the test client and a WSGI app. Each of the two sees WSGI as it should be.
            validated = validator(bridged_wsgi(validator(app)))

            def with_write(environ: Any, start_response: Any) -> Any:
                # The client's returns no write(), which PEP 3333 wants. A bridge pushes out with it what has been sent.
                def start(*arguments: Any) -> Any:
                    start_response(*arguments)
                    return lambda data: None

                return validated(environ, start)

            return with_write

        validate.validator = bridged_validator
        client._simulate_request_asgi = simulate_bridged  # noqa: SLF001 - as above
        client.ASGIConductor.__init__ = init_bridged


def patch_channels() -> None:
    """``HttpCommunicator``, ``WebsocketCommunicator`` and ``ApplicationCommunicator`` of Channels."""
    with contextlib.suppress(ImportError):
        from channels.testing import application

        original = application.BaseApplicationCommunicator.__init__

        def init(self: Any, app: Any, scope: Any) -> None:
            original(self, bridged_asgi(app), scope)

        application.BaseApplicationCommunicator.__init__ = init


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
        patch_falcon()
        patch_channels()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Patch what the tests bring themselves."""
    if os.environ.get("DOUBLE_BRIDGE"):
        patch_bottle()
