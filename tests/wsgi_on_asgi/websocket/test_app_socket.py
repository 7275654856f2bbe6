"""What ``environ["a2wsgi.websocket"]`` shows of itself, on a socket whose other end the test has."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest

from a2wsgi._protocol.codec import available

if not available():
    pytest.skip("needs websockets", allow_module_level=True)

from a2wsgi._wsgi_on_asgi.websocket.app_socket import GeventWebSocket, WebSocket
from a2wsgi._wsgi_on_asgi.websocket.passages import ObjectPassage

ENVIRON: dict[str, Any] = {"HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ=="}  # RFC 6455 §1.3


class Passage:
    """Takes a close, and no messages."""

    in_use = False

    def __init__(self) -> None:
        self.closes: list[tuple[int, str]] = []

    def close(self, code: int, reason: str) -> None:
        self.closes.append((code, reason))


def test_websocket_shows_its_state() -> None:
    """New, open, or closed with a code; and gevent's face shows what it is over."""
    ours, theirs = socket.socketpair()
    passage = Passage()
    with ours, theirs:
        ws = WebSocket(ours, cast("ObjectPassage", passage), ENVIRON, ())
        assert repr(ws) == "<WebSocket new>"
        ws.accept()
        assert passage.in_use
        assert repr(ws) == "<WebSocket open>"
        assert repr(GeventWebSocket(ws, ENVIRON)) == "<GeventWebSocket over <WebSocket open>>"
        ws.close(4000, "enough")
    assert passage.closes == [(4000, "enough")]
    assert repr(ws) == "<WebSocket closed code=4000>"
