"""A WebSocket through a pair of bridges, on the smallest server side."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

import pytest

pytest.importorskip("websockets")

from a2wsgi import ASGIMiddleware, ClientDisconnected, WSGIMiddleware
from a2wsgi._asgi_on_wsgi.websocket import endpoint
from a2wsgi._nested import Pair
from support.asgi_driver import Message, until
from support.lockstep import Signal
from support.websocket_driver import WebSocketClient, talk


def test_failure_of_an_asgi_app_reaches_the_server_through_a_pair(caplog: pytest.LogCaptureFixture) -> None:
    """The very same exception, once, after 1011: without a pair nobody could be raised to, and it is logged."""
    failure = LookupError("the app failed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "last"})
        raise failure

    async def play(client: WebSocketClient) -> None:
        await client.gets(3)

    with caplog.at_level(logging.WARNING, "a2wsgi"):
        client, raised = talk(WSGIMiddleware(ASGIMiddleware(app, lifespan=False)), play, fails=LookupError)
    assert [message["type"] for message in client.sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert client.sent[-1]["code"] == 1011
    assert raised is failure
    assert [record for record in caplog.records if record.name == "a2wsgi"] == []


@pytest.mark.parametrize("kind", [ClientDisconnected, ConnectionResetError, ConnectionError])
@pytest.mark.parametrize("server_fails", [False, True])
def test_failure_of_another_connection_is_not_dropped_by_a_pair(
    kind: type[OSError], server_fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The app's own WebSocket is open, so it is a peer's or a database's. If the server fails, too, it is logged."""
    error = kind("of another connection")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        raise error

    async def on_send(number: int, message: Message) -> None:
        if number == 2 and server_fails:
            raise LookupError("the server's")

    bridge = WSGIMiddleware(ASGIMiddleware(app, lifespan=False))
    with caplog.at_level(logging.WARNING, "a2wsgi"):
        client, raised = talk(bridge, None, WebSocketClient(on_send), fails=LookupError if server_fails else kind)
    logged = [(r.getMessage(), r.exc_info and r.exc_info[1]) for r in caplog.records if r.name == "a2wsgi"]
    caplog.clear()  # its tracebacks would keep the bridge
    if server_fails:
        assert logged == [("The WSGI app failed after its WebSocket was over", error)]
    else:
        assert logged == []
        assert raised is error
        assert client.sent[-1]["code"] == 1011


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_failure_of_an_app_that_has_closed_before_is_logged_through_a_pair(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client has answered, and the outer bridge has returned to its server: there is nobody left to raise to."""
    pytest.importorskip(backend)
    failure, returned = LookupError("the app failed"), Signal("the outer bridge has returned")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        await returned.wait_in_task()
        raise failure

    inner: ASGIMiddleware = ASGIMiddleware(app, lifespan=False, backend=backend)  # type: ignore[call-overload]
    client, _ = talk(WSGIMiddleware(inner))
    assert client.sent[-1]["code"] == 1000
    with caplog.at_level(logging.WARNING, "a2wsgi"):
        caplog.clear()
        returned.set()
        inner.close()
    logged = [(r.getMessage(), r.exc_info and r.exc_info[1]) for r in caplog.records if r.name == "a2wsgi"]
    caplog.clear()  # its tracebacks would keep the bridge
    assert logged == [("The app failed after its WebSocket was over", failure)]


@pytest.mark.parametrize("looks_first", [False, True])
def test_what_is_offered_is_told_by_one_of_the_two(looks_first: bool) -> None:
    """Either the outer bridge takes it, or the inner one hears that it is to tell of it itself."""
    pair, error, context = Pair(under_asgi_server=True), LookupError(), contextvars.copy_context()
    if looks_first:
        assert pair.take_offer() is None
    assert pair.offer(error, context) is not looks_first
    assert pair.take_offer() == (None if looks_first else (error, context))


def test_what_is_taken_amid_the_offer_is_told_by_the_outer_bridge() -> None:
    """1. It is there. 2. The outer bridge looks, and takes it. 3. The inner one asks whether it has looked."""
    pair, taken = Pair(under_asgi_server=True), list[object]()

    class Offered(list[Any]):
        def append(self, offer: object, /) -> None:
            super().append(offer)
            taken.append(pair.take_offer())

    pair._offered = Offered()
    offer = LookupError(), contextvars.copy_context()
    assert pair.offer(*offer)
    assert taken == [offer]


def test_client_that_leaves_as_soon_as_it_is_answered_has_said_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The race: 1. the client is answered; 2. it says something, and leaves; 3. accept() would have returned."""
    received: list[Any] = []
    opening = endpoint.Endpoint.open

    async def open_and_wait(self: endpoint.Endpoint, *args: Any) -> None:
        await opening(self, *args)
        await left.wait_in_task()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        received.extend([await receive(), await receive()])

    async def play(client: WebSocketClient) -> None:
        await client.gets(1)
        client.says("fire and forget")
        client.leaves(4444, "bye")
        await until(lambda: bridge.statistics().websockets == 0)
        left.set()

    left = Signal("the outer bridge has told of the end")
    monkeypatch.setattr(endpoint.Endpoint, "open", open_and_wait)
    inner = ASGIMiddleware(app, lifespan=False)
    bridge = WSGIMiddleware(inner)
    talk(bridge, play)
    inner.close()
    assert received == [
        {"type": "websocket.receive", "text": "fire and forget"},
        {"type": "websocket.disconnect", "code": 4444, "reason": "bye"},
    ]


def test_client_that_is_slow_is_not_pinged_within_a_pair() -> None:
    """While the outer bridge waits for its server's send(), nobody reads the link: no pong can come."""
    deadline = Signal("a ping would have been answered")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "slowly taken"})
        asyncio.get_running_loop().call_later(0.4, deadline.set)  # interval, timeout and a while
        assert await receive() == {"type": "websocket.receive", "text": "thanks"}

    async def on_send(_: int, message: Message) -> None:
        if message["type"] == "websocket.send":
            await deadline.wait_in_task()
            client.says("thanks")

    client = WebSocketClient(on_send)
    inner = ASGIMiddleware(app, lifespan=False, websocket_ping_interval=0.1, websocket_ping_timeout=0.1)
    talk(WSGIMiddleware(inner), client=client)
    inner.close()
    assert client.sent[-1] == {"type": "websocket.close", "code": 1000, "reason": ""}
