"""What a nested bridge takes back: environs and scopes, compared whole."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.translators import (
    HOST,
    Pairs,
    environ_from_scope,
    environ_of,
    in_any_order,
    nested_environ,
    nested_scope,
    one_shot,
    scope_from_environ,
    scope_of,
    scopes,
    to_environ,
    to_scope,
)

# -- Nested bridges ---------------------------------------------------------------------------------------------------


RICH_HEADERS: Pairs = [
    (b"accept", b"a"),
    *HOST,
    (b"cookie", b"a=1"),
    (b"accept", b"b"),
    (b"content-length", b"5"),
    (b"cookie", b"b=2"),
]


def test_nested_scope_is_the_outer_scope() -> None:
    """Nested bridges: an ASGI app under two sees repeated headers, raw path, Unix socket and state as they came."""
    state = {"db": object()}
    scope = scope_of(
        path="/api/a/b",
        raw_path=b"/api/a%2Fb",
        root_path="/api/",
        query_string=b"q",
        headers=RICH_HEADERS,
        client=None,
        server=("/run/app.sock", None),
        state=state,
        extensions={"tls": {"tls_version": 772}},
    )
    seen = nested_scope(dict(scope))
    assert seen == scope
    assert seen["state"] is state


def test_nested_scope_has_no_extension_that_wsgi_cannot_carry() -> None:
    """ASGI HTTP 2.5, "Extensions": a message that WSGI has no word for is not promised to the app."""
    extensions: dict[str, Any] = {"tls": {}, "http.response.pathsend": {}, "websocket.http.response": {}}
    assert nested_scope(scope_of(extensions=extensions)) == scope_of(extensions={"tls": {}})


def test_nested_scope_has_headers_that_were_changed_in_between() -> None:
    """A header that a WSGI middleware changed, added or took away stays so; the others are as they came."""
    changes = {"HTTP_ACCEPT": "c", "HTTP_X_NEW": "1", "HTTP_HOST": ..., "CONTENT_LENGTH": "6"}
    seen = nested_scope(scope_of(headers=RICH_HEADERS), changes)
    headers = [(b"accept", b"c"), (b"cookie", b"a=1"), (b"content-length", b"6"), (b"cookie", b"b=2"), (b"x-new", b"1")]
    assert seen == scope_of(headers=headers)


def test_nested_scope_has_the_path_that_was_changed_in_between() -> None:
    """A path that a WSGI middleware split in another way, or rewrote, is what the app sees."""
    scope = scope_of(path="/a/b", raw_path=b"/a/b", root_path="")
    assert nested_scope(scope, {"SCRIPT_NAME": "/a", "PATH_INFO": "/b"}) == {**scope, "root_path": "/a"}
    assert nested_scope(scope, {"PATH_INFO": "/c"}) == {**scope, "path": "/c", "raw_path": b"/c"}


def test_nested_scope_has_the_addresses_that_were_changed_in_between() -> None:
    """A WSGI middleware that believes a proxy is believed."""
    changes = {"REMOTE_ADDR": "203.0.113.9", "REMOTE_PORT": ..., "SERVER_NAME": "example.net", "SERVER_PORT": "443"}
    seen = nested_scope(scope_of(server=("/run/app.sock", None)), {**changes, "wsgi.url_scheme": "https"})
    assert seen == scope_of(client=("203.0.113.9", 0), server=("example.net", 443), scheme="https")


@pytest.mark.parametrize("allow_underscores", [True, False])
def test_nested_scope_has_names_with_underscores_and_no_proxy(allow_underscores: bool) -> None:
    """An ASGI app knows X_User from X-User, as WSGI cannot. What httpoxy (CVE-2016-5385) needs stays dropped."""
    headers = [*HOST, (b"x_user", b"root"), (b"proxy", b"http://evil/")]
    seen = nested_scope(scope_of(headers=headers), allow_underscores=allow_underscores)
    assert seen == scope_of(headers=[*HOST, (b"x_user", b"root")])


def test_nested_scope_has_the_length_of_a_body_that_the_outer_bridge_took() -> None:
    """PEP 3333, "environ Variables": a chunked body that is complete has a length, and is chunked no more."""
    scope = scope_of(headers=[*HOST, (b"transfer-encoding", b"chunked"), (b"x-a", b"1")])
    seen = nested_scope(scope, {"CONTENT_LENGTH": "5", "HTTP_TRANSFER_ENCODING": ...})
    assert seen == scope_of(headers=[*HOST, (b"x-a", b"1"), (b"content-length", b"5")])


def test_nested_scope_takes_a_plain_scope_of_another_bridge() -> None:
    """1.10.10 put the scope itself into the environ; it is understood."""
    scope = scope_of(headers=RICH_HEADERS)
    assert to_scope({**to_environ(scope), "asgi.scope": scope}) == scope


@pytest.mark.parametrize("other", [None, "x", 5])
def test_keys_that_are_of_no_bridge_are_left_alone(other: object) -> None:
    """Nested bridges: what is called as ours, and is not, takes nothing back."""
    assert to_scope({**environ_of(), "asgi.scope": other}) == scope_of()
    assert to_environ(scope_of(wsgi_environ=other)) == environ_of()


def test_nested_environ_is_the_outer_environ() -> None:
    """Nested bridges: a WSGI app under two bridges sees the keys of the server that ASGI has no word for."""
    environ = environ_of(
        PATH_INFO="/x",
        URI="http://example.org/x?",
        CONTENT_LENGTH="5",
        HTTP_X_UNDER="1",
        SERVER_SOFTWARE="gunicorn",
        REMOTE_USER="me",
        REMOTE_HOST="client",
        HTTPS="off",
        SSL_PROTOCOL="TLSv1.3",
    )
    environ["gunicorn.socket"] = object()
    assert nested_environ(environ) == environ


def test_nested_environ_has_its_own_wsgi_keys() -> None:
    """PEP 3333, "Optional Platform-Specific File Handling": what belongs to the server's call is not passed on."""
    environ = environ_of()
    others = {"wsgi.file_wrapper": iter, "wsgi.input": io.BytesIO(), "a2wsgi.disconnected": object(), "HTTP_PROXY": "x"}
    assert nested_environ({**environ, **others}) == environ


