"""What an app is told of its mistakes: what happened, why it matters, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from a2wsgi import AppProtocolError, ClientDisconnected
from a2wsgi._asgi_on_wsgi import faults


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (faults.no_response, ["returned without a response", "ASGI HTTP 2.5", "Send both"]),
        (faults.unfinished, ["before the end of its response", '"Response Body"', "more_body is False"]),
        (faults.body_before_head, ["http.response.body before http.response.start", "Send http.response.start once"]),
        (faults.second_head, ["http.response.start a second time", '"Response Start"', "Send it once"]),
        (faults.no_status, ["without a status", '"Response Start"', '"status": 200']),
        (lambda: faults.too_short(3), ["3 bytes before its Content-Length", "RFC 9112 §8"]),
        (lambda: faults.unknown("http.response.unheard_of"), ["'http.response.unheard_of'", 'scope["extensions"]']),
    ],
)
def test_fault_says_what_happened_and_why_and_how_to_mend_it(
    fault: Callable[[], BaseException], says: list[str]
) -> None:
    """Each is the app's fault, and its text has the value, the source and the way out."""
    error = fault()
    assert type(error) is AppProtocolError
    assert [part for part in says if part not in str(error)] == []


def test_body_that_broke_off_is_the_clients_fault() -> None:
    """An app that returns when it is told of it has done nothing wrong."""
    assert type(faults.body_broke_off()) is ClientDisconnected


class Nasty:
    """Something whose ``repr`` raises."""

    def __repr__(self) -> str:
        raise RuntimeError("repr fails")


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("http.x", "'http.x'"),
        ("x" * 100, repr("x" * 80)),
        (None, "(a NoneType, not a str)"),
        (Nasty(), "(a Nasty, not a str)"),
    ],
)
def test_type_of_a_message_is_shown_safely(kind: object, shown: str) -> None:
    """Long ones are cut, and nothing of the app's is called."""
    assert faults.type_of_message(kind) == shown
    assert shown in str(faults.unknown(kind))


class Bytes(bytes):
    """Bytes, but of a type that no WSGI server takes."""


@pytest.mark.parametrize(
    "body", [b"abc", Bytes(b"abc"), bytearray(b"abc"), memoryview(b"abc"), memoryview(b"aXbXcX")[::2]]
)
def test_as_bytes_gives_exactly_bytes(body: Any) -> None:
    """WSGI servers take nothing else."""
    converted = faults.as_bytes(body)
    assert type(converted) is bytes
    assert converted == b"abc"


def test_as_bytes_copies_what_the_app_may_reuse() -> None:
    """A buffer that is filled again does not change what is queued."""
    buffer = bytearray(b"abc")
    converted = faults.as_bytes(buffer)
    buffer[:] = b"xyz"
    assert converted == b"abc"


@pytest.mark.parametrize("body", ["text", 1, None, [b"abc"], Nasty()])
def test_as_bytes_refuses_what_is_no_bytes(body: object) -> None:
    """The error names the type, and shows no value: a body may be anybody's secret."""
    with pytest.raises(AppProtocolError, match=f"a body of type {type(body).__name__}") as raised:
        faults.as_bytes(body)
    assert "text" not in str(raised.value).replace("Encode text", "")
