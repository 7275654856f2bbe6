"""What a header, a status and a length may be: one test a rule."""

from __future__ import annotations

import http
import string
from collections.abc import Iterator
from typing import Any, cast
from wsgiref.util import is_hop_by_hop

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi import _headers
from a2wsgi._errors import AppProtocolError, InvalidHeader
from a2wsgi._headers import (
    ENVIRON_KEYS,
    ENVIRON_KEYS_WITH_UNDERSCORES,
    HOP_BY_HOP,
    HOP_BY_HOP_BYTES,
    REQUEST_NAMES,
    ASGIResponseHead,
    BadRequest,
    WSGIResponseHead,
    content_length,
    no_body,
    parse_status,
    response_head_from_asgi,
    response_head_from_wsgi,
    status_line,
)

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
SECRET = "hunter2"

# -- Names of request headers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"host", "HTTP_HOST"),
        (b"X-Forwarded-For", "HTTP_X_FORWARDED_FOR"),
        (b"USER-AGENT", "HTTP_USER_AGENT"),
        (b"x.y~z", "HTTP_X.Y~Z"),
        (b"content-type", "CONTENT_TYPE"),
        (b"Content-Length", "CONTENT_LENGTH"),
        (b"content-encoding", "HTTP_CONTENT_ENCODING"),
    ],
)
def test_environ_keys_are_those_of_cgi(name: bytes, key: str) -> None:
    """RFC 3875 §4.1.18: a header in any letter case has a key in upper case, two of them without ``HTTP_``."""
    assert ENVIRON_KEYS[name] == ENVIRON_KEYS_WITH_UNDERSCORES[name] == key


@pytest.mark.parametrize("name", [b"x_user", b"X_User", b"_", b"content_length", b"Content_Type"])
def test_environ_keys_have_none_for_a_name_with_an_underscore(name: bytes) -> None:
    """PEP 3333, "environ Variables": ``X_User`` would be taken for ``X-User``, so it is dropped."""
    assert ENVIRON_KEYS[name] == ""


def test_environ_keys_have_one_for_an_underscore_when_that_is_allowed() -> None:
    """With ``allow_underscores`` a name with an underscore has the key of its twin with a hyphen."""
    assert ENVIRON_KEYS_WITH_UNDERSCORES[b"x_user"] == "HTTP_X_USER"


@pytest.mark.parametrize("name", [b"content_length", b"Content_Type", b"CONTENT_LENGTH"])
def test_environ_keys_never_have_one_for_a_forged_length_or_type(name: bytes) -> None:
    """RFC 3875 §4.1.2: no other header can make ``CONTENT_LENGTH``, even where underscores are allowed."""
    assert ENVIRON_KEYS_WITH_UNDERSCORES[name] == ""


@pytest.mark.parametrize("name", [b"proxy", b"Proxy", b"PROXY"])
def test_environ_keys_have_none_for_proxy(name: bytes) -> None:
    """CVE-2016-5385 (httpoxy): a client cannot set ``HTTP_PROXY``."""
    assert ENVIRON_KEYS[name] == ENVIRON_KEYS_WITH_UNDERSCORES[name] == ""


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b":path", b"a\r\n", b"a\0", "ä".encode(), b"\xe4", b"a,b", b'"'])
def test_environ_keys_have_none_for_what_is_no_token(name: bytes) -> None:
    """RFC 9110 §5.1: what is no token is no header's name, whatever the server let through."""
    assert ENVIRON_KEYS[name] == ENVIRON_KEYS_WITH_UNDERSCORES[name] == ""


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("HTTP_HOST", b"host"),
        ("HTTP_X_FORWARDED_FOR", b"x-forwarded-for"),
        ("CONTENT_TYPE", b"content-type"),
        ("CONTENT_LENGTH", b"content-length"),
        ("HTTP_CONTENT_TYPE", b""),
        ("HTTP_CONTENT_LENGTH", b""),
        ("HTTP_PROXY", b""),
        ("HTTP_", b""),
        ("HTTP_A B", b""),
        ("HTTP_\xe4", b""),
        ("HTTPS", b""),
        ("PATH", b""),
        ("wsgi.input", b""),
    ],
)
def test_request_names_are_those_of_the_headers_in_an_environ(key: str, name: bytes) -> None:
    """RFC 3875 §4.1.18: only ``HTTP_*`` is a header, besides the length and the type; none is there twice."""
    assert REQUEST_NAMES[key] == name


@given(st.text(TOKEN_CHARACTERS, min_size=1).filter(lambda name: "_" not in name and name.lower() != "proxy"))
def test_names_come_back_from_the_environ_in_lower_case(name: str) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": a name that went through an environ is the same, in lower case."""
    assert REQUEST_NAMES[ENVIRON_KEYS[name.encode()]] == name.lower().encode()


