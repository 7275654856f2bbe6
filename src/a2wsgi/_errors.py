"""The errors of a2wsgi: whose fault it is, what happened, and how to fix it.

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
    │   ├── AppTimeout            the app took too long, and the client got a 504
    │   └── WebSocketClosed       its WebSocket is closed
    ├── InvalidHeader             a header, status or its value cannot be sent (also a ValueError)
    ├── RequestTooLarge           the request's body is longer than ``max_request_bytes``
    └── BridgeClosed              the bridge was called after it was closed

Each message says what happened (with the value), why it matters (with the source) and how to fix it. None shows a body,
a cookie or credentials.
"""

from __future__ import annotations

import errno
from typing import Any, cast


class BridgeError(Exception):
    """The base of all errors that a2wsgi itself raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Let `pickle` and `copy` keep the text, which some constructors build from their arguments."""
        return _rebuilt, (type(self), self.args), dict(vars(self))


class AppError(BridgeError):
    """The app's fault.

    A plain `AppError` replaces an exception of the app that a coroutine cannot raise, or that would stop the server's
    event loop (``StopIteration``, ``SystemExit``, ``KeyboardInterrupt``). The original is its ``__cause__``.
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
    """What was asked for cannot be done here: by the server, or without a library that is not installed."""


class ClientDisconnected(BridgeError, OSError):
    """The client left or stalled, or the request was aborted for another reason.

    Your app need not catch it: there is nobody left to answer. Let it pass, and clean up in ``finally``.

    Args:
        reason: How we know, as in ``"the server sent http.disconnect"``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The request is over: {reason}. Nothing more can be sent to the client. Stop, and clean up.")
        self.reason = reason
        self.errno = errno.ECONNRESET  # so that servers recognize it and log no error (gunicorn)

    def __reduce__(self) -> tuple[Any, ...]:
        """As for all, with the number, which is not among the attributes."""
        rebuild, arguments, attributes = super().__reduce__()
        return rebuild, arguments, {**attributes, "errno": self.errno}


class AppTimeout(ClientDisconnected):
    """The app did not begin its response within ``app_timeout``, and the client got a 504.

    Args:
        seconds: The timeout.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the app did not begin its response within app_timeout={seconds:g} s, and the client got a 504"
        )
        self.seconds = seconds


class WebSocketClosed(ClientDisconnected):
    """The WebSocket is closed. Either side may have closed it.

    Args:
        code: The close code. 1005 means that there was none, and 1006 that the connection was lost.
        reason: The reason that came with the code, often ``""``.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"its WebSocket was closed with the code {code}")
        self.code = code
        self.reason = reason


class InvalidHeader(BridgeError, ValueError):
    """A header's name, a header's value or a status cannot be sent as it is.

    Args:
        what: What is wrong, with the header's name but never with its value.
        source: The clause that forbids it.
    """

    def __init__(self, what: str, source: str = "RFC 9110 §5.5") -> None:
        super().__init__(f"{what} ({source}). Nothing was sent. Fix it where the app sets it.")
        self.what = what
        self.source = source


class RequestTooLarge(BridgeError):
    """The request's body is longer than ``max_request_bytes``. The client gets a 413.

    Args:
        limit: The limit, in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The request's body is longer than max_request_bytes={limit}, so the client gets a 413 "
            "(RFC 9110 §15.5.14). Raise max_request_bytes to accept such bodies."
        )
        self.limit = limit


class BridgeClosed(BridgeError):
    """The bridge was called after it was closed."""


def _rebuilt(kind: type[BridgeError], args: tuple[Any, ...]) -> BridgeError:
    """An error of a class, without its attributes, from its text."""
    error = kind.__new__(kind)
    error.args = args
    return error


# Whatever an app raises is looked at by these, and by its type: the error's own attributes may raise, or be anything.


def cause_of(error: BaseException) -> BaseException | None:
    """The error from which this one was raised, or during which it was."""
    base: Any = BaseException
    cause: BaseException | None = base.__cause__.__get__(error)
    return base.__context__.__get__(error) if cause is None else cause


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """The members of an exception group, of Python's or of a library's; none of any other error."""
    try:
        members: object = getattr(error, "exceptions", None)
    except Exception:  # noqa: BLE001 - a property of the app's
        return ()
    return cast("tuple[BaseException, ...]", members) if isinstance(members, tuple) else ()
