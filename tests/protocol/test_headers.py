"""The head of a response in each direction: one test a rule."""

from __future__ import annotations

import http
import string
from collections.abc import Iterator
from typing import Any, cast
from wsgiref.util import is_hop_by_hop

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi._errors import AppProtocolError, InvalidHeader
from a2wsgi._protocol.headers import (
    ASGIResponseHead,
    WSGIResponseHead,
    response_head_from_asgi,
    response_head_from_wsgi,
)
from a2wsgi._protocol.names import (
    HOP_BY_HOP,
    HOP_BY_HOP_BYTES,
)
from a2wsgi._protocol.status import status_line

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
SECRET = "hunter2"


# -- Heads of WSGI responses ------------------------------------------------------------------------------------------


def test_response_head_from_wsgi_is_what_asgi_servers_take() -> None:
    """ASGI HTTP 2.5, "Response Start": names in lower case, bytes, tuples in a list, in the order of the app."""
    head = response_head_from_wsgi(
        "201 Created",
        [("Content-Type", "text/plain"), ("Content-Length", "12"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2")],
    )
    assert head == ASGIResponseHead(
        201,
        [
            (b"content-type", b"text/plain"),
            (b"content-length", b"12"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
        ],
        12,
        (),
    )


def test_response_head_from_wsgi_takes_any_iterable_of_pairs() -> None:
    """PEP 3333 wants a list of tuples; an iterator of lists does no harm."""
    pairs = cast("Iterator[tuple[str, str]]", iter([["A", "b"], ["C", "d"]]))
    assert response_head_from_wsgi("200 OK", pairs) == ASGIResponseHead(200, [(b"a", b"b"), (b"c", b"d")], None, ())


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("x", b"x"),
        (" x ", b"x"),
        ("\tx\t ", b"x"),
        ("", b""),
        ("a\tb", b"a\tb"),
        ("\xe9", b"\xe9"),
        ("Ã\xa0", b"\xc3\xa0"),
    ],
)
def test_response_head_from_wsgi_sends_values_as_latin_1(value: str, sent: bytes) -> None:
    """RFC 9110 §5.5: whitespace around a value is none of it; any other byte is, also half of a UTF-8 sequence."""
    assert response_head_from_wsgi("200 OK", [("X", value)]).headers == [(b"x", sent)]


def test_response_head_from_wsgi_drops_and_names_hop_by_hop_headers() -> None:
    """PEP 3333, "Other HTTP Features": hop-by-hop headers are the server's."""
    given_headers = [(name.title(), "x") for name in sorted(HOP_BY_HOP)] + [("X", "y")]
    head = response_head_from_wsgi("200 OK", given_headers)
    assert head == ASGIResponseHead(200, [(b"x", b"y")], None, tuple(sorted(HOP_BY_HOP)))


def test_response_heads_name_a_dropped_header_once() -> None:
    """However often an app sets a hop-by-hop header, its name is told once."""
    names = ["Connection", "connection", "Upgrade"] * 3
    assert response_head_from_wsgi("200 OK", [(name, "x") for name in names]).dropped == ("connection", "upgrade")
    assert response_head_from_asgi(200, [(name.encode(), b"x") for name in names]).dropped == ("connection", "upgrade")


def test_hop_by_hop_has_all_that_wsgiref_refuses() -> None:
    """PEP 3333, "Other HTTP Features": what wsgiref asserts against is dropped, in both kinds of string."""
    assert {name.encode() for name in HOP_BY_HOP} == HOP_BY_HOP_BYTES
    candidates = {*HOP_BY_HOP, "connection", "keep-alive", "te", "trailers", "upgrade", "proxy-authenticate"}
    assert {name for name in candidates if is_hop_by_hop(name)} <= HOP_BY_HOP


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\n", "a\0", "ä", "€", " a", "a "])
def test_response_head_from_wsgi_refuses_a_name_that_is_no_token(name: str) -> None:
    """RFC 9110 §5.1: a field name is a token."""
    with pytest.raises(InvalidHeader, match="is not a token"):
        response_head_from_wsgi("200 OK", [(name, SECRET)])


@pytest.mark.parametrize("end", ["\r\nX-Injected: 1", "\n", "\r", "\0", "\r\n"])
def test_response_head_from_wsgi_refuses_the_end_of_a_line(end: str) -> None:
    """RFC 9110 §5.5: CR, LF or NUL in a value is an error that names the header, and never shows the value."""
    with pytest.raises(InvalidHeader) as caught:
        response_head_from_wsgi("200 OK", [("X-Ok", "1"), ("X-Token", SECRET + end)])
    assert str(caught.value) == (
        "The value of the response header 'X-Token' contains CR, LF or NUL (RFC 9110 §5.5). Nothing was sent. Fix "
        "it where the app sets it."
    )


def test_response_head_from_wsgi_refuses_what_is_not_latin_1() -> None:
    """PEP 3333, "Unicode Issues": a value beyond latin-1 is an error that names the header, never the value."""
    with pytest.raises(InvalidHeader) as caught:
        response_head_from_wsgi("200 OK", [("X-Token", SECRET + "€")])
    assert str(caught.value).startswith("The value of the response header 'X-Token' is not latin-1 (PEP 3333")
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ([("X", b"hunter2")], "the header 'X' with a value of type bytes"),
        ([("X", 5)], "the header 'X' with a value of type int"),
        ([("X", None)], "the header 'X' with a value of type NoneType"),
        ([(b"X", "hunter2")], "a header name of type bytes"),
        ([(None, "hunter2")], "a header name of type NoneType"),
        ([(["X"], "hunter2")], "a header name of type list"),
        ([("X",)], "headers that hold something of type tuple"),
        ([("X", "y", "z")], "headers that hold something of type tuple"),
        (["X: hunter2"], "headers that hold something of type str"),
        ([5], "headers that hold something of type int"),
        (None, "headers that hold something of type NoneType"),
        (5, "headers that hold something of type int"),
    ],
)
def test_response_head_from_wsgi_names_what_is_of_a_wrong_type(headers: Any, complaint: str) -> None:
    """PEP 3333, "The start_response() Callable": headers are pairs of str; the error tells which is not."""
    with pytest.raises(AppProtocolError) as caught:
        response_head_from_wsgi("200 OK", headers)
    assert str(caught.value) == (
        f'The app\'s response has {complaint}. PEP 3333, "The start_response() Callable", requires pairs of str. Make '
        'each a str: value.decode("latin-1"), str(5).'
    )
    assert SECRET not in str(caught.value)