def test_caches_stay_bounded_when_clients_invent_names() -> None:
    """A flood of odd names neither fills the memory nor drives out what comes after it; long names are not kept."""
    for number in range(3 * _headers._CACHED_NAMES):
        assert ENVIRON_KEYS[b"x-flood-%d" % number] == f"HTTP_X_FLOOD_{number}"
        assert len(ENVIRON_KEYS) <= _headers._CACHED_NAMES
    long = b"x-" + b"a" * _headers._CACHED_NAME_LENGTH
    assert ENVIRON_KEYS[long] == "HTTP_X_" + "A" * _headers._CACHED_NAME_LENGTH
    assert long not in ENVIRON_KEYS
    assert ENVIRON_KEYS[b"host"] == "HTTP_HOST"
    assert b"host" in ENVIRON_KEYS


# -- Content-Length of requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "length"),
    [
        ([], None),
        ([b"0"], 0),
        ([b"5"], 5),
        (["5"], 5),
        ([b" 5\t"], 5),
        ([b"005"], 5),
        ([b"5", b"5"], 5),
        ([b"5, 5"], 5),
        ([b"5,5", "5"], 5),
        ([b"9" * 20], 10**20 - 1),
    ],
)
def test_content_length_is_read(values: list[bytes | str], length: int | None) -> None:
    """RFC 9110 §8.6: digits, and repeats that say the same count as one."""
    assert content_length(values) == length


@pytest.mark.parametrize(
    "value",
    [
        *[
            "",
            " ",
            "+5",
            "-5",
            "5_0",
            "0x5",
            "5.0",
            "5 0",
            "5,",
            ",5",
            "5,,5",
            "abc",
            "5\n",
            "5\0",
            "\xb2",
            "\u0665",
            "\xbd",
        ],
        "9" * 21,
        "5" * 5000,
    ],
)
def test_content_length_is_refused_when_it_is_no_number(value: str) -> None:
    """RFC 9110 §8.6: signs, underscores, other digits than ASCII's and more than any body needs are malformed."""
    with pytest.raises(BadRequest, match="Content-Length is not a number"):
        content_length([value])


def test_content_length_is_refused_when_repeats_differ() -> None:
    """RFC 9112 §6.3: a request whose lengths differ is a 400, and never one of the two."""
    with pytest.raises(BadRequest, match=r"each of \[5, 6\]"):
        content_length([b"5", b"6"])
    with pytest.raises(BadRequest, match=r"each of \[5, 6\]"):
        content_length([b"6, 5"])


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
        f'start_response() was given the status {status!r}. PEP 3333, "The start_response() Callable", wants three '
        'digits, a space and a reason. Give it one like "200 OK".'
    )


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
    assert [code for code in http.HTTPStatus if "Unknown" in status_line(code)] == []


@pytest.mark.parametrize("code", [True, False, 200.0, "200", b"200", None, 99, 1000, -200, 0])
def test_status_line_refuses_what_is_no_code(code: object) -> None:
    """ASGI HTTP 2.5, "Response Start": a status is an int of three digits; the error shows the value."""
    with pytest.raises(AppProtocolError) as caught:
        status_line(cast("int", code))
    assert f"the status {str(code)!r} of type {type(code).__name__}" in str(caught.value)


# -- Bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "none"),
    [
        ("GET", 200, False),
        ("HEAD", 200, True),
        ("HEAD", 404, True),
        ("GET", 100, True),
        ("GET", 199, True),
        ("GET", 204, True),
        ("POST", 304, True),
        ("GET", 205, False),
        ("GET", 404, False),
        ("GET", 599, False),
    ],
)
def test_no_body_is_what_the_spec_says(method: str, status: int, none: bool) -> None:
    """RFC 9110 §6.4.1: no body in a response to HEAD, nor with 1xx, 204 or 304."""
    assert no_body(method, status) is none


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
        "The value of the response header 'X-Token' contains CR, LF or NUL (RFC 9110 §5.5). Nothing was sent. Correct "
        "it where the app makes it."
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
        f'The app\'s response has {complaint}. PEP 3333, "The start_response() Callable", wants pairs of str. Make '
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


@pytest.mark.parametrize("status", ["100 Continue", "103 Early Hints", "204 No Content"])
def test_response_head_from_wsgi_has_no_length_where_none_may_be(status: str) -> None:
    """RFC 9110 §8.6: no Content-Length with 1xx or 204."""
    head = response_head_from_wsgi(status, [("Content-Length", "0"), ("X", "y")])
    assert head == ASGIResponseHead(int(status[:3]), [(b"x", b"y")], None, ())


def test_response_head_from_wsgi_keeps_the_length_of_a_304() -> None:
    """RFC 9110 §8.6: a 304 may say how long the body would have been."""
    head = response_head_from_wsgi("304 Not Modified", [("Content-Length", "7")])
    assert head == ASGIResponseHead(304, [(b"content-length", b"7")], 7, ())


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
        f'The app\'s response has {complaint}. ASGI HTTP 2.5, "Response Start", wants pairs of bytes. Make each bytes: '
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


@pytest.mark.parametrize("status", [101, 103, 204])
def test_response_head_from_asgi_has_no_length_where_none_may_be(status: int) -> None:
    """RFC 9110 §8.6: no Content-Length with 1xx or 204."""
    head = response_head_from_asgi(status, [(b"Content-Length", b"0"), (b"x", b"y")])
    assert head == WSGIResponseHead(status_line(status), status, [("x", "y")], None, ())


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
