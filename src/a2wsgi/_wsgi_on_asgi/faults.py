"""What a WSGI app does wrong, in words: what happened, why it matters, and how to fix it.

*Facts*: PEP 3333, "The Application/Framework Side" and "Specification Details"; RFC 9110; RFC 9112.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, cast

from a2wsgi._errors import AppError, AppProtocolError, ClientDisconnected, RequestTooLarge, cause_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence, Sized


def no_head() -> AppProtocolError:
    """The app has given a body, or has ended, without a head."""
    return AppProtocolError(
        "The WSGI app sent its body, or returned, before it called start_response(). PEP 3333 requires the status and "
        "the headers first. Call start_response(status, headers) before the first chunk that is not empty."
    )


class _SecondHeadError(AppProtocolError, AssertionError):
    """Also an AssertionError, since wsgiref and others raise that here, and apps may expect it."""


def second_head() -> AppProtocolError:
    """The app has called start_response() a second time without an error as its reason."""
    return _SecondHeadError(
        "The WSGI app called start_response() a second time without exc_info. PEP 3333 allows that only to "
        "report an error. Pass exc_info=sys.exc_info() to replace the status and headers with those of an error page."
    )


def error_of(exc_info: object) -> BaseException | None:
    """The error in the third argument of ``start_response()``.

    Raises:
        AppProtocolError: It is not what ``sys.exc_info()`` returns.
    """
    kind = type(exc_info).__name__
    if isinstance(exc_info, tuple | list) and len(items := cast("Sequence[object]", exc_info)) == 3:
        _, error, traceback = items
        if isinstance(error, BaseException | None) and isinstance(traceback, TracebackType | None):
            return error
    raise AppProtocolError(
        f'The WSGI app called start_response() with an exc_info of type {kind}. PEP 3333, "The start_response() '
        'Callable", requires the three items that sys.exc_info() returns. Pass exactly those.'
    )


def as_bytes(chunk: object) -> bytes:
    """A chunk of the body whose type is not exactly ``bytes``, as ``bytes``.

    Raises:
        AppProtocolError: It is not bytes at all. PEP 3333 allows nothing else, and servers refuse or spoil it.
    """
    if isinstance(chunk, bytes):
        return memoryview(chunk).tobytes()  # not bytes(chunk): a subclass may have any __bytes__ or __len__
    hint = "Did it return bytes instead of [bytes]? " if isinstance(chunk, int) else ""
    raise AppProtocolError(
        f"The WSGI app sent a chunk of type {type(chunk).__name__}. PEP 3333 requires bytes. {hint}Encode text, and "
        "wrap other buffers in bytes()."
    )


def too_short(missing: int) -> AppProtocolError:
    """The body is ``missing`` bytes shorter than its Content-Length."""
    return AppProtocolError(
        f"The WSGI app's body ended {missing} bytes before its Content-Length. The client would treat the response as "
        "incomplete (RFC 9112 §8). Set the correct length, or leave it out."
    )


def file_shrank() -> AppProtocolError:
    """The file has become shorter while the server sent it."""
    return AppProtocolError(
        "A file became shorter while it was being sent, so the response was cut off. The client must be able to tell "
        "(RFC 9112 §8). Write a new file and os.replace() the old one instead of changing it in place."
    )


def worker_lost() -> AppError:
    """The worker thread of a request died while it ran the request."""
    return AppError(
        "The worker thread of this request was killed by an exception that another thread raised in it. Libraries that "
        "limit how long a function runs do that (stopit, func_timeout), sometimes after the function has returned. "
        "Other requests go on. Catch the exception in the app, or limit the time in another way."
    )


def iterator_of(returned: object) -> Iterator[bytes]:
    """The iterator over what the app returned.

    Raises:
        AppProtocolError: It is not iterable.
    """
    try:
        return iter(cast("Iterable[bytes]", returned))
    except TypeError:
        if hasattr(returned, "__iter__"):
            raise  # its own error
        raise AppProtocolError(
            f"The WSGI app returned {type(returned).__name__}, which is not iterable. PEP 3333 requires an iterable "
            "of bytes. Return a list, as in [body]."
        ) from None


def holds_one(iterable: object) -> bool:
    """Whether an iterable says that it holds one chunk. If its ``len()`` fails it says nothing, as wsgiref has it."""
    if not hasattr(iterable, "__len__"):
        return False
    try:
        return len(cast("Sized", iterable)) == 1
    except (TypeError, AttributeError, NotImplementedError):
        return False


def is_of_an_ending(error: BaseException | None) -> bool:
    """Whether an app raised ``error`` because its request was over. Then nobody needs to hear of it."""
    seen: set[int] = set()  # `raise error from error` is a ring
    while error is not None and id(error) not in seen:
        if issubclass(type(error), ClientDisconnected | RequestTooLarge):  # isinstance() would ask its own __class__
            return True
        seen.add(id(error))
        error = cause_of(error)
    return False


def fit_for_a_loop(failure: BaseException) -> BaseException:
    """What the app raised. It is wrapped if a coroutine cannot raise it, or if it would end an event loop."""
    # PEP 479: StopIteration leaves a coroutine as a RuntimeError. Whatever is not an Exception ends a loop (SystemExit,
    # KeyboardInterrupt) or means something to it (CancelledError, GeneratorExit).
    kind = type(failure)  # isinstance() would ask the error's own __class__
    if issubclass(kind, Exception) and not issubclass(kind, StopIteration):
        return failure
    # Without its repr(), which is the app's code, may raise, and may be as long as a request's body.
    error = AppError(
        f"The WSGI app raised {kind.__name__}, which would stop the server's event loop or confuse it, so only this "
        "request fails. Raise an Exception instead."
    )
    error.__cause__ = failure
    return error


_OF_A_USED_SOCKET = (ConnectionError, StopIteration)
_OF_AN_ENDED_SOCKET = (BrokenPipeError, ConnectionAbortedError, ConnectionResetError)  # the second one on Windows


def is_of_used_socket(error: BaseException, *, ended: bool) -> bool:
    """Whether libraries raise such an error to tell a server that its socket was used, or that it has ended.

    engineio raises ConnectionError, Flask-Sock StopIteration: these very classes, as a database that is not there has
    others of the kind. Those of simple-websocket and gevent-websocket say that the client has left.

    Args:
        error: What the app raised.
        ended: The socket has ended before that, so that a write to it fails.
    """
    kind = type(error)  # an app's class, which need be neither hashable nor of a module
    if any(kind is known for known in (*_OF_A_USED_SOCKET, *(_OF_AN_ENDED_SOCKET if ended else ()))):
        return True
    return (str(kind.__module__).partition(".")[0], kind.__name__) in {
        ("simple_websocket", "ConnectionClosed"),
        ("geventwebsocket", "WebSocketError"),
    }