def test_response_head_from_wsgi_shows_what_the_headers_themselves_raised() -> None:
    """PEP 3333 wants a list; where an iterator of the app fails instead, its error is the cause."""

    def headers() -> Iterator[tuple[str, str]]:
        yield "X", "y"
        raise ValueError("of the app")

    with pytest.raises(AppProtocolError) as caught:
        response_head_from_wsgi("200 OK", headers())
    assert str(caught.value.__cause__) == "of the app"


@pytest.mark.parametrize("values", [["5"], ["5", "5"], ["5, 5"], [" 5 "], ["005"]])
def test_response_head_from_wsgi_reads_the_length(values: list[str]) -> None:
    """RFC 9110 §8.6: repeats of Content-Length that say the same are sent as one."""
    head = response_head_from_wsgi("200 OK", [("Content-Length", value) for value in values])
    assert head == ASGIResponseHead(200, [(b"content-length", b"5")], 5, ())


@pytest.mark.parametrize("values", [["5", "6"], ["5, 6"], ["x"], [""], ["-1"], ["5", "x"]])
def test_response_head_from_wsgi_refuses_a_wrong_length(values: list[str]) -> None:
    """RFC 9110 §8.6: a Content-Length that is no number, or two that differ, are the app's error."""
    with pytest.raises(AppProtocolError, match="Content-Length"):
        response_head_from_wsgi("200 OK", [("Content-Length", value) for value in values])


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_response_head_from_wsgi_has_no_length_where_none_may_be(status: str) -> None:
    """RFC 9110 §8.6: no Content-Length with 204; and none with 304, as uvicorn would wait for that many bytes."""
    head = response_head_from_wsgi(status, [("Content-Length", "7"), ("X", "y")])
    assert head == ASGIResponseHead(int(status[:3]), [(b"x", b"y")], None, ())


