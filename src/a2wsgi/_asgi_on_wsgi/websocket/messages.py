"""The messages of an ASGI app's WebSocket, and what is wrong with them, in words.

*Facts*: ASGI WebSocket 2.5, "WebSocket Connection Scope", "Send", "Close", "Disconnect".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from a2wsgi._asgi_on_wsgi.faults import is_cancellation, type_of_message
from a2wsgi._errors import AppProtocolError, ClientDisconnected, members_of

if TYPE_CHECKING:
    from a2wsgi._protocol.upgrade import Handshake
    from a2wsgi._types import Message, Scope

    from .message_queue import Ended

DENIALS = {"websocket.http.response.start", "websocket.http.response.body"}
KNOWN = {"websocket.accept", "websocket.send", "websocket.close"} | DENIALS


def websocket_scope(scope: Scope, handshake: Handshake) -> dict[str, Any]:
    """Return a handshake's scope (ASGI WebSocket 2.5, "WebSocket Connection Scope")."""
    made = {key: value for key, value in scope.items() if key != "method"}
    made["type"] = "websocket"
    made["scheme"] = "wss" if scope["scheme"] in {"https", "wss"} else "ws"
    made["subprotocols"] = list(handshake.subprotocols)
    told = {key: value for key, value in scope["extensions"].items() if key == "tls"}
    made["extensions"] = {"websocket.http.response": {}, **told}
    return made


def disconnect(ended: Ended) -> Message:
    return {"type": "websocket.disconnect", "code": ended.code, "reason": ended.reason}


def data_of(message: Message) -> str | bytes:
    """Return what ``websocket.send`` is to send.

    Raises:
        AppProtocolError: It has neither text nor bytes, or both, or of a wrong type.
    """
    text, data = message.get("text"), message.get("bytes")
    if (text is None) == (data is None):
        raise AppProtocolError(
            "The app sent websocket.send with "
            f'{"neither" if text is None else "both"} text and bytes. ASGI WebSocket 2.5, "Send", requires exactly '
            "one that is not None. Send one of the two, or two messages."
        )
    if text is not None:
        if not isinstance(text, str):
            raise wrong_type("text", "websocket.send", text)
        return text
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray):
        return bytes(data)
    if isinstance(data, memoryview):
        return data.tobytes()
    raise wrong_type("bytes", "websocket.send", data)


#: What frameworks raise into an app whose WebSocket is over: Starlette, FastAPI, Litestar; Falcon; BlackSheep; Sanic.
_ITS_OVER = {"WebSocketDisconnect", "WebSocketDisconnected", "WebSocketDisconnectError", "WebsocketClosed"}


def says_that_it_is_over(error: BaseException) -> bool:
    """Whether an app let this through because its WebSocket was over. Then nobody needs to hear of it."""
    if members := members_of(error):
        return all(map(says_that_it_is_over, members))
    kind = type(error)  # isinstance() would ask the error's own __class__
    return issubclass(kind, ClientDisconnected) or is_cancellation(error) or kind.__name__ in _ITS_OVER


# -- Faults -----------------------------------------------------------------------------------------------------------


def no_answer() -> AppProtocolError:
    """The app returned, and has answered no handshake."""
    return AppProtocolError(
        "The ASGI app returned without answering a WebSocket handshake. ASGI WebSocket 2.5 requires websocket.accept "
        "or websocket.close. Send one of them before the app returns."
    )


def wrong_in_websocket(kind: object, stage: str) -> AppProtocolError:
    """The app sent a message that means nothing in a WebSocket, or not now."""
    return AppProtocolError(
        f"The ASGI app sent a message of the type {type_of_message(kind)} while its WebSocket was {stage}. ASGI "
        "WebSocket 2.5 requires websocket.accept, websocket.close or websocket.http.response.start first. After "
        "websocket.accept, it allows only websocket.send and websocket.close. Send these, in this order."
    )


def wrong_type(key: str, kind: str, value: object) -> AppProtocolError:
    """A value in a message is of a type that it may not have."""
    return AppProtocolError(
        f'The ASGI app sent {kind} with "{key}" of type {type(value).__name__}. ASGI WebSocket 2.5 requires '
        f"{'bytes' if key == 'bytes' else 'a str'}, or None. Convert it."
    )


def not_utf8() -> AppProtocolError:
    """A text has no UTF-8."""
    return AppProtocolError(
        "The ASGI app sent websocket.send with a text that contains a lone surrogate. RFC 6455 §5.6 requires UTF-8, "
        "which cannot encode it. Nothing was sent. Send such data as bytes."
    )
