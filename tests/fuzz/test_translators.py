"""Translators and heads, with whatever may stand in a scope, an environ or a head.

A translator raises nothing but what it documents; what it makes keeps to its specification; a plain request survives
the way there and back.
"""

from __future__ import annotations

import contextlib
import string
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi import BridgeError
from a2wsgi._protocol.environ import environ_from_scope
from a2wsgi._protocol.framing import BadRequest
from a2wsgi._protocol.headers import response_head_from_asgi, response_head_from_wsgi
from a2wsgi._protocol.scope import scope_from_environ
from support.asgi_driver import http_scope
from support.scripts import WITHOUT
from support.wsgi_driver import environ_of

token = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=10)
values = st.binary(max_size=10).map(lambda data: bytes(byte for byte in data if byte not in b"\r\n\0").strip(b" \t"))
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.lists(st.one_of(st.text(max_size=5), st.binary(max_size=5), st.integers(), st.none()), max_size=3),
    st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=5)), max_size=3),
    st.tuples(st.text(max_size=5)),
    st.tuples(st.text(max_size=5), st.integers()),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    st.builds(object),
)
paths = st.lists(st.binary(min_size=1, max_size=6), max_size=4).map(
    lambda parts: "/" + "/".join(quote_from_bytes(part, "") for part in parts)
)
queries = st.one_of(st.just(b""), st.binary(max_size=10))
#: Names that a bridge drops or joins on purpose: hop-by-hop ones, lengths, and what would forge a CGI variable.
_SETTLED = {"content-length", "content-type", "transfer-encoding", "proxy", "host", "cookie"}
names = token.filter(lambda name: name.lower() not in _SETTLED)
pairs = st.lists(st.tuples(names.map(str.lower).map(str.encode), values), max_size=5, unique_by=lambda pair: pair[0])
addresses = st.one_of(st.none(), st.tuples(st.sampled_from(["127.0.0.1", "::1"]), st.integers(1, 65_535)))


@given(paths, queries, pairs, addresses, st.sampled_from(["GET", "POST", "!ODD~"]), st.sampled_from(["http", "https"]))
def test_scope_survives_the_way_there_and_back(  # noqa: PLR0917 - hypothesis fills them
    target: str, query: bytes, headers: list[tuple[bytes, bytes]], client: Any, method: str, scheme: str
) -> None:
    """What a plain request's scope says is the same when it has been an environ."""
    scope = http_scope(method, target, headers, query_string=query, client=client, scheme=scheme)
    del scope["state"]
    environ = environ_from_scope(dict(scope))
    alone = {key: value for key, value in environ.items() if key != "asgi.scope"}  # without what the outer bridge knew
    back = scope_from_environ(alone)
    for key in ("type", "method", "path", "raw_path", "query_string", "scheme", "client", "server", "http_version"):
        assert back[key] == scope[key], key
    assert sorted(back["headers"]) == sorted(scope["headers"])


@given(paths, queries, pairs)
def test_environ_holds_native_strings_only(target: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """PEP 3333, "Unicode Issues": each CGI variable is a `str` of what latin-1 has."""
    environ = environ_from_scope(http_scope("GET", target, headers, query_string=query))
    for key, value in environ.items():
        if "." not in key:
            assert type(value) is str, key
            value.encode("latin-1")


@pytest.mark.skipif("types" in WITHOUT, reason="left out by FUZZ_WITHOUT")
@given(
    st.sampled_from(
        [
            "method",
            "path",
            "raw_path",
            "root_path",
            "query_string",
            "headers",
            "client",
            "server",
            "scheme",
            "http_version",
        ]
    ),
    anything,
)
def test_scope_of_wrong_types_is_the_servers_fault(key: str, value: object) -> None:
    """Whatever stands in a scope, what is raised names the guilty."""
    with contextlib.suppress(BridgeError, BadRequest):
        environ_from_scope({**http_scope(), key: value})


@pytest.mark.skipif("types" in WITHOUT, reason="left out by FUZZ_WITHOUT")
@given(st.sampled_from(sorted(environ_of())), anything)
def test_environ_of_wrong_types_is_the_servers_fault(key: str, value: object) -> None:
    """Whatever stands in an environ, what is raised names the guilty."""
    with contextlib.suppress(BridgeError, BadRequest):
        scope_from_environ({**environ_of(), key: value})


@pytest.mark.skipif("types" in WITHOUT, reason="left out by FUZZ_WITHOUT")
@given(st.one_of(st.just("200 OK"), anything), st.one_of(st.just([]), anything))
def test_wsgi_head_of_wrong_types_is_the_apps_fault(status: Any, headers: Any) -> None:
    """Whatever an app gives to `start_response`, what is raised names the guilty."""
    with contextlib.suppress(BridgeError):
        response_head_from_wsgi(status, headers)


@pytest.mark.skipif("types" in WITHOUT, reason="left out by FUZZ_WITHOUT")
@given(st.one_of(st.just(200), anything), st.one_of(st.just([]), anything))
def test_asgi_head_of_wrong_types_is_the_apps_fault(status: Any, headers: Any) -> None:
    """Whatever an app sends as its head, what is raised names the guilty."""
    with contextlib.suppress(BridgeError):
        response_head_from_asgi(status, headers)


_any_pair = st.tuples(st.text(max_size=8), st.text(max_size=8))


@given(st.one_of(st.text(max_size=8), st.integers(200, 999).map("{} x".format)), st.lists(_any_pair, max_size=4))
def test_wsgi_head_lets_nothing_through_that_splits(status: str, headers: list[tuple[str, str]]) -> None:
    """A head comes out with tokens for names and values of one line, or not at all (RFC 9110 §5.5)."""
    try:
        head = response_head_from_wsgi(status, headers)
    except BridgeError:
        return
    assert 100 <= head.status <= 999
    for name, value in head.headers:
        assert type(name) is bytes
        assert type(value) is bytes
        assert name
        assert name == name.lower()
        assert not set(name) & set(b"\r\n\0 :")
        assert not set(value) & set(b"\r\n\0")


@given(st.integers(-5, 1200), st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4))
def test_asgi_head_lets_nothing_through_that_splits(status: int, headers: list[tuple[bytes, bytes]]) -> None:
    """The same of a head on its way to a WSGI server."""
    try:
        head = response_head_from_asgi(status, headers)
    except BridgeError:
        return
    assert int(head.status[:3]) == status
    for name, value in head.headers:
        assert type(name) is str
        assert type(value) is str
        assert name
        assert not set(name) & set("\r\n\0 :")
        assert not set(value) & set("\r\n\0")
        value.encode("latin-1")