# -- Heads of ASGI responses ------------------------------------------------------------------------------------------


def test_response_head_from_asgi_is_what_wsgi_servers_take() -> None:
    """PEP 3333, "The start_response() Callable": a status with a reason, a list of tuples of native strings."""
    head = response_head_from_asgi(
        201, [(b"content-type", b"text/plain"), (b"Content-Length", b"12"), (b"set-cookie", b"a=1"), (b"x", b"\xe9\t ")]
    )
    assert head == WSGIResponseHead(
        "201 Created",
        201,
        [("content-type", "text/plain"), ("Content-Length", "12"), ("set-cookie", "a=1"), ("x", "\xe9")],
        12,
        (),
    )


@pytest.mark.parametrize(
    "headers",
    [
        [(b"a", b"b"), (b"c", b"d")],
        ((b"a", b"b"), (b"c", b"d")),
        iter([[b"a", b"b"], [b"c", b"d"]]),
        [(bytearray(b"a"), bytearray(b"b")), (memoryview(b"c"), memoryview(b"d"))],
        [(b"a", memoryview(b"b")), (memoryview(bytearray(b"c")), b"d")],
        {b"a": b"b", b"c": b"d"}.items(),
    ],
)
def test_response_head_from_asgi_takes_any_iterable_of_pairs(headers: Any) -> None:
    """ASGI HTTP 2.5, "Response Start": an iterable of two-item iterables; what is like bytes does no harm."""
    assert response_head_from_asgi(200, headers) == WSGIResponseHead("200 OK", 200, [("a", "b"), ("c", "d")], None, ())


@pytest.mark.parametrize("headers", [None, [], (), iter(())])
def test_response_head_from_asgi_takes_no_headers(headers: Any) -> None:
    """ASGI HTTP 2.5, "Response Start": headers are optional."""
    assert response_head_from_asgi(200, headers) == WSGIResponseHead("200 OK", 200, [], None, ())


def test_response_head_from_asgi_has_a_plain_code() -> None:
    """ASGI HTTP 2.5, "Response Start": a member of an enum is an int; the code that goes on is nothing else."""
    code = response_head_from_asgi(http.HTTPStatus.ACCEPTED, None).code
    assert (type(code), code) == (int, 202)


def test_response_head_from_asgi_drops_and_names_hop_by_hop_headers() -> None:
    """PEP 3333, "Other HTTP Features": wsgiref and waitress fail on a hop-by-hop header."""
    given_headers = [(name.encode(), b"x") for name in sorted(HOP_BY_HOP)] + [(b"x", b"y")]
    head = response_head_from_asgi(200, given_headers)
    assert head == WSGIResponseHead("200 OK", 200, [("x", "y")], None, tuple(sorted(HOP_BY_HOP)))


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"a\n", b"a\0", b"\xe4", b" a", b"a "])
def test_response_head_from_asgi_refuses_a_name_that_is_no_token(name: bytes) -> None:
    """RFC 9110 §5.1: a field name is a token."""
    with pytest.raises(InvalidHeader, match="is not a token"):
        response_head_from_asgi(200, [(name, SECRET.encode())])


