"""What a WSGI app does wrong, in words: what happened, why it matters, and how to mend it.

*Facts*: PEP 3333, "The Application/Framework Side" and "Specification Details"; RFC 9110; RFC 9112.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ._errors import AppError, AppProtocolError, ClientDisconnected, RequestTooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sized

__all__ = [
    "as_bytes",
    "fit_for_a_loop",
    "holds_one",
    "is_of_an_ending",
    "iterator_of",
    "no_head",
    "second_head",
    "too_short",
]


def no_head() -> AppProtocolError:
    """The app has a body, or has ended, and has said no head."""
    return AppProtocolError(
        "The WSGI app gave its body, or ended, before it called start_response(). PEP 3333 wants the status and the "
        "headers first. Call start_response(status, headers) before the first chunk that is not empty."
    )


class _SecondHeadError(AppProtocolError, AssertionError):
    """Also an AssertionError, which wsgiref and others raise here, and apps may expect."""


def second_head() -> AppProtocolError:
    """The app said a second head without an error to excuse it."""
    return _SecondHeadError(
        "The WSGI app called start_response() a second time without exc_info. PEP 3333 allows one head a response. "
        "Pass exc_info=sys.exc_info() to replace it by an error's."
    )


def as_bytes(chunk: object) -> bytes:
    """A chunk of the body that is not exactly ``bytes``, as such.

    Raises:
        AppProtocolError: It is none at all: PEP 3333 knows bytes only, and servers refuse or spoil anything else.
    """
    if isinstance(chunk, bytes):
        return bytes(chunk)
    hint = "It returned bytes where it should return [bytes]. " if isinstance(chunk, int) else ""
    raise AppProtocolError(
        f"The WSGI app gave a chunk of type {type(chunk).__name__}. PEP 3333 wants bytes. {hint}Encode text, and wrap "
        "other buffers in bytes()."
    )


def too_short(missing: int) -> AppProtocolError:
    """The body lacks ``missing`` bytes of its Content-Length."""
    return AppProtocolError(
        f"The WSGI app's body ended {missing} bytes before its Content-Length. RFC 9112 §8: the client would take the "
        "response for cut off. Say the real length, or none."
    )


def iterator_of(returned: object) -> Iterator[bytes]:
    """The iterator over what the app returned.

    Raises:
        AppProtocolError: It is no iterable.
    """
    try:
        return iter(cast("Iterable[bytes]", returned))
    except TypeError:
        if hasattr(returned, "__iter__"):
            raise  # its own
        raise AppProtocolError(
            f"The WSGI app returned {type(returned).__name__}, which is not iterable. PEP 3333 wants an iterable of "
            "bytes. Return a list, as in [body]."
        ) from None


def holds_one(iterable: object) -> bool:
    """Whether an iterable says that it holds one chunk. One whose ``len()`` fails says nothing, as to wsgiref."""
    if not hasattr(iterable, "__len__"):
        return False
    try:
        return len(cast("Sized", iterable)) == 1
    except (TypeError, AttributeError, NotImplementedError):
        return False


def is_of_an_ending(error: BaseException | None) -> bool:
    """Whether an app raised ``error`` because its request was over, and so nobody need hear of it."""
    seen: set[int] = set()  # `raise error from error` is a ring
    while error is not None and id(error) not in seen:
        if isinstance(error, ClientDisconnected | RequestTooLarge):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def fit_for_a_loop(failure: BaseException) -> BaseException:
    """What the app raised; wrapped, where a coroutine cannot raise it or an event loop would end of it."""
    # PEP 479: StopIteration leaves a coroutine as a RuntimeError. What is no Exception ends a loop (SystemExit,
    # KeyboardInterrupt) or means something to it (CancelledError, GeneratorExit).
    if isinstance(failure, Exception) and not isinstance(failure, StopIteration):
        return failure
    error = AppError(
        f"The WSGI app raised {failure!r}, which would end the server's event loop or confuse it. It fails this "
        "request alone. Raise an Exception."
    )
    error.__cause__ = failure
    return error
