"""What an ASGI app does wrong, in words: what happened, why it matters, and how to mend it.

*Facts*: ASGI 3.0, "Error Handling": "If the server receives an invalid event dictionary […] it should raise an
exception out of the send awaitable back to the application". ASGI HTTP 2.5, "Response Start", "Response Body". RFC 9112
§8.
"""

from __future__ import annotations

from ._errors import AppProtocolError

__all__ = [
    "as_bytes",
    "body_before_head",
    "no_response",
    "no_status",
    "second_head",
    "too_short",
    "unfinished",
    "unknown",
]


def no_response() -> AppProtocolError:
    """The app returned, and has sent nothing."""
    return AppProtocolError(
        "The ASGI app returned without a response. ASGI HTTP 2.5 wants http.response.start and http.response.body. "
        "Send both before it returns."
    )


def unfinished() -> AppProtocolError:
    """The app returned in the middle of its response."""
    return AppProtocolError(
        'The ASGI app returned before the end of its response. ASGI HTTP 2.5, "Response Body": the last message has '
        "more_body=False. Send one, with an empty body if need be."
    )


def body_before_head() -> AppProtocolError:
    """The app sent a body first."""
    return AppProtocolError(
        "The ASGI app sent http.response.body before http.response.start. ASGI HTTP 2.5 wants the status and the "
        "headers first. Send http.response.start once, before the body."
    )


def second_head() -> AppProtocolError:
    """The app sent a head again."""
    return AppProtocolError(
        'The ASGI app sent http.response.start a second time. A response has one head (ASGI HTTP 2.5, "Response '
        'Start"). Send it once.'
    )


def no_status() -> AppProtocolError:
    """The head has no status."""
    return AppProtocolError(
        'The ASGI app sent http.response.start without a status. ASGI HTTP 2.5, "Response Start", wants one. Add it, '
        'as in {"type": "http.response.start", "status": 200}.'
    )


def too_short(missing: int) -> AppProtocolError:
    """The body lacks ``missing`` bytes of its Content-Length."""
    return AppProtocolError(
        f"The ASGI app's body ended {missing} bytes before its Content-Length. RFC 9112 §8: the client would take the "
        "response for cut off. Say the real length, or none."
    )


def unknown(kind: object) -> AppProtocolError:
    """The app sent a message of a type that is not known here."""
    return AppProtocolError(
        f"The ASGI app sent a message of the type {kind!r:.80}. ASGI HTTP 2.5 knows http.response.start and "
        'http.response.body; others only where scope["extensions"] offers them. Send those.'
    )


def as_bytes(body: object) -> bytes:
    """A body that is not exactly ``bytes``, as such.

    Raises:
        AppProtocolError: It is no bytes at all.
    """
    if isinstance(body, bytes | bytearray):
        return bytes(body)  # WSGI servers take nothing else; and the app may reuse its buffer
    if isinstance(body, memoryview):
        return body.tobytes()
    raise AppProtocolError(
        f"The ASGI app sent a body of type {type(body).__name__}. ASGI HTTP 2.5 wants bytes. Encode text."
    )
