"""What the messages of a server's ``receive()`` say about a WebSocket.

*Facts*

- One of the keys ``text`` and ``bytes`` of ``websocket.receive`` has the message; the other is absent or None (ASGI
  WebSocket 2.5, "Receive").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2wsgi._errors import ServerProtocolError

if TYPE_CHECKING:
    from a2wsgi._types import Message


def type_of(message: Message) -> object:
    """The type of a message.

    Raises:
        ServerProtocolError: It has none.
    """
    try:
        return message["type"]
    except (TypeError, LookupError):
        raise ServerProtocolError(
            "The server's receive() returned a message without a type in a WebSocket's scope. ASGI WebSocket 2.5 "
            "requires one. Fix the server, or the middleware that wraps receive()."
        ) from None


def data_of(message: Message) -> str | bytes:
    """What the client has sent by a ``websocket.receive``.

    Raises:
        ServerProtocolError: It has neither text nor bytes.
    """
    data: str | bytes | None = message.get("text")
    if data is None:
        data = message.get("bytes")
    if data is None:
        raise ServerProtocolError(
            "The server's receive() returned a websocket.receive with neither text nor bytes. ASGI WebSocket 2.5, "
            '"Receive", requires one of them. Fix the server, or the middleware that wraps receive().'
        )
    return data


def too_early() -> ServerProtocolError:
    """A message has come before the handshake was accepted."""
    return ServerProtocolError(
        "The server sent websocket.receive before the app accepted the handshake. ASGI WebSocket 2.5, "
        '"Accept", requires it to wait. Fix the server, or the middleware that wraps receive().'
    )
