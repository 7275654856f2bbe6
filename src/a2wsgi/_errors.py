"""The errors of a2wsgi: whose fault it is, what happened, and how to mend it.

::

    BridgeError
    ├── AppError                  the app's fault
    │   ├── AppProtocolError      it broke WSGI or ASGI
    │   ├── AppInterfaceError     it is not an app, or not of the kind that was asked for
    │   └── LifespanFailed        its startup or shutdown failed
    ├── ServerError               the server's fault
    │   ├── ServerProtocolError   it broke WSGI or ASGI
    │   └── MissingCapability     it cannot do what was asked of it
    ├── ClientDisconnected        nobody's fault: the client left (also an OSError)
    ├── InvalidHeader             a header, status or its value cannot be sent (also a ValueError)
    ├── RequestTooLarge           the request's body is over ``max_request_bytes``
    └── BridgeClosed              the bridge was closed, and was called all the same

Each message says what happened, with the value, why it matters, with the source, and how to mend it. None shows a body,
a cookie or an authorization.
"""

from __future__ import annotations

import errno

__all__ = [
    "AppError",
    "AppInterfaceError",
    "AppProtocolError",
    "BridgeClosed",
    "BridgeError",
    "ClientDisconnected",
    "InvalidHeader",
    "LifespanFailed",
    "MissingCapability",
    "RequestTooLarge",
    "ServerError",
    "ServerProtocolError",
]


class BridgeError(Exception):
    """Any error that a2wsgi raises on its own account."""


class AppError(BridgeError):
    """The app's fault.

    Raised itself where the app ended in something that a coroutine cannot raise or that would end the server's loop
    (``StopIteration``, ``SystemExit``, ``KeyboardInterrupt``): the original is its ``__cause__``.
    """


class AppProtocolError(AppError):
    """The app broke WSGI (PEP 3333) or ASGI."""


class AppInterfaceError(AppError, TypeError):
    """The object is not an app, or not an app of the kind that was asked for."""


class LifespanFailed(AppError):
    """The app's startup or shutdown failed, or did not end in time."""


class ServerError(BridgeError):
    """The server's fault."""


class ServerProtocolError(ServerError):
    """The server broke WSGI (PEP 3333) or ASGI."""


class MissingCapability(ServerError):
    """The server cannot do what was asked of it."""


class ClientDisconnected(BridgeError, OSError):
    """The client left, or does not take its response, or the server gave the request up.

    Args:
        reason: A clause that says how we know, as in ``"the server sent http.disconnect"``.

    An app need not catch it: nobody is there to be answered. It may, to stop work early.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The request has no client any more: {reason}. There is nobody to answer; stop and clean up.")
        self.reason = reason
        self.errno = errno.ECONNRESET  # by which servers know it for what it is, and log no error (gunicorn)


class InvalidHeader(BridgeError, ValueError):
    """A header's name, a header's value or a status cannot be sent as it is.

    Args:
        what: What is wrong, with the name of the header but never with the value of it.
        source: The clause that forbids it.
    """

    def __init__(self, what: str, source: str = "RFC 9110 §5.5") -> None:
        super().__init__(f"{what} ({source}). Nothing was sent. Correct it where the app makes it.")
        self.what = what
        self.source = source


class RequestTooLarge(BridgeError):
    """The request's body is longer than ``max_request_bytes``; the client is answered 413.

    Args:
        limit: The limit, in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The request's body is longer than max_request_bytes={limit}; the client is answered 413 "
            "(RFC 9110 §15.5.14). Raise max_request_bytes where such bodies are wanted."
        )
        self.limit = limit


class BridgeClosed(BridgeError):
    """The bridge was closed, and was called all the same."""
