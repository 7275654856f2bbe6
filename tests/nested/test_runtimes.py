"""Bridges around each other, each on a loop of its own kind; and between them what is written for any kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import pytest

from a2wsgi import ASGIMiddleware, WSGIMiddleware, run_in_loop
from a2wsgi.asgi_typing import Receive, Scope, Send
from a2wsgi.wsgi_typing import Environ, StartResponse
from support.asgi_driver import Client, answer, call, http_scope, run
from support.lockstep import Signal
from support.runtimes import in_trio, rest, start
from support.wsgi_driver import call as call_wsgi

pytestmark = pytest.mark.usefixtures("runtime")

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def library() -> str:
    """What it runs on."""
    await rest()
    return "trio" if in_trio() else "asyncio"


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes a body, with a lifespan."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})
    await send({"type": "http.response.body", "body": (await library()).encode()})


def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Echoes a body."""
    start_response("200 OK", [])
    while part := environ["wsgi.input"].read(65_536):
        yield part
    yield run_in_loop(library()).encode()


def on(backend: str) -> Any:
    """The options of a bridge that runs an ASGI app on that."""
    pytest.importorskip(backend)
    return {"backend": backend}


@BACKENDS
def test_asgi_app_runs_on_its_own_library_whatever_its_server_runs_on(backend: str) -> None:
    """Two bridges: an outer loop of one kind, an inner one of the same or the other."""
    parts = [bytes([number]) * 10_000 for number in range(30)]
    with contextlib.closing(ASGIMiddleware(asgi, **on(backend))) as inner:
        response = call(WSGIMiddleware(inner), Client(*parts), http_scope("POST"))
    assert response.body == b"".join(parts) + backend.encode()


@BACKENDS
def test_client_that_leaves_ends_an_app_of_another_library(backend: str) -> None:
    """The abort comes from one loop, through a thread, to the other."""
    seen: list[str] = []
    entered, over = Signal("the app is entered"), Signal("the app is over")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await receive()
        entered.set()
        assert (await receive())["type"] == "http.disconnect"
        seen.append(await library())
        over.set()

    async def main() -> None:
        bridge = WSGIMiddleware(inner)
        client = Client()
        job = start(answer(bridge, client))
        await entered.wait_in_task()
        client.leave()
        await job
        await over.wait_in_task()

    with contextlib.closing(ASGIMiddleware(app, **on(backend))) as inner:
        run(main())
    assert seen == [backend]


@BACKENDS
def test_wsgi_app_between_two_servers_runs_its_coroutines_on_the_bridge(backend: str) -> None:
    """A WSGI app under both bridges: the server's loop is that of the bridge around."""
    with contextlib.closing(ASGIMiddleware(WSGIMiddleware(wsgi), **on(backend))) as bridge:  # type: ignore[arg-type, unused-ignore]
        assert call_wsgi(bridge).body == backend.encode()


def test_middleware_of_anyio_may_stand_around_a_bridge() -> None:
    """Starlette's BaseHTTPMiddleware runs what it wraps in a task group, and gives it a receive() with one."""
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.routing import Mount

    class Marking(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["x-marked"] = "yes"
            return response

    app = Starlette(routes=[Mount("/below", WSGIMiddleware(wsgi))], middleware=[Middleware(Marking)])

    async def main() -> None:
        here = (await library()).encode()
        client = Client(b"one ", b"two ", strict=False)
        response = await answer(app, client, http_scope("POST", "/below/x"))
        assert response.body == b"one two " + here
        assert (b"x-marked", b"yes") in response.headers

    run(main())
