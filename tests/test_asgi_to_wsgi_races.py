"""Races between a server thread and the loop thread, each forced by holding the loop still at a known point."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from typing import Any

import pytest

from a2wsgi import BridgeClosed
from a2wsgi.asgi_to_wsgi import ASGIMiddleware
from support.lockstep import Signal
from support.wsgi_driver import Exchange, InThread, call, environ_of


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer in one go."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def bridge_of(app: Any, **options: Any) -> ASGIMiddleware:
    """A bridge with a thread, without lifespan, that has served."""
    bridge: ASGIMiddleware = ASGIMiddleware(app, **{"lifespan": False, **options})
    return bridge


class Held:
    """Holds a bridge's loop thread still within the block, so that what is rung waits."""

    def __init__(self, bridge: ASGIMiddleware) -> None:
        host = bridge._engine.start(bridge._plan.app)
        self._loop = host.loop
        self._held, self._go = Signal("the loop is held"), threading.Event()

    def __enter__(self) -> None:
        self._loop.call_soon_threadsafe(self._hold)
        self._held.wait()

    def _hold(self) -> None:
        self._held.set()
        self._go.wait(10)

    def __exit__(self, *_: object) -> None:
        self._go.set()


def test_request_that_rings_as_the_bridge_closes_is_refused() -> None:
    """1. A server thread sees the host. 2. The bridge is closed. 3. The thread rings: it gets BridgeClosed, no hang."""
    keeper, one = bridge_of(hello), bridge_of(hello)
    call(keeper)  # keeps the loop thread
    host = one._engine.start(one._plan.app)
    rung, closed = Signal("about to ring"), Signal("closed")
    bell = host.doorbell
    ring = bell.ring

    class Slow:
        loop = bell.loop

        def ring(self, function: Any, argument: Any) -> bool:
            rung.set()
            closed.wait()
            return ring(function, argument)

    host.doorbell = Slow()  # type: ignore[assignment]  # has what is used of it
    calling = InThread(lambda: call(one, fails=BridgeClosed))
    rung.wait()
    host.doorbell = bell
    one.close()
    closed.set()
    assert isinstance(calling.result().raised, BridgeClosed)


def test_close_and_the_last_message_at_once() -> None:
    """1. The server closes a response that has no end yet. 2. Its end is sent before the loop hears of the closing."""
    sent, closing, done = Signal("sent"), Signal("closing"), Signal("done")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0)
        sent.set()
        closing.wait()  # in the loop's own thread: the bell that the server rings is not heard yet
        await send({"type": "http.response.body", "body": b"end"})
        done.set()

    with bridge_of(app) as one:
        exchange = Exchange(one).begin()
        sent.wait()
        exchange.close()
        closing.set()
        done.wait()


def test_failure_as_the_server_gives_up_waiting_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """1. close() waits wait_time in vain. 2. The app fails. 3. The loop hears that nobody waits: it is logged."""
    late, go, failed = Signal("late"), Signal("go"), Signal("failed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await asyncio.sleep(0)
        late.set()
        go.wait()  # in the loop's own thread: the bell that the server rings is not heard yet
        asyncio.get_running_loop().call_soon(failed.set)
        raise ValueError("late")

    with bridge_of(app, wait_time=0.05) as one:
        exchange = Exchange(one).begin()
        late.wait()
        exchange.close()
        go.set()
        failed.wait()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_response_and_request_body_at_once() -> None:
    """1. The app asks for its body. 2. It sends. 3. The server thread looks: it delivers first, and then reads."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reading = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        message = await reading
        await send({"type": "http.response.body", "body": b"%d" % len(message["body"])})

    with bridge_of(app) as one:
        environ = environ_of("POST", body=b"x" * 100_000)
        exchange = Exchange(one, environ)
        with Held(one):
            beginning = InThread(exchange.begin)
        beginning.result()
        assert environ["wsgi.input"].reads == []
        assert b"".join(exchange.iterator) == b"first 65536"
        exchange.close()


def test_hundred_senders_and_closers() -> None:
    """Responses that are closed at any moment leave nothing: no task, no request, no hang."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"x" * 30_000, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})

    def serve(chunks: int) -> None:
        for _ in range(25):
            exchange = Exchange(one).begin()
            for _, _chunk in zip(range(chunks), exchange.iterator, strict=False):
                pass
            exchange.close()

    with bridge_of(app) as one:
        servers = [InThread(functools.partial(serve, chunks)) for chunks in range(4)]
        for server in servers:
            server.result()
        assert call(one).status == "200 OK"


def test_wake_up_is_not_lost_as_the_loop_changes_how_it_waits() -> None:
    """A descriptor that comes and goes makes the loop wait by the pipe, and by the lock again: no request hangs."""
    import socket

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            asyncio.get_running_loop().call_soon(right.send, b"x")  # once somebody waits for it
            assert await asyncio.get_running_loop().sock_recv(left, 1) == b"x"
            await asyncio.to_thread(int)
            await hello(scope, receive, send)

    with bridge_of(app) as one:
        servers = [InThread(lambda: [call(one).body for _ in range(50)]) for _ in range(4)]
        for server in servers:
            assert server.result() == [b"hello"] * 50
