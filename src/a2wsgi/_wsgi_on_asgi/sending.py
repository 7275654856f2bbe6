"""Several messages in a row, as long as their request has not ended. Loop thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2wsgi._protocol.files import PIECE_BYTES

if TYPE_CHECKING:
    from a2wsgi._types import Message

    from .endings import Abortable


async def send_pieces(request: Abortable, body: bytes) -> bytes:
    """Send a large chunk in pieces, but for the last, which is returned.

    A server's ``send()`` may last until the client has taken all of it. ``send_timeout`` limits a client's silence, and
    so the time of a piece.
    """
    offset = 0
    with memoryview(body) as view:
        while len(body) - offset > PIECE_BYTES:
            piece = bytes(view[offset : offset + PIECE_BYTES])
            if not await request.send_message({"type": "http.response.body", "body": piece, "more_body": True}):
                break
            offset += PIECE_BYTES
        return bytes(view[offset:])


async def send_all(request: Abortable, messages: list[Message]) -> bool:
    """Send hints, or what else a bridge further in has passed on so far. Whether the request goes on.

    Nothing is sent after an ending: it interrupts one ``send()``, and nobody would interrupt the next.
    """
    while messages and request.ending is None:
        await request.send_message(messages.pop(0))
    return request.ending is None
