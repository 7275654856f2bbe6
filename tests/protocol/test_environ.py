"""Environs of scopes, compared whole: one test a rule."""

from __future__ import annotations

import io
import operator
from types import MappingProxyType
from typing import Any
from wsgiref import validate

import pytest

from a2wsgi._errors import ServerProtocolError
from a2wsgi._protocol.environ import EnvironTemplate
from a2wsgi._protocol.framing import BadRequest
from support.translators import (
    HOST,
    Pairs,
    environ_from_scope,
    environ_of,
    nested_scope,
    scope_of,
    to_environ,
    to_scope,
)

# -- An environ from a scope: the whole -------------------------------------------------------------------------------


def test_environ_has_all_that_pep_3333_wants() -> None:
    """PEP 3333, "environ Variables": a request is told in full."""
    scope = scope_of(
        method="POST",
        scheme="https",
        http_version="2",
        path="/app/caf\xe9/a b",
        raw_path=b"/app/caf%C3%A9/a%20b",
        root_path="/app",
        query_string=b"q=1&r=%FF",
        headers=[
            *HOST,
            (b"content-type", b"text/plain"),
            (b"content-length", b"12"),
            (b"cookie", b"a=1"),
            (b"x-dup", b"one"),
            (b"cookie", b"b=2"),
            (b"X-Dup", b"two"),
        ],
    )
    assert to_environ(scope) == environ_of(
        REQUEST_METHOD="POST",
        wsgi_url_scheme="https",
        SERVER_PROTOCOL="HTTP/2",
        SCRIPT_NAME="/app",
        PATH_INFO="/caf\xc3\xa9/a b",
        QUERY_STRING="q=1&r=%FF",
        URI="/app/caf%C3%A9/a%20b?q=1&r=%FF",
        CONTENT_TYPE="text/plain",
        CONTENT_LENGTH="12",
        HTTP_COOKIE="a=1; b=2",
        HTTP_X_DUP="one,two",
    )


