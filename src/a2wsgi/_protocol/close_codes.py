"""Close codes: which of them travel, and who is told which (RFC 6455 §7.4).

*Facts*

- A Close frame carries 1000 to 1003, 1007 to 1014 or 3000 to 4999, or no code at all (RFC 6455 §7.4.1, §7.4.2, and
  IANA's registry, which has added 1012 to 1014).
- 1005 and 1006 never travel. They only say what happened: 1005, the peer's Close had no code; 1006, no Close came
  (RFC 6455 §7.1.5, §7.4.1). 1015 is a failed TLS handshake.
- The reason is UTF-8 of 123 bytes at most: a control frame holds 125, and the code takes two (RFC 6455 §5.5, §5.5.1).
- ``code`` and ``reason`` of ASGI's messages may be absent or ``None``: 1005 in ``websocket.disconnect``, 1000 in
  ``websocket.close``, and ``""`` (ASGI WebSocket 2.5, "Disconnect", "Close"). Some servers give an ``IntEnum``.

Specs: RFC 6455; ASGI WebSocket 2.5; https://www.iana.org/assignments/websocket/websocket.xhtml
"""

from __future__ import annotations

from enum import Enum

from a2wsgi._errors import AppProtocolError

NORMAL = 1000
PROTOCOL_ERROR = 1002
NO_CODE = 1005  # never on the wire: the peer's Close had no code
LOST = 1006  # never on the wire: the connection ended without a Close
INVALID_DATA = 1007
TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012

MAX_REASON_BYTES = 123  # RFC 6455 §5.5, §5.5.1


class WebSocketEnding(Enum):
    """Each way in which we end a WebSocket, by a Close of our own.

    ======================  =========================  ================  ==========
    ending                  what happened              the client sees   the app is told
    ======================  =========================  ================  ==========
    ``NO_PONG``             no answer to a ping        Close 1011        1006
    ``APP_RETURNED``        the app is through         Close 1000        nothing
    ``APP_RAISED``          or answered with 5xx       Close 1011        nothing
    ``APP_BROKE_FRAMES``    on its link                Close 1011        1006
    ``STOPPED``             the process or the bridge  Close 1012        1012
    ======================  =========================  ================  ==========

    Attributes:
        client: The code in the Close that the client gets.
        app: The code that the app is told; ``None`` if it has ended. 1006 means an end of file without a Close where
            the app reads frames.
        reason: What the Close says besides.
    """

    NO_PONG = INTERNAL_ERROR, LOST, "keepalive ping timeout"
    APP_RETURNED = NORMAL, None, ""
    APP_RAISED = INTERNAL_ERROR, None, ""
    APP_BROKE_FRAMES = INTERNAL_ERROR, LOST, ""
    STOPPED = SERVICE_RESTART, SERVICE_RESTART, ""

    def __init__(self, client: int, app: int | None, reason: str) -> None:
        self.client = client
        self.app = app
        self.reason = reason


def may_travel(code: int) -> bool:
    """Return whether a Close frame may carry the code (RFC 6455 §7.4.1, §7.4.2)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def refuse_code(code: int) -> None:
    """Raise ValueError for a code that no Close may carry or leave out (1005), and TypeError for what is no int."""
    if not isinstance(code, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # it is the app's, as 1000.0 may be
        raise TypeError(f"A close code must be an int, not of type {type(code).__name__}")
    if code != NO_CODE and not may_travel(code):
        raise ValueError(f"A Close frame may not carry the code {code} (RFC 6455 §7.4.1)")


def code_for_wsgi_app(code: int | None) -> int:
    """Return what a WSGI app is told when its server sends ``websocket.disconnect`` with this code.

    Returns:
        The code itself; `NO_CODE` for a Close without one; `LOST` for whatever may not travel, and that means: end the
        link without a Close.
    """
    if code is None or code == NO_CODE:
        return NO_CODE
    return int(code) if may_travel(code) else LOST


def code_from_wsgi_app(code: int) -> int:
    """Return the code of the ``websocket.close`` that stands for a WSGI app's Close frame."""
    return NORMAL if code == NO_CODE else code  # ASGI cannot express a Close without a code


def code_from_asgi_app(code: object) -> int:
    """Return the code of the Close frame that stands for an app's ``websocket.close``.

    Raises:
        AppProtocolError: The code is not an ``int``, or no Close frame may carry it.
    """
    if code is None:
        return NORMAL
    if not isinstance(code, int) or isinstance(code, bool) or not may_travel(code):
        raise AppProtocolError(
            f"The app sent websocket.close with the code {str(code)[:80]!r}. RFC 6455 §7.4 allows 1000 to 1003, 1007 "
            "to 1014 and 3000 to 4999 in a Close frame. Send 1000, or one of your own from 4000 to 4999."
        )
    return int(code)


def cut_reason(reason: str | None) -> bytes:
    """Return a reason as it is sent: in UTF-8, cut after the last character that fits."""
    encoded = (reason or "").encode("utf-8", "replace")  # UTF-8 cannot encode a lone surrogate
    if len(encoded) <= MAX_REASON_BYTES:
        return encoded
    return encoded[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
