"""The scope of a WebSocket, of that of its handshake."""

from __future__ import annotations

from a2wsgi._asgi_on_wsgi.websocket.messages import websocket_scope
from a2wsgi._protocol.upgrade import Handshake


def test_websocket_scope_has_the_tls_of_its_handshake() -> None:
    """ASGI TLS 0.2, "The Base Protocol": it is the same for a WebSocket. What is of responses only is left out."""
    tls = {"tls_version": 0x0304}
    scope = {"type": "http", "method": "GET", "scheme": "https", "extensions": {"tls": tls, "http.response.push": {}}}
    made = websocket_scope(scope, Handshake(accept="", subprotocols=(), extensions=""))
    assert made["extensions"] == {"websocket.http.response": {}, "tls": tls}
