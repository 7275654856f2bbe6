"""A WebSocket through a pair of bridges, on the smallest server side."""

from __future__ import annotations

import logging
from typing import Any

import pytest

pytest.importorskip("websockets")

from a2wsgi import ASGIMiddleware, ClientDisconnected, WSGIMiddleware
from support.asgi_driver import Message
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
