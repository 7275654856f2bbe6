"""Status codes and status lines."""

from __future__ import annotations

import http
import string
from typing import cast

import pytest

from a2wsgi._errors import AppProtocolError, InvalidHeader
from a2wsgi._protocol.status import parse_status, status_line

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
SECRET = "hunter2"


# -- Status -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [("200 OK", 200), ("204", 204), ("299 ", 299), ("600 Odd", 600), ("999 X", 999), ("404 Nicht gefunden \xe4", 404)],
)
def test_parse_status_takes_codes_with_and_without_a_reason(status: str, code: int) -> None:
    """RFC 9112 §4: three digits are a status, registered or not, and the reason may be empty."""
    assert parse_status(status) == code


@pytest.mark.parametrize(
    "status", ["", "OK", "20", "2000", "200OK", "200\tOK", " 200 OK", "099 Low", "²00 OK", "-20 X"]
)
def test_parse_status_refuses_what_is_no_status(status: str) -> None:
    """PEP 3333, "The start_response() Callable": a status begins with three digits; the error shows the value."""
    with pytest.raises(AppProtocolError) as caught:
        parse_status(status)
    assert str(caught.value) == (
        f'start_response() was given the status {status!r}. PEP 3333, "The start_response() Callable", requires '
        'three digits, a space and a reason. Pass one like "200 OK".'
    )


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "103 Early Hints", "103", "199 Odd"])
def test_parse_status_refuses_an_interim_status(status: str) -> None:
    """RFC 9110 §15.2: after a 1xx the client waits for another, and would take the next request's."""
    with pytest.raises(AppProtocolError, match=rf"the status '{status}'\. RFC 9110 §15\.2"):
        parse_status(status)


@pytest.mark.parametrize("status", [200, b"200 OK", None, ["200 OK"], {}])
def test_parse_status_names_the_type_of_what_is_no_str(status: object) -> None:
    """PEP 3333, "The start_response() Callable": a status is a native string."""
    with pytest.raises(AppProtocolError, match=rf"a status of type {type(status).__name__}\."):
        parse_status(cast("str", status))


@pytest.mark.parametrize("status", ["200 OK\r\nX: y", "200 OK\n", "200 OK\r", "200 O\0K", "\r"])
def test_parse_status_refuses_the_end_of_a_line(status: str) -> None:
    """RFC 9112 §4: CR, LF or NUL in a status would let an attacker write headers."""
    with pytest.raises(InvalidHeader, match="The status contains CR, LF or NUL"):
        parse_status(status)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (200, "200 OK"),
        (http.HTTPStatus.NOT_FOUND, "404 Not Found"),
        (413, "413 Content Too Large"),
        (414, "414 URI Too Long"),
        (416, "416 Range Not Satisfiable"),
        (418, "418 I'm a Teapot"),
        (422, "422 Unprocessable Content"),
        (299, "299 Unknown Status Code"),
        (599, "599 Unknown Status Code"),
        (999, "999 Unknown Status Code"),
    ],
)
def test_status_line_has_a_reason_that_no_python_changes(code: int, line: str) -> None:
    """PEP 3333, "The start_response() Callable": a status has a reason, the same on every version of Python."""
    assert status_line(code) == line


def test_status_line_knows_what_the_standard_library_knows() -> None:
    """RFC 9110 §15: no registered status is said to be unknown."""
    assert [code for code in http.HTTPStatus if code >= 200 and "Unknown" in status_line(code)] == []


@pytest.mark.parametrize("code", [100, 101, 103, 199, http.HTTPStatus.EARLY_HINTS])
def test_status_line_refuses_an_interim_status(code: int) -> None:
    """RFC 9110 §15.2: after a 1xx the client waits for another, and would take the next request's."""
    with pytest.raises(AppProtocolError, match=rf"the status {int(code)}\. RFC 9110 §15\.2"):
        status_line(code)


@pytest.mark.parametrize("code", [True, False, 200.0, "200", b"200", None, 99, 1000, -200, 0])
def test_status_line_refuses_what_is_no_code(code: object) -> None:
    """ASGI HTTP 2.5, "Response Start": a status is an int of three digits; the error shows the value."""
    with pytest.raises(AppProtocolError) as caught:
        status_line(cast("int", code))
    assert f"the status {str(code)!r} of type {type(code).__name__}" in str(caught.value)
