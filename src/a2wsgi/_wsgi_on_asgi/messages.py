"""What the messages of a server's ``receive()`` say about a request's body.

*Facts*

- Both keys of ``http.request`` are optional (ASGI HTTP 2.5, "Request").
- A body is as long as its ``Content-Length``. What follows is not part of it (RFC 9112 §6.3), and a body that ends
  before is incomplete, whatever the server says (RFC 9112 §8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from a2wsgi._errors import ClientDisconnected, RequestTooLarge, ServerProtocolError

if TYPE_CHECKING:
    from a2wsgi._types import Message


def body_part(message: Message, received: int, declared: int | None, limit: int | None) -> tuple[bytes, bool] | None:
    """The part of the body that a message brings, and whether more is to come; None for ``http.disconnect``.

    Args:
        message: As ``receive()`` gave it.
        received: The number of bytes that came before.
        declared: The ``Content-Length``; None without one.
        limit: How many bytes may come; None is unlimited.

    Raises:
        ClientDisconnected: The body ends with this message, and is too short.
        RequestTooLarge: It is longer than ``limit``.
        ServerProtocolError: It is no message, or its body is no bytes.
    """
    try:
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body") or b""
        if type(chunk) is not bytes:
            chunk = bytes(memoryview(chunk))  # bytes() alone would take an int for a length
        more = bool(message.get("more_body"))
    except (TypeError, LookupError, AttributeError):
        raise _fault_of(message) from None
    received += len(chunk)
    if limit is not None and received > limit:
        raise RequestTooLarge(limit)
    if declared is not None and received != declared:
        if received > declared:
            chunk = chunk[: max(0, len(chunk) - (received - declared))]
        elif not more:
            raise ClientDisconnected(f"its body ended after {received} of {declared} bytes")
    return chunk, more


def is_disconnect(message: Message) -> bool:
    """Whether a message says that the client has left.

    Raises:
        ServerProtocolError: It is no message.
    """
    try:
        return bool(message["type"] == "http.disconnect")
    except (TypeError, LookupError):
        raise _fault_of(message) from None


def _fault_of(message: object) -> ServerProtocolError:
    """What is wrong with a message, in words."""
    what = f"something of type {type(message).__name__}"
    if isinstance(message, Mapping):
        what = "a message without a type"
        if "type" in message:
            body = cast("Message", message).get("body")
            what = f"a message with a body of type {type(body).__name__}"
    return ServerProtocolError(
        f'The server\'s receive() returned {what}. ASGI HTTP 2.5, "Request", requires a dict with a "type", and with a '
        '"body" of bytes. Fix the server, or the middleware that wraps receive().'
    )