def test_nested_environ_has_what_was_changed_in_between() -> None:
    """An ASGI middleware that mounts, believes a proxy or rewrites the path is believed."""
    environ = environ_of(PATH_INFO="/a/b", URI="/a/b", REMOTE_HOST="client", HTTP_X_A="1")
    seen = nested_environ(environ, root_path="/a", client=None, headers=[*HOST, (b"x-b", b"2")], query_string=b"q")
    assert seen == environ_of(
        SCRIPT_NAME="/a", PATH_INFO="/b", QUERY_STRING="q", URI="/a/b?q", REMOTE_ADDR=..., REMOTE_PORT=..., HTTP_X_B="2"
    )


@given(scopes(), st.integers(1, 3))
def test_nesting_any_depth_changes_nothing(scope: dict[str, Any], depth: int) -> None:
    """Nested bridges: as many bridges as one likes tell the same request."""
    headers = [(b"x-dup", b"1"), (b"x-dup", b"2"), *scope["headers"]]
    inner = outer = {**scope, "headers": headers, "state": {}}
    environ = environ_from_scope(outer)
    for _ in range(depth):
        inner = scope_from_environ(environ_from_scope(inner))
    del inner["wsgi_environ"]
    assert in_any_order(inner) == in_any_order(outer)
    assert to_environ({**inner}) == {key: value for key, value in environ.items() if key != "asgi.scope"}


def test_uwsgi_keys_of_bytes_are_left_alone() -> None:
    """Servers (uWSGI) put bytes into the environ: they are no headers, and reach a nested WSGI app as they are."""
    environ = environ_of()
    environ |= {"uwsgi.node": b"vm", "uwsgi.version": b"2.0.31"}
    assert to_scope(environ) == scope_of()
    assert nested_environ(environ) == environ


def test_nested_scope_has_headers_that_could_be_read_once() -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": headers that can be read once are there for the inner bridge, too."""
    assert nested_scope(scope_of(headers=one_shot(RICH_HEADERS))) == scope_of(headers=RICH_HEADERS)