def test_environ_passes_wsgiref_validate() -> None:
    """PEP 3333, "environ Variables": the reference validator has nothing to say, with the streams added."""
    environ = environ_from_scope({"type": "http", "path": "/"})
    environ |= {"wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO()}
    validate.check_environ(environ)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def test_environ_is_made_where_a_server_says_hardly_anything() -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": what may be absent is absent, and PEP 3333 has it all the same."""
    assert to_environ({"type": "http"}) == environ_of(
        SERVER_NAME="localhost", SERVER_PORT="80", REMOTE_ADDR=..., REMOTE_PORT=..., HTTP_HOST=...
    )


def test_environ_takes_none_for_what_is_absent() -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": ``None`` is as good as no key."""
    keys = (
        "http_version",
        "method",
        "scheme",
        "path",
        "raw_path",
        "query_string",
        "root_path",
        "headers",
        "client",
        "server",
    )
    assert to_environ(dict.fromkeys(keys)) == to_environ({})


def test_environ_has_the_constants_of_its_template() -> None:
    """PEP 3333, "environ Variables": the bridge knows whether apps run in parallel."""
    template = EnvironTemplate(multithread=False, multiprocess=False)
    assert to_environ(scope_of(), template) == environ_of(wsgi_multithread=False, wsgi_multiprocess=False)
    assert to_environ(scope_of()) == environ_of()


@pytest.mark.parametrize(
    ("scheme", "url_scheme", "port"),
    [("http", "http", "80"), ("https", "https", "443"), ("ws", "http", "80"), ("wss", "https", "443")],
)
def test_environ_has_a_url_scheme_that_apps_know(scheme: str, url_scheme: str, port: str) -> None:
    """PEP 3333, "environ Variables": a handshake of a WebSocket is a request over http or https."""
    environ = to_environ(scope_of(scheme=scheme, server=None))
    assert environ == environ_of(wsgi_url_scheme=url_scheme, SERVER_NAME="example.org", SERVER_PORT=port)


@pytest.mark.parametrize(
    ("version", "protocol"),
    [
        ("1.0", "HTTP/1.0"),
        ("2", "HTTP/2"),
        ("2.0", "HTTP/2"),
        ("3", "HTTP/3"),
        ("", "HTTP/1.1"),
        (None, "HTTP/1.1"),
        ("x", "HTTP/1.1"),
    ],
)
def test_environ_has_a_protocol_that_apps_know(version: str | None, protocol: str) -> None:
    """PEP 3333, "environ Variables": SERVER_PROTOCOL is the client's, or at least one that can be."""
    assert to_environ(scope_of(http_version=version)) == environ_of(SERVER_PROTOCOL=protocol)


def test_environ_query_may_hold_any_byte() -> None:
    """PEP 3333, "Unicode Issues": raw UTF-8 in a query travels as latin-1."""
    environ = to_environ(scope_of(query_string="q=ü".encode()))
    assert environ == environ_of(QUERY_STRING="q=Ã¼", URI="/?q=Ã¼")


# -- An environ from a scope: addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "headers", "name", "port"),
    [
        (("example.net", 81), HOST, "example.net", "81"),
        (["example.net", 81], HOST, "example.net", "81"),
        (("example.net", "81"), HOST, "example.net", "81"),
        (("::1", 81), HOST, "::1", "81"),
        (("example.net", None), HOST, "example.net", "80"),
        (("example.net", ""), HOST, "example.net", "80"),
        (("example.net", 0), HOST, "example.net", "80"),
        (("/run/app.sock", None), HOST, "example.org", "80"),
        (("/run/app.sock", None), [(b"host", b"example.org:81")], "example.org", "81"),
        (("/run/app.sock", "0"), [(b"host", b"[::1]:81")], "[::1]", "81"),
        (("@app", None), [(b"host", b"example.org:")], "example.org", "80"),
        (("\0app", None), HOST, "example.org", "80"),
        (("", "0"), HOST, "example.org", "80"),
        (("/", "t"), HOST, "example.org", "80"),
        (None, HOST, "example.org", "80"),
        (None, [(b"host", b"a b")], "localhost", "80"),
        (None, [(b"host", b"user@example.org")], "localhost", "80"),
        (None, [(b"host", b"")], "localhost", "80"),
        (None, [], "localhost", "80"),
    ],
)
def test_environ_has_a_server_name_and_port(server: Any, headers: Pairs, name: str, port: str) -> None:
    """PEP 3333, "environ Variables": SERVER_NAME and SERVER_PORT are strings, never empty, also on a Unix socket."""
    host = headers[0][1].decode() if headers else ...
    environ = to_environ(scope_of(server=server, headers=headers))
    assert environ == environ_of(SERVER_NAME=name, SERVER_PORT=port, HTTP_HOST=host)


@pytest.mark.parametrize(
    ("client", "address", "port"),
    [
        (("192.0.2.1", 4711), "192.0.2.1", "4711"),
        (["192.0.2.1", 4711], "192.0.2.1", "4711"),
        (("192.0.2.1", "4711"), "192.0.2.1", "4711"),
        (("192.0.2.1", 0), "192.0.2.1", ...),
        (("192.0.2.1", None), "192.0.2.1", ...),
        (("", "0"), ..., ...),
        (None, ..., ...),
        (..., ..., ...),
    ],
)
def test_environ_has_the_client_where_it_is_known(client: Any, address: Any, port: Any) -> None:
    """RFC 3875 §4.1.8: REMOTE_ADDR is the client's address; a port of 0 is no port."""
    assert to_environ(scope_of(client=client)) == environ_of(REMOTE_ADDR=address, REMOTE_PORT=port)


# -- An environ from a scope: headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [(b"host", b"example.org"), (b"x-a", b"1"), (b"x-a", b"2")],
        [[b"Host", b"example.org"], [b"X-A", b"1"], [b"x-a", b"2"]],
        ((b"host", b"example.org"), (b"x-a", b"1,2")),
        [(bytearray(b"host"), bytearray(b"example.org")), (memoryview(b"x-a"), memoryview(b"1,2"))],
    ],
)
def test_environ_takes_headers_of_any_shape(headers: Any) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": an iterable of two-item iterables, in any letter case."""
    assert to_environ(scope_of(headers=headers)) == environ_of(HTTP_X_A="1,2")


