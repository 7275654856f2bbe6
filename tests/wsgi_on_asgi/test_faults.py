"""Which errors of a WSGI app say that its request was over, and in what words it is told what it does wrong."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from a2wsgi import AppError, AppProtocolError, ClientDisconnected, RequestTooLarge, WSGIMiddleware
from a2wsgi._wsgi_on_asgi import faults
from apps.counting import Counting
from support.asgi_driver import call
from support.errors import Twofaced
from support.wsgi_requests import our_log


def _ring(kind: str) -> Exception:
    """An error whose chain of causes leads back to itself."""
    error, cause = ValueError("in a ring"), ValueError("its cause")
    error.__cause__ = error if kind == "itself" else cause
    cause.__cause__ = error
    return error


@pytest.mark.parametrize("kind", ["itself", "two"])
def test_error_that_is_its_own_cause_harms_nobody(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """``raise error from error`` is logged as any other, and the worker is free again."""
    app = Counting([b"x"], close_error=_ring(kind))
    bridge = WSGIMiddleware(app)
    assert call(bridge).body == b"x"
    assert our_log(caplog) == [("ERROR", "close() of the WSGI app's iterable raised")]
    assert bridge.statistics().busy == 0


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (faults.no_head, "before it called start_response()"),
        (faults.second_head, "a second time without exc_info"),
        (lambda: faults.too_short(3), "ended 3 bytes before its Content-Length"),
        (lambda: _raised(faults.as_bytes, "text"), "sent a chunk of type str"),
        (lambda: _raised(faults.as_bytes, 65), "return bytes instead of [bytes]"),
        (lambda: _raised(faults.error_of, ValueError()), "an exc_info of type ValueError"),
        (lambda: _raised(faults.error_of, (1, 2, 3)), "an exc_info of type tuple"),
        (lambda: _raised(faults.iterator_of, None), "returned NoneType, which is not iterable"),
    ],
)
def test_fault_says_what_happened_by_which_rule_and_how_to_mend_it(fault: Callable[[], Exception], says: str) -> None:
    """The first sentence has what happened, one cites the rule, and the last is an instruction."""
    error = fault()
    assert isinstance(error, AppProtocolError)
    text = str(error)
    assert says in text
    assert "PEP 3333" in text or "RFC 91" in text
    assert text.startswith("The WSGI app")
    assert text.endswith(".")


def _raised(function: Callable[[Any], object], argument: object) -> BaseException:
    with pytest.raises(AppProtocolError) as caught:
        function(argument)
    return caught.value


def test_second_head_is_what_apps_of_wsgiref_expect() -> None:
    """An AssertionError is what wsgiref raises there."""
    assert isinstance(faults.second_head(), AssertionError)


def test_error_of_exc_info_is_found() -> None:
    """Also of three Nones, which say that there is no error."""
    error = ValueError("of the app")
    assert faults.error_of((ValueError, error, None)) is error
    assert faults.error_of(sys.exc_info()) is None


def test_bytes_of_a_subclass_are_its_own() -> None:
    """A subclass of ``bytes`` may have a ``__bytes__`` or a ``__len__`` that says something else."""

    class Liar(bytes):
        def __bytes__(self) -> bytes:
            return b"other"

        def __len__(self) -> int:
            return 99

    assert faults.as_bytes(Liar(b"true")) == b"true"


def test_iterator_that_fails_raises_its_own_error() -> None:
    """A TypeError of the app's ``__iter__`` is not taken for a missing one."""

    class Broken:
        def __iter__(self) -> Any:
            raise TypeError("of the app")

    with pytest.raises(TypeError, match=r"^of the app$"):
        faults.iterator_of(Broken())


@pytest.mark.parametrize(
    ("iterable", "holds"), [([b"a"], True), ([], False), ([b"a", b"b"], False), (iter([b"a"]), False)]
)
def test_iterable_says_whether_it_holds_one(iterable: object, holds: bool) -> None:
    """PEP 3333 has a server ask for the length."""
    assert faults.holds_one(iterable) is holds


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ClientDisconnected("it left"), True),
        (RequestTooLarge(5), True),
        (ValueError("of the app"), False),
        (None, False),
        (_ring("itself"), False),
        (_ring("two"), False),
    ],
)
def test_ending_is_found_among_the_causes(error: BaseException | None, told: bool) -> None:
    """An app may raise an error of its own from ours, or while it handles ours; rings end, too."""
    assert faults.is_of_an_ending(error) is told
    if error is not None and error.__cause__ is None:
        outer = KeyError("of the app")
        outer.__cause__ = error
        assert faults.is_of_an_ending(outer) is told
        during = KeyError("of the app")
        during.__context__ = error
        assert faults.is_of_an_ending(during) is told


def test_error_that_cannot_be_looked_at_is_of_no_ending_unless_raised_from_one() -> None:
    """Its causes are found where Python keeps them, whatever its attributes do."""
    error = Twofaced()
    assert not faults.is_of_an_ending(error)
    error.__context__ = ClientDisconnected("it left")
    assert faults.is_of_an_ending(error)


@pytest.mark.parametrize("kind", [BrokenPipeError, ConnectionAbortedError, ConnectionResetError])
def test_error_of_a_write_is_of_the_socket_once_that_has_ended(kind: type[OSError]) -> None:
    """Before that it is another connection's, as of a database. Windows says that a connection was aborted."""
    assert faults.is_of_used_socket(kind(), ended=True)
    assert not faults.is_of_used_socket(kind(), ended=False)
    assert not faults.is_of_used_socket(type("OfADatabase", (kind,), {})(), ended=True)


def test_error_is_raised_in_a_coroutine_as_it_is_or_wrapped() -> None:
    """What would end the loop, or what PEP 479 turns into something else, becomes the cause of an AppError."""
    error = ValueError("of the app")
    assert faults.fit_for_a_loop(error) is error
    for failure in (StopIteration(), SystemExit(), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()):
        wrapped = faults.fit_for_a_loop(failure)
        assert isinstance(wrapped, AppError)
        assert wrapped.__cause__ is failure
        assert type(failure).__name__ in str(wrapped)
