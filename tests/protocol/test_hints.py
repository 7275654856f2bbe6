"""Early hints in each direction: one test a rule."""

from __future__ import annotations

from typing import Any

import pytest

from a2wsgi._errors import AppProtocolError, InvalidHeader
from a2wsgi._protocol.hints import hint_from_asgi, links_from_wsgi

STYLE = "</style.css>; rel=preload; as=style"
SECRET = "hunter2"


def test_links_from_wsgi_are_the_values_of_link_headers() -> None:
    """ASGI, "Early Hints": its message has links alone. Names are matched in any letter case."""
    headers = [("Link", STYLE), ("X-Other", "1"), ("link", "</a.js>"), ("Content-Security-Policy", "x")]
    assert links_from_wsgi(headers) == [STYLE.encode(), b"</a.js>"]


@pytest.mark.parametrize("pair", [("Link", STYLE), (b"Link", STYLE.encode()), ["Link", f" \t{STYLE} "]], ids=repr)
def test_links_from_wsgi_take_what_gunicorn_takes(pair: Any) -> None:
    """Pairs of either string, in any iterable, with spaces around the value."""
    assert links_from_wsgi(iter([pair])) == [STYLE.encode()]


def test_links_from_wsgi_are_latin_1() -> None:
    """PEP 3333, "Unicode Issues"."""
    assert links_from_wsgi([("Link", "</\xe4>")]) == [b"</\xe4>"]


@pytest.mark.parametrize("name", ["", "Li nk", "Link:", "Link\r\nX", "L\xefnk"])
def test_name_of_a_hint_is_a_token(name: str) -> None:
    """RFC 9110 §5.1."""
    with pytest.raises(InvalidHeader, match="not a token") as raised:
        links_from_wsgi([(name, SECRET)])
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("name", ["Link", "X-Other"])
@pytest.mark.parametrize("end", ["\r", "\n", "\0", "\r\nSet-Cookie: a=b"], ids=repr)
def test_value_of_a_hint_cannot_begin_another_header(name: str, end: str) -> None:
    """RFC 9110 §5.5. Also that of a header which is left out: elsewhere it would be sent."""
    with pytest.raises(InvalidHeader, match="CR, LF or NUL") as raised:
        links_from_wsgi([(name, SECRET + end)])
    assert SECRET not in str(raised.value)


def test_value_of_a_hint_that_is_not_latin_1_is_an_error() -> None:
    """The error does not show it."""
    with pytest.raises(InvalidHeader, match="not latin-1") as raised:
        links_from_wsgi([("Link", f"{SECRET}€")])
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("headers", [None, 5, [5], ["Link"], [("Link",)], [("Link", 5)], [(5, "")], {"Link": "x"}])
def test_hint_that_is_no_list_of_pairs_is_the_apps_error(headers: Any) -> None:
    """The error shows how it is done."""
    with pytest.raises(AppProtocolError, match="list of pairs of strings"):
        links_from_wsgi(headers)


def test_hint_without_a_link_says_nothing() -> None:
    """So nothing is sent."""
    assert links_from_wsgi([]) == links_from_wsgi([("X-Other", "1")]) == links_from_wsgi([("Link", " ")]) == []
    assert hint_from_asgi([]) == hint_from_asgi([b""]) == []


@pytest.mark.parametrize("link", [STYLE.encode(), bytearray(STYLE.encode()), memoryview(STYLE.encode()), b" x\t"])
def test_hint_from_asgi_has_a_header_for_each_link(link: Any) -> None:
    """Native strings, as ``start_response()`` takes them."""
    value = bytes(link).decode().strip()
    assert hint_from_asgi(iter([link, b"</\xe4>"])) == [("Link", value), ("Link", "</\xe4>")]


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\0", b"\r\nSet-Cookie: a=b"])
def test_link_from_asgi_cannot_begin_another_header(end: bytes) -> None:
    """RFC 9110 §5.5."""
    with pytest.raises(InvalidHeader, match="CR, LF or NUL") as raised:
        hint_from_asgi([SECRET.encode() + end])
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("links", [None, 5, "x", b"</a>", ["x"], [5], [None]], ids=repr)
def test_links_that_are_no_list_of_bytes_are_the_apps_error(links: Any) -> None:
    """A string is none, though it can be iterated over."""
    with pytest.raises(AppProtocolError, match='"links" that are not a list of bytes'):
        hint_from_asgi(links)
