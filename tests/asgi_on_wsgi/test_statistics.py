"""`ASGIMiddleware.statistics`: what a bridge does at the moment, and what it has met."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from typing import Any

from a2wsgi import ASGIMiddleware, ASGIStatistics, BridgeClosed, BridgeError, ClientDisconnected
from a2wsgi._threads.runtime import Doorbell
from support.asgi_bridges import THREAD_INLINE_TRIO
from support.lockstep import Signal
from support.wsgi_driver import Exchange, InThread, call, environ_of

NOTHING = ASGIStatistics(in_flight=0, queued=0, background=0, disconnected=0, stalled=0, started=False)
STARTED = dataclasses.replace(NOTHING, started=True)
START = {"type": "http.response.start", "status": 200, "headers": []}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer, with nothing left to do."""
    await send(START)
    await send({"type": "http.response.body", "body": b"hello"})


@THREAD_INLINE_TRIO
def test_idle_bridge_says_whether_it_is_started(options: dict[str, Any]) -> None:
    """Not before its first request, nor after `close`."""
    bridge = ASGIMiddleware(hello, lifespan=False, **options)
    assert bridge.statistics() == NOTHING
    call(bridge)
    assert bridge.statistics() == STARTED
    bridge.close()
    assert bridge.statistics() == NOTHING


@THREAD_INLINE_TRIO
def test_request_that_waits_for_the_loop_is_queued(options: dict[str, Any]) -> None:
    """Another's app holds the loop up: what is handed over meanwhile is in flight, and queued."""
    entered, handed_over, go = Signal("entered"), Signal("handed over"), Signal("go")

    class Requests(set[Any]):
        def add(self, request: Any) -> None:
            super().add(request)
            if len(self) == 2:
                handed_over.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/first":
            entered.set()
            go.wait()
        await hello(scope, receive, send)

    with ASGIMiddleware(app, lifespan=False, **options) as bridge:
        bridge._lifetime.requests = Requests()
        first = InThread(lambda: call(bridge, environ_of("GET", "/first")))
        entered.wait()
        second = InThread(lambda: call(bridge))
        handed_over.wait()
        assert bridge.statistics() == dataclasses.replace(STARTED, in_flight=2, queued=1)
        go.set()
        assert first.result().body == second.result().body == b"hello"
        assert bridge.statistics() == STARTED


@THREAD_INLINE_TRIO
def test_app_that_goes_on_after_its_response_is_in_the_background(options: dict[str, Any]) -> None:
    """The client has its response whole, and the request is in flight no more."""
    seen: list[ASGIStatistics] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(bridge.statistics())
        await hello(scope, receive, send)
        seen.append(bridge.statistics())

    with ASGIMiddleware(app, lifespan=False, **options) as bridge:
        call(bridge)
        assert bridge.statistics() == STARTED
    assert seen == [dataclasses.replace(STARTED, in_flight=1), dataclasses.replace(STARTED, background=1)]


@THREAD_INLINE_TRIO
def test_clients_that_leave_are_counted_once(options: dict[str, Any]) -> None:
    """Whether the server closes the response early, or the request's body ends early, or both."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        if scope["path"] == "/body":
            while message["type"] != "http.disconnect":
                message = await receive()
            return
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await receive()
        if scope["path"] == "/both":
            await receive()

    def broken(path: str, length: int = 100_000) -> dict[str, Any]:
        return environ_of("POST", path, CONTENT_LENGTH=str(length), wsgi__input=io.BytesIO(b"x"))

    def counted() -> int:
        return bridge.statistics().disconnected

    with ASGIMiddleware(app, lifespan=False, **options) as bridge:
        exchange = Exchange(bridge).begin()
        assert exchange.next() in {b"", b"x"}
        exchange.close()
        call(bridge, broken("/body"), fails=ClientDisconnected)
        call(bridge, broken("/body", 10), fails=ClientDisconnected)
        call(bridge, broken("/both"), fails=ClientDisconnected)
        bridge.stop()  # the loop has heard of all
        assert counted() == 4


@THREAD_INLINE_TRIO
def test_bridge_that_is_closed_counts_no_client_as_gone(options: dict[str, Any]) -> None:
    """It was the bridge that ended the request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await receive()
        await receive()

    bridge = ASGIMiddleware(app, lifespan=False, **options)
    exchange = Exchange(bridge).begin()
    bridge.close()
    exchange.close()
    assert bridge.statistics() == NOTHING


class ClosedBell(Doorbell):
    """That of a loop that was closed."""

    def ring(self, function: Any, argument: Any) -> bool:
        return False


@THREAD_INLINE_TRIO
def test_request_that_never_comes_to_the_loop_is_in_flight_no_more(options: dict[str, Any]) -> None:
    """The loop ended between the server thread's look at it and its ring."""
    with ASGIMiddleware(hello, lifespan=False, **options) as bridge:
        host = bridge._lifetime.host
        assert host is not None
        doorbell, host.doorbell = host.doorbell, ClosedBell(host.loop)
        call(bridge, fails=BridgeClosed)
        host.doorbell = doorbell
        assert bridge.statistics() == NOTHING


def test_request_that_its_server_thread_gave_up_never_enters_the_app() -> None:
    """A given loop that does not run fails the request; if it runs later, there is nobody to answer."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    loop = asyncio.new_event_loop()
    bridge = ASGIMiddleware(app, loop=loop, lifespan=False)
    call(bridge, fails=BridgeError)
    assert bridge.statistics() == STARTED
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    assert seen == []
    assert bridge.statistics() == STARTED
    bridge.close()
    loop.close()


def test_statistics_may_be_asked_for_while_requests_come_and_go() -> None:
    """Nobody walks a set that others change."""
    with ASGIMiddleware(hello, lifespan=False) as bridge:
        servers = [InThread(lambda: [call(bridge) for _ in range(200)]) for _ in range(4)]
        asked = [bridge.statistics() for _ in range(1000)]
        for server in servers:
            server.result()
        assert bridge.statistics() == STARTED
    assert all(0 <= each.queued <= each.in_flight <= 4 for each in asked)