def test_environ_reads_headers_once() -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": an iterable may be read only once; the app finds them in the scope."""
    scope = scope_of(headers=iter(HOST))
    environ = environ_from_scope(scope)
    assert environ["HTTP_HOST"] == "example.org"
    assert environ["asgi.scope"]["headers"] == scope["headers"] == HOST


@pytest.mark.parametrize(
    "headers", [[("host", "example.org")], [(b"host", 5)], [b"host"], [(b"a", b"b", b"c")], [None]]
)
def test_environ_is_not_made_of_headers_that_are_no_bytes(headers: Any) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": the server's error is said to be the server's."""
    with pytest.raises(ServerProtocolError, match="not pairs of bytes"):
        environ_from_scope(scope_of(headers=headers))


def test_environ_has_no_header_that_could_be_another() -> None:
    """CVE-2016-5385 (httpoxy) and PEP 3333: no ``Proxy``, no underscores, no names that are no tokens."""
    headers = [*HOST, (b"x_user", b"root"), (b"Proxy", b"http://evil/"), (b"x y", b"1"), (b"x_user", b"root")]
    assert to_environ(scope_of(headers=headers)) == environ_of()


def test_environ_has_underscored_headers_when_that_is_allowed() -> None:
    """With ``allow_underscores`` a name with an underscore and its twin with a hyphen are one header."""
    headers = [*HOST, (b"x_user", b"a"), (b"x-user", b"b"), (b"proxy", b"http://evil/"), (b"content_length", b"5")]
    environ = to_environ(scope_of(headers=headers), EnvironTemplate(allow_underscores=True))
    assert environ == environ_of(HTTP_X_USER="a,b")


def test_environ_header_values_may_hold_any_byte() -> None:
    """PEP 3333, "Unicode Issues": a value is latin-1, and may be empty."""
    environ = to_environ(scope_of(headers=[*HOST, (b"x-latin", b"\xe9"), (b"x-empty", b"")]))
    assert environ == environ_of(HTTP_X_LATIN="\xe9", HTTP_X_EMPTY="")


#: Each byte that a value may have inside: all but CR, LF and NUL.
INSIDE = bytes(byte for byte in range(256) if byte not in b"\r\n\0")


def test_header_values_keep_obs_text_and_control_characters() -> None:
    """RFC 9110 §5.5: obs-text is opaque, and a recipient may retain control characters other than CR, LF and NUL."""
    value = b"<" + INSIDE + b">"
    environ = to_environ(scope_of(headers=[(b"x-a", value)]))
    assert environ["HTTP_X_A"] == value.decode("latin-1")
    assert to_scope(environ)["headers"] == [(b"x-a", value)]


@pytest.mark.parametrize("space", [" ", "\t", " \t \t"])
@pytest.mark.parametrize("value", ["", "x", "a b\tc", "\xa0x\xa0", "\x85", "\x0bx\x0c", "\x1f"])
def test_header_values_lose_the_white_space_around_them(value: str, space: str) -> None:
    """RFC 9110 §5.5: OWS around a value is not part of it, in either direction; OWS is space and tab, nothing else."""
    padded = f"{space}{value}{space}"
    headers = [(b"Host", b"example.org "), (b"x-a", padded.encode("latin-1")), (b"x-a", padded.encode("latin-1"))]
    assert to_environ(scope_of(headers=headers)) == environ_of(HTTP_X_A=f"{value},{value}")
    for odd in ({}, {"HTTP_ODD": None}):  # with which the values are looked at one by one
        scope = to_scope(environ_of(HTTP_HOST="example.org ", HTTP_X_A=padded, CONTENT_TYPE=f"t{space}", **odd))
        encoded = [(b"content-type", b"t"), *HOST, (b"x-a", value.encode("latin-1"))]
        assert sorted(scope["headers"]) == encoded
    scope = nested_scope(scope_of(headers=headers))
    assert scope["headers"] == [*HOST, *[(b"x-a", value.encode("latin-1"))] * 2]


@pytest.mark.parametrize("values", [[b"5"], [b"5", b"5"], [b"5, 5"], [b"005"], [b" 5 "]])
def test_environ_has_one_content_length(values: list[bytes]) -> None:
    """RFC 9110 §8.6: repeats that say the same are one."""
    headers = [*HOST, *((b"content-length", value) for value in values)]
    assert to_environ(scope_of(headers=headers)) == environ_of(CONTENT_LENGTH="5")