@pytest.mark.parametrize("end", [b"\r\nX-Injected: 1", b"\n", b"\r", b"\0"])
def test_response_head_from_asgi_refuses_the_end_of_a_line(end: bytes) -> None:
    """RFC 9110 §5.5: CR, LF or NUL in a value is an error that names the header, and never shows the value."""
    with pytest.raises(InvalidHeader) as caught:
        response_head_from_asgi(200, [(b"x-token", SECRET.encode() + end)])
    assert str(caught.value).startswith("The value of the response header 'x-token' contains CR, LF or NUL")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ([(b"x", "hunter2")], "the header b'x' with a value of type str"),
        ([(b"x", 5)], "the header b'x' with a value of type int"),
        ([("x", b"hunter2")], "a header name of type str"),
        ([(b"x",)], "headers that hold something of type tuple"),
        ([None], "headers that hold something of type NoneType"),
        (5, "headers that hold something of type int"),
    ],
)
def test_response_head_from_asgi_names_what_is_of_a_wrong_type(headers: Any, complaint: str) -> None:
    """ASGI HTTP 2.5, "Response Start": headers are pairs of bytes; the error tells which is not, and how to mend it."""
    with pytest.raises(AppProtocolError) as caught:
        response_head_from_asgi(200, headers)
    assert str(caught.value) == (
        f'The app\'s response has {complaint}. ASGI HTTP 2.5, "Response Start", requires pairs of bytes. Make each '
        "bytes: "
        'value.encode("latin-1").'
    )


@pytest.mark.parametrize("values", [[b"5"], [b"5", b"5"], [b"5, 5"], [b" 5 "]])
def test_response_head_from_asgi_reads_the_length(values: list[bytes]) -> None:
    """RFC 9110 §8.6: repeats of Content-Length that say the same are sent as one."""
    head = response_head_from_asgi(200, [(b"content-length", value) for value in values])
    assert head == WSGIResponseHead("200 OK", 200, [("content-length", "5")], 5, ())


@pytest.mark.parametrize("values", [[b"5", b"6"], [b"x"], [b""]])
def test_response_head_from_asgi_refuses_a_wrong_length(values: list[bytes]) -> None:
    """RFC 9110 §8.6: a Content-Length that is no number, or two that differ, are the app's error."""
    with pytest.raises(AppProtocolError, match="Content-Length"):
        response_head_from_asgi(200, [(b"content-length", value) for value in values])


def test_response_head_from_asgi_has_no_length_with_204() -> None:
    """RFC 9110 §8.6: a 204 has no Content-Length."""
    head = response_head_from_asgi(204, [(b"Content-Length", b"0"), (b"x", b"y")])
    assert head == WSGIResponseHead("204 No Content", 204, [("x", "y")], None, ())


def test_response_head_from_asgi_keeps_the_length_of_a_304() -> None:
    """RFC 9110 §8.6: a 304 may say how long the body would have been, and WSGI servers send it on."""
    head = response_head_from_asgi(304, [(b"Content-Length", b"7")])
    assert head == WSGIResponseHead("304 Not Modified", 304, [("Content-Length", "7")], 7, ())


HEADERS = st.lists(
    st.tuples(
        st.text(TOKEN_CHARACTERS, min_size=1).filter(lambda name: name.lower() not in {*HOP_BY_HOP, "content-length"}),
        st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")).map(lambda value: value.strip(" \t")),
    )
)


@given(st.integers(200, 999), HEADERS)
def test_response_heads_are_inverses(code: int, headers: list[tuple[str, str]]) -> None:
    """ASGI HTTP 2.5 and PEP 3333 say the same of a head, but for the letter case of names."""
    lowered = [(name.lower(), value) for name, value in headers]
    asgi = response_head_from_wsgi(status_line(code), headers)
    wsgi = response_head_from_asgi(asgi.status, asgi.headers)
    assert wsgi == WSGIResponseHead(status_line(code), code, lowered, None, ())
    assert response_head_from_wsgi(wsgi.status, wsgi.headers) == asgi
