"""A WebSocket through a pair of bridges, on the smallest server side."""

from __future__ import annotations

import logging
from typing import Any

import pytest

pytest.importorskip("websockets")

from a2wsgi import ASGIMiddleware, WSGIMiddleware
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