@pytest.mark.parametrize("values", [[b"5", b"6"], [b"-5"], [b"5_0"], [b""], ["\u0665".encode()], [b"5", b"x"]])
def test_environ_is_not_made_of_a_malformed_content_length(values: list[bytes]) -> None:
    """RFC 9112 §6.3: a length that is none, or two that differ, are a 400."""
    with pytest.raises(BadRequest):
        environ_from_scope(scope_of(headers=[(b"content-length", value) for value in values]))


def test_environ_has_no_length_beside_a_transfer_encoding() -> None:
    """RFC 9112 §6.3: Transfer-Encoding overrides Content-Length."""
    headers = [*HOST, (b"content-length", b"5"), (b"transfer-encoding", b"chunked")]
    assert to_environ(scope_of(headers=headers)) == environ_of(HTTP_TRANSFER_ENCODING="chunked")


def test_environ_joins_repeats_once_and_in_order() -> None:
    """RFC 9110 §5.3: the values of a header that is repeated are one list, in their order."""
    headers = [
        *HOST,
        *[(b"x-a", b"%d" % number) for number in range(4)],
        (b"cookie", b"a=1"),
        *[(b"x_dropped", b"1")] * 3,
        (b"X-A", b""),
        *[(b"content-length", b"5")] * 3,
        *[(b"content-type", b"t/%d" % number) for number in range(3)],
        (b"cookie", b"b=2"),
        (b"cookie", b"c=3"),
    ]
    assert to_environ(scope_of(headers=headers)) == environ_of(
        HTTP_X_A="0,1,2,3,", HTTP_COOKIE="a=1; b=2; c=3", CONTENT_LENGTH="5", CONTENT_TYPE="t/0"
    )


def test_environ_has_the_first_content_type() -> None:
    """RFC 9110 §8.3: a content type is no list, so repeats are not joined."""
    headers = [*HOST, (b"content-type", b"text/plain"), (b"content-type", b"text/html")]
    assert to_environ(scope_of(headers=headers)) == environ_of(CONTENT_TYPE="text/plain")


# -- The view of the scope --------------------------------------------------------------------------------------------


def test_scope_view_is_the_scope() -> None:
    """What is read from or written to ``asgi.scope`` is read from or written to the scope."""
    scope = scope_of(state={"a": 1})
    view = environ_from_scope(scope)["asgi.scope"]
    assert view == scope
    assert dict(view) == scope
    assert len(view) == len(scope)
    view["new"] = 1
    del view["extensions"]
    assert scope == scope_of(state={"a": 1}, new=1, extensions=...)
    with pytest.raises(KeyError):
        view["nothing"]


def test_scope_view_is_copied_and_joined_as_a_dict() -> None:
    """What comes of it is a dict of its own, as of a scope, which servers and tests make as dicts."""
    scope = scope_of()
    view = environ_from_scope(scope)["asgi.scope"]
    new = {**scope, "path": "/new"}
    for made, expected in (
        (view.copy(), scope),
        (view | {"path": "/new"}, new),
        ({"path": "/new", "a": 1} | view, {**scope, "a": 1}),
        (view | view, scope),
        (view | MappingProxyType({"path": "/new"}), new),
    ):
        assert type(made) is dict
        assert made == expected
    assert scope == scope_of()
    with pytest.raises(TypeError):
        operator.or_(view, 1)
    with pytest.raises(TypeError):
        operator.or_(1, view)
    view |= {"path": "/new"}
    assert scope["path"] == "/new"


def test_scope_view_shows_no_secrets() -> None:
    """A debug page that prints the environ shows no header, query, cookie or state through the scope."""
    secrets = {
        "headers": [(b"cookie", b"hunter2"), (b"authorization", b"hunter2")],
        "query_string": b"token=hunter2",
        "raw_path": b"/?hunter2",
        "state": {"db": "hunter2"},
        "session": {"user": "hunter2"},
    }
    view = environ_from_scope(scope_of(**secrets))["asgi.scope"]
    keys = list(scope_of(**secrets))
    assert repr(view) == f"<ScopeView type='http' method='GET' path='/' keys={keys}>"
