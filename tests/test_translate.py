"""Environs and scopes, compared whole: one test a rule, the oddest servers, and both ways in a row."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes
from wsgiref import validate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi._errors import ServerProtocolError
from a2wsgi._headers import BadRequest
from a2wsgi._translate import (
    EnvironTemplate,
    ScopeView,
    environ_from_scope,
    process_headers,
    request_length,
    scope_from_environ,
)

Pairs = list[tuple[bytes, bytes]]
HOST: Pairs = [(b"host", b"example.org")]


def scope_of(**changes: Any) -> dict[str, Any]:
    """Return the scope of a plain request, changed; ``...`` takes a key away."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": HOST,
        "client": ("192.0.2.1", 4711),
        "server": ("198.51.100.1", 8000),
        "extensions": {},
        **changes,
    }
    return {key: value for key, value in scope.items() if value is not ...}


def both_uris(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the changes with ``URI`` under both of its names."""
    uri = {} if "URI" not in changes else dict.fromkeys(("REQUEST_URI", "RAW_URI"), changes.pop("URI"))
    return {**changes, **uri}


def environ_of(**changes: Any) -> dict[str, Any]:
    """Return the environ of the same request, changed as above; ``wsgi_`` stands for ``wsgi.``, ``URI`` for both."""
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "REQUEST_URI": "/",
        "RAW_URI": "/",
        "SERVER_NAME": "198.51.100.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "4711",
        "HTTP_HOST": "example.org",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        **{key.replace("wsgi_", "wsgi."): value for key, value in both_uris(changes).items()},
    }
    return {key: value for key, value in environ.items() if value is not ...}


def to_environ(scope: dict[str, Any], template: EnvironTemplate | None = None) -> dict[str, Any]:
    """Return the environ of a scope, less the view of it, which every one has."""
    environ = environ_from_scope(scope, template) if template else environ_from_scope(scope)
    view = environ.pop("asgi.scope")
    assert isinstance(view, ScopeView)
    assert view.scope is scope
    return environ


def to_scope(environ: dict[str, Any]) -> dict[str, Any]:
    """Return the scope of an environ, less the environ, which every one has."""
    scope = scope_from_environ(environ)
    assert scope.pop("wsgi_environ") is environ
    return scope


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
    with pytest.raises(ServerProtocolError, match="no pairs of bytes"):
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


def test_environ_has_the_first_content_type() -> None:
    """RFC 9110 §8.3: a content type is no list, so repeats are not joined."""
    headers = [*HOST, (b"content-type", b"text/plain"), (b"content-type", b"text/html")]
    assert to_environ(scope_of(headers=headers)) == environ_of(CONTENT_TYPE="text/plain")


# -- An environ from a scope: paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root_path", "path", "script_name", "path_info"),
    [
        ("", "/x", "", "/x"),
        ("/api", "/api/x", "/api", "/x"),
        ("/api", "/api", "/api", ""),
        ("/api", "/api/", "/api", "/"),
        ("/api", "/apiary", "/api", "/apiary"),
        ("/api", "/x", "/api", "/x"),
        ("/api", "/", "/api", "/"),
        ("/api", "/x/api", "/api", "/x/api"),
        ("/api", "/api//x", "/api", "//x"),
        ("/api/", "/api/x", "/api", "/x"),
        ("/api/", "/api//x", "/api/", "/x"),
        ("/api/", "/api/", "/api/", ""),
        ("/api/", "/api", "/api", ""),
        ("/api/", "/apiary", "/api", "/apiary"),
        ("/", "/x", "", "/x"),
        ("/", "/", "", "/"),
        ("/a/b", "/a/b/c", "/a/b", "/c"),
        ("/a/b", "/a/bc", "/a/b", "/a/bc"),
        ("/caf\xe9", "/caf\xe9/x", "/caf\xc3\xa9", "/x"),
        ("/caf\xe9", "/x", "/caf\xc3\xa9", "/x"),
        ("/a b", "/a b/x", "/a b", "/x"),
        ("/api", "", "/api", ""),
    ],
)
def test_environ_path_is_cut_between_segments(root_path: str, path: str, script_name: str, path_info: str) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": root_path is a prefix of path, but only as whole segments."""
    raw_path = quote_from_bytes(path.encode()).encode()
    environ = to_environ(scope_of(root_path=root_path, path=path, raw_path=raw_path))
    uri = raw_path.decode()
    assert environ == environ_of(SCRIPT_NAME=script_name, PATH_INFO=path_info, URI=uri)


@pytest.mark.parametrize(
    ("option", "fixed", "root_path", "path", "script_name", "path_info"),
    [
        ("/app", False, "", "/app/x", "/app", "/x"),
        ("/app", False, "", "/x", "/app", "/x"),
        ("/app", False, "", "/apple", "/app", "/apple"),
        ("/app", False, "/root", "/root/app/x", "/root", "/app/x"),
        ("/app", True, "/root", "/root/x", "/app", "/x"),
        ("/app", True, "/root", "/app/x", "/app", "/x"),
        ("/app", True, "", "/x", "/app", "/x"),
        ("/app/", True, "", "/app/x", "/app", "/x"),
        ("app", True, "", "/app/x", "/app", "/x"),
        ("", True, "/root", "/root/x", "", "/root/x"),
        ("/", True, "/root", "/root/x", "", "/root/x"),
        ("", False, "/root", "/root/x", "/root", "/x"),
        ("/\xe9", True, "", "/\xe9/x", "/\xc3\xa9", "/x"),
        ("/\xe9", False, "", "/y/x", "/\xc3\xa9", "/y/x"),
    ],
)
def test_environ_script_name_can_be_an_option(  # noqa: PLR0917  # the columns of the table
    option: str, fixed: bool, root_path: str, path: str, script_name: str, path_info: str
) -> None:
    """PEP 3333, "URL Reconstruction": an option puts a prefix back that a proxy took off."""
    raw_path = quote_from_bytes(path.encode()).encode()
    template = EnvironTemplate(script_name=option, fixed=fixed)
    environ = to_environ(scope_of(root_path=root_path, path=path, raw_path=raw_path), template)
    uri = raw_path.decode()
    assert environ == environ_of(SCRIPT_NAME=script_name, PATH_INFO=path_info, URI=uri)


@pytest.mark.parametrize(
    ("path", "raw_path", "path_info", "uri"),
    [
        pytest.param("/caf\ufffd", b"/caf%E9", "/caf\xe9", "/caf%E9", id="replaced"),
        pytest.param("/caf\udce9", b"/caf%E9", "/caf\xe9", "/caf%E9", id="surrogate"),
        pytest.param("/caf\ufffd", b"/caf%EF%BF%BD", "/caf\xef\xbf\xbd", "/caf%EF%BF%BD", id="asked for"),
        pytest.param("/caf\ufffd", b"/tea%E9", "/caf\xef\xbf\xbd", "/tea%E9", id="rewritten"),
        pytest.param("/caf\ufffd", None, "/caf\xef\xbf\xbd", "/caf%EF%BF%BD", id="no raw path"),
        pytest.param("/caf\udce9", ..., "/caf\xe9", "/caf%E9", id="surrogate, no raw path"),
        pytest.param("/\ud800", None, "/?", "/%3F", id="lone surrogate"),
        pytest.param("/a%20b", b"/a%20b", "/a b", "/a%20b", id="not decoded"),
        pytest.param(
            "/%E2%82%AC/%FF", b"/%E2%82%AC/%FF", "/\xe2\x82\xac/\xff", "/%E2%82%AC/%FF", id="not UTF-8, not decoded"
        ),
        pytest.param("/a%20b", b"/a%2520b", "/a%20b", "/a%2520b", id="decoded once"),
        pytest.param("/\u20ac/%FF", b"/%E2%82%AC/%FF", "/\xe2\x82\xac/\xff", "/%E2%82%AC/%FF", id="decoded in part"),
        pytest.param(
            "/\xe2\x82\xac/\xff", b"/\xe2\x82\xac/\xff", "/\xe2\x82\xac/\xff", "/%E2%82%AC/%FF", id="as latin-1"
        ),
        pytest.param("/100%", b"/100%25", "/100%", "/100%25", id="a percent"),
        pytest.param("/100%", b"/100%", "/100%", "/100%", id="a bare percent"),
        pytest.param("/x", b"/x?q=1", "/x", "/x", id="raw path with a query"),
        pytest.param("/a?b", b"/a%3Fb", "/a?b", "/a%3Fb", id="a question mark"),
        pytest.param("/a b", None, "/a b", "/a%20b", id="quoted here"),
        pytest.param("/a;b=c,d", ..., "/a;b=c,d", "/a;b=c,d", id="left as it is"),
        pytest.param("/x", b"/y/x", "/x", "/y/x", id="prefix taken off"),
        pytest.param("/a/b", b"/a%2Fb", "/a/b", "/a%2Fb", id="a slash"),
        pytest.param("/a b/x y", b"/a b/x%20y", "/a b/x y", "/a%20b/x%20y", id="uvicorn with --root-path"),
        pytest.param("*", b"*", "*", "*", id="asterisk-form"),
        pytest.param("http://h/a b", b"http://h/a%20b", "/a b", "http://h/a%20b", id="absolute-form"),
        pytest.param("http://h", b"http://h", "/", "http://h", id="absolute-form, empty path"),
        pytest.param("/a b", b"http://h/a%20b", "/a b", "http://h/a%20b", id="absolute-form, path"),
    ],
)
def test_environ_path_keeps_every_byte(path: str, raw_path: Any, path_info: str, uri: str) -> None:
    """PEP 3333, "Unicode Issues": PATH_INFO has the bytes that were requested, REQUEST_URI how they were written."""
    environ = to_environ(scope_of(path=path, raw_path=raw_path))
    assert environ == environ_of(PATH_INFO=path_info, URI=uri)


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


# -- A scope from an environ: the whole -------------------------------------------------------------------------------


def test_scope_has_all_that_asgi_wants() -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": a request is told in full, with every key."""
    environ = environ_of(
        REQUEST_METHOD="POST",
        wsgi_url_scheme="https",
        SERVER_PROTOCOL="HTTP/2",
        SCRIPT_NAME="/app",
        PATH_INFO="/caf\xc3\xa9/a b",
        QUERY_STRING="q=1&r=\xff",
        REQUEST_URI="/app/caf%C3%A9/a%20b?q=1&r=\xff",
        RAW_URI=...,
        CONTENT_TYPE="text/plain",
        HTTP_CONTENT_TYPE="text/html",
        CONTENT_LENGTH="12",
        HTTP_CONTENT_LENGTH="13",
        HTTP_X_A="",
        HTTP_PROXY="http://evil/",
    )
    assert to_scope(environ) == scope_of(
        method="POST",
        scheme="https",
        http_version="2",
        path="/app/caf\xe9/a b",
        raw_path=b"/app/caf%C3%A9/a%20b",
        root_path="/app",
        query_string=b"q=1&r=\xff",
        headers=[*HOST, (b"content-type", b"text/plain"), (b"x-a", b""), (b"content-length", b"12")],
    )


def test_scope_is_made_where_a_server_says_hardly_anything() -> None:
    """PEP 3333, "environ Variables": what may be empty or absent is, and ASGI has it all the same."""
    expected = scope_of(headers=[], client=None, server=None)
    assert to_scope({}) == expected
    assert to_scope(dict.fromkeys(environ_of(CONTENT_LENGTH="", CONTENT_TYPE=""))) == expected
    empty = dict.fromkeys(environ_of(CONTENT_LENGTH="", CONTENT_TYPE=""), "")
    assert to_scope(empty) == {**expected, "headers": [(b"host", b"")]}


def test_scope_shares_nothing_with_another() -> None:
    """ASGI, "Middleware": an app may change its scope, and no other request sees it."""
    first, second = scope_from_environ(environ_of()), scope_from_environ(environ_of())
    first["asgi"]["version"] = first["extensions"]["x"] = "changed"
    first["headers"].clear()
    assert second["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert second["extensions"] == {}
    assert second["headers"] == HOST


@pytest.mark.parametrize(
    ("protocol", "version"),
    [
        ("HTTP/1.0", "1.0"),
        ("HTTP/1", "1.0"),
        ("HTTP/1.1", "1.1"),
        ("HTTP/2", "2"),
        ("HTTP/2.0", "2"),
        ("HTTP/3", "3"),
        ("INCLUDED", "1.1"),
        ("", "1.1"),
        (..., "1.1"),
    ],
)
def test_scope_has_a_version_that_apps_know(protocol: Any, version: str) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": http_version is one of four, whatever SERVER_PROTOCOL says."""
    assert to_scope(environ_of(SERVER_PROTOCOL=protocol)) == scope_of(http_version=version)


def test_scope_method_is_in_upper_case() -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": the method is uppercased."""
    assert to_scope(environ_of(REQUEST_METHOD="patch")) == scope_of(method="PATCH")


@pytest.mark.parametrize(
    ("name", "port", "server"),
    [
        ("example.net", "81", ("example.net", 81)),
        ("example.net", 81, ("example.net", 81)),
        ("example.net", "", ("example.net", None)),
        ("example.net", None, ("example.net", None)),
        ("example.net", ..., ("example.net", None)),
        ("example.net", "0", ("example.net", None)),
        ("example.net", "x", ("example.net", None)),
        ("example.net", "9" * 5000, ("example.net", None)),
        ("waitress.invalid", "/run/app.sock", ("/run/app.sock", None)),
        ("/run/app.sock", "0", ("/run/app.sock", None)),
        ("", "", None),
        (..., "80", None),
    ],
)
def test_scope_has_the_server(name: Any, port: Any, server: tuple[str, int | None] | None) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": host and port, or path and None for a Unix socket."""
    assert to_scope(environ_of(SERVER_NAME=name, SERVER_PORT=port)) == scope_of(server=server)


@pytest.mark.parametrize(
    ("address", "port", "client"),
    [
        ("192.0.2.1", "4711", ("192.0.2.1", 4711)),
        ("192.0.2.1", 4711, ("192.0.2.1", 4711)),
        ("192.0.2.1", ..., ("192.0.2.1", 0)),
        ("192.0.2.1", "None", ("192.0.2.1", 0)),
        ("192.0.2.1", "", ("192.0.2.1", 0)),
        ("", "4711", None),
        (..., ..., None),
    ],
)
def test_scope_has_the_client(address: Any, port: Any, client: tuple[str, int] | None) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": an address without a port is kept."""
    assert to_scope(environ_of(REMOTE_ADDR=address, REMOTE_PORT=port)) == scope_of(client=client)


# -- A scope from an environ: headers ---------------------------------------------------------------------------------


def test_scope_has_only_headers_that_are_strings() -> None:
    """PEP 3333, "environ Variables": a value that is no native string is no header, a key that is none no name."""
    environ = environ_of(HTTP_X_NUMBER=5, HTTP_X_NONE=None, HTTP_X_BYTES=b"1", HTTP_X_A="1")
    environ[5] = "HTTP_X_B"  # type: ignore[index]  # what a careless middleware may do
    assert to_scope(environ) == scope_of(headers=[*HOST, (b"x-a", b"1")])


def test_scope_takes_a_length_that_is_a_number() -> None:
    """PEP 3333, "environ Variables": a middleware that sets CONTENT_LENGTH to an int is understood."""
    assert to_scope(environ_of(CONTENT_LENGTH=5)) == scope_of(headers=[*HOST, (b"content-length", b"5")])


def test_scope_has_headers_of_servers_that_hand_over_text() -> None:
    """PEP 3333, "Unicode Issues": latin-1 is what strings hold; text that cannot be is taken for text."""
    environ = environ_of(HTTP_X_LATIN="\xe9", HTTP_X_TEXT="€", HTTP_X_ESCAPED="\udce9")
    headers = [*HOST, (b"x-latin", b"\xe9"), (b"x-text", "€".encode()), (b"x-escaped", b"\xe9")]
    assert to_scope(environ) == scope_of(headers=headers)


@pytest.mark.parametrize("key", ["CONTENT_TYPE", "CONTENT_LENGTH"])
def test_scope_has_no_header_for_an_empty_key(key: str) -> None:
    """PEP 3333, "environ Variables": CONTENT_TYPE and CONTENT_LENGTH may be empty or absent, which is the same."""
    assert to_scope(environ_of(**{key: ""})) == scope_of()


@pytest.mark.parametrize("value", ["x", "-5", "5_0", "5, 6", " ", "\u0665"])
def test_scope_is_not_made_of_a_malformed_length(value: str) -> None:
    """RFC 9112 §6.3: a length that is none is a 400."""
    with pytest.raises(BadRequest):
        scope_from_environ(environ_of(CONTENT_LENGTH=value))
    with pytest.raises(BadRequest):
        request_length(environ_of(CONTENT_LENGTH=value))


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({}, None),
        ({"CONTENT_LENGTH": ""}, None),
        ({"CONTENT_LENGTH": "0"}, 0),
        ({"CONTENT_LENGTH": "5, 5"}, 5),
        ({"CONTENT_LENGTH": 5}, 5),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, None),
    ],
)
def test_request_length_is_what_the_environ_says(changes: dict[str, Any], length: int | None) -> None:
    """PEP 3333, "environ Variables": CONTENT_LENGTH may be empty or absent."""
    assert request_length(environ_of(**changes)) == length


@pytest.mark.parametrize(("terminated", "length"), [(True, None), (False, 5), (..., 5)])
def test_length_and_transfer_encoding_are_never_both_there(terminated: Any, length: int | None) -> None:
    """RFC 9112 §6.2: the one that shows where the body ends on this server stays, the other goes."""
    environ = environ_of(CONTENT_LENGTH="5", HTTP_TRANSFER_ENCODING="chunked", wsgi_input_terminated=terminated)
    left = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"5")
    assert request_length(environ) == length
    assert to_scope(environ) == scope_of(headers=[*HOST, left])


def test_scope_has_no_header_that_is_the_environment_of_the_process() -> None:
    """Servers (wsgiref, granian) merge ``os.environ`` in: such keys are no headers, unless their value differs."""
    process = process_headers({"HTTP_TIMEOUT": "5", "HTTP_X_A": "\xe9", "HTTP_X_B": "1", "HOME": "/", "HTTPS": "on"})
    assert process == {"HTTP_TIMEOUT": ("5", "5"), "HTTP_X_A": ("\xe9", "\xc3\xa9"), "HTTP_X_B": ("1", "1")}
    environ = environ_of(HTTP_TIMEOUT="5", HTTP_X_A="\xc3\xa9", HTTP_X_B="2")
    assert scope_from_environ(environ, process)["headers"] == [*HOST, (b"x-b", b"2")]


def test_process_headers_are_none_in_a_cgi_process() -> None:
    """RFC 3875 §4.1.12: the environment of a CGI process is the request itself."""
    assert process_headers({"REQUEST_METHOD": "GET", "HTTP_HOST": "example.org"}) == {}


def test_scope_has_no_version_header_of_gunicorn() -> None:
    """RFC 3875 §4.1.18: gunicorn sets HTTP_VERSION itself on HTTP/2; on HTTP/1.1 a client may have sent one."""
    assert to_scope(environ_of(HTTP_VERSION="2", SERVER_PROTOCOL="HTTP/2.0")) == scope_of(http_version="2")
    assert to_scope(environ_of(HTTP_VERSION="2")) == scope_of(headers=[*HOST, (b"version", b"2")])


# -- A scope from an environ: paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script_name", "path_info", "uri", "path", "raw_path", "root_path"),
    [
        pytest.param("", "/x", "/x", "/x", b"/x", "", id="plain"),
        pytest.param("", "/x", "/x?q=1", "/x", b"/x", "", id="with a query"),
        pytest.param("", "/x", ..., "/x", b"/x", "", id="no URI"),
        pytest.param("/api", "/x", "/api/x", "/api/x", b"/api/x", "/api", id="prefix"),
        pytest.param("/api/", "/x", "/api//x", "/api//x", b"/api//x", "/api/", id="prefix with a slash"),
        pytest.param("/api", "", "/api", "/api", b"/api", "/api", id="prefix alone"),
        pytest.param("/", "/x", "/x", "/x", b"/x", "", id="prefix that is the root"),
        pytest.param("/api", "/a/b", "/a%2Fb", "/api/a/b", b"/api/a%2Fb", "/api", id="prefix put back on"),
        pytest.param("/a b", "/c d", "/c%20d", "/a b/c d", b"/a%20b/c%20d", "/a b", id="prefix put back on, quoted"),
        pytest.param("", "/caf\xc3\xa9", "/caf%C3%A9", "/caf\xe9", b"/caf%C3%A9", "", id="UTF-8"),
        pytest.param("", "/caf\xc3\xa9", "/caf%c3%a9", "/caf\xe9", b"/caf%c3%a9", "", id="as it was written"),
        pytest.param("", "/caf\xc3\xa9", ..., "/caf\xe9", b"/caf%C3%A9", "", id="UTF-8, no URI"),
        pytest.param("", "/caf\xe9", "/caf%E9", "/caf\ufffd", b"/caf%E9", "", id="not UTF-8"),
        pytest.param("", "/caf\xe9", ..., "/caf\ufffd", b"/caf%E9", "", id="not UTF-8, no URI"),
        pytest.param("/\xe9", "/x", "/%E9/x", "/\ufffd/x", b"/%E9/x", "/\ufffd", id="prefix not UTF-8"),
        pytest.param("", "/a/b", "/a%2Fb", "/a/b", b"/a%2Fb", "", id="a slash"),
        pytest.param("", "/x", "/y", "/x", b"/x", "", id="rewritten"),
        pytest.param("", "/a b", "/y", "/a b", b"/a%20b", "", id="rewritten, quoted"),
        pytest.param("", "/\u20ac/%FF", "/%E2%82%AC/%FF", "/\u20ac/\ufffd", b"/%E2%82%AC/%FF", "", id="aiohttp-wsgi"),
        pytest.param("", "/\u20ac", ..., "/\u20ac", b"/%E2%82%AC", "", id="apig-wsgi"),
        pytest.param("", "/\xef\xbf\xbd", "/%FF", "/\ufffd", b"/%FF", "", id="werkzeug"),
        pytest.param("", "/%2Fx", "/%2Fx", "//x", b"/%2Fx", "", id="cheroot"),
        pytest.param("", "/%2F/%2F", "/%2F/%252F", "/%2F/%2F", b"/%252F/%252F", "", id="cheroot, which cannot be told"),
        pytest.param("", "*", "*", "*", b"*", "", id="asterisk-form"),
        pytest.param("", "/a b", "http://h/a%20b?q=1", "/a b", b"/a%20b", "", id="absolute-form"),
        pytest.param("", "http://h/a b", ..., "/a b", b"/a%20b", "", id="absolute-form in the path"),
        pytest.param("", "http://h/a b", "http://h/a%20b", "/a b", b"/a%20b", "", id="absolute-form in both"),
        pytest.param("", "/", "http://h?q=1", "/", b"/", "", id="absolute-form, empty path"),
        pytest.param("", "", "/", "/", b"/", "", id="empty"),
        pytest.param("", "", ..., "/", b"/", "", id="empty, no URI"),
        pytest.param("/", "", ..., "/", b"/", "", id="empty, prefix that is the root"),
    ],
)
def test_scope_path_is_text_and_raw_path_its_bytes(  # noqa: PLR0917  # the columns of the table
    script_name: str, path_info: str, uri: Any, path: str, raw_path: bytes, root_path: str
) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": path is decoded, raw_path is not and has no query."""
    expected = scope_of(path=path, raw_path=raw_path, root_path=root_path)
    environ = environ_of(SCRIPT_NAME=script_name, PATH_INFO=path_info)
    assert (
        to_scope({**environ, "REQUEST_URI": uri, "RAW_URI": uri} if uri is not ... else without_uri(environ))
        == expected
    )
    if uri is not ...:
        assert to_scope({**without_uri(environ), "RAW_URI": uri}) == expected


def without_uri(environ: dict[str, Any]) -> dict[str, Any]:
    """Return the environ of a server that does not tell the request target."""
    return {key: value for key, value in environ.items() if key not in {"REQUEST_URI", "RAW_URI"}}


# -- The matrix of paths, both ways -----------------------------------------------------------------------------------

RAW_PATHS = [
    pytest.param("/", id="root"),
    pytest.param("//", id="slashes"),
    pytest.param("/%C3%A5", id="NFC"),
    pytest.param("/a%CC%8A", id="NFD"),
    pytest.param("/%E5", id="latin-1"),
    pytest.param("/%F0%9F%98%80", id="emoji"),
    pytest.param("/%F0%9F", id="half an emoji"),
    pytest.param("/%EF%BF%BD", id="replacement character"),
    pytest.param("/%ED%A0%80", id="surrogate"),
    pytest.param("/a%2Fb", id="slash"),
    pytest.param("/a%252Fb", id="slash quoted twice"),
    pytest.param("/a%00b", id="NUL"),
    pytest.param("/a%0D%0Ab", id="CRLF"),
    pytest.param("/a%3Fb%23c", id="question mark and hash"),
    pytest.param("/a%20b+c", id="space and plus"),
    pytest.param("/a;b=c,d:e@f!$&'()*", id="reserved"),
    pytest.param("/%", id="bare percent"),
    pytest.param("/%zz", id="percent that quotes nothing"),
    pytest.param("/a/../b/./c", id="dots"),
    pytest.param("/%7Euser/%61", id="quoted needlessly"),
]
PREFIXES = ["", "/api", "/api/", "/%C3%A5", "/%E5"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("raw", RAW_PATHS)
def test_path_is_the_same_from_asgi_and_back(raw: str, prefix: str) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": path, raw_path and root_path go through an environ and come back."""
    decoded = unquote_to_bytes(prefix + raw)
    scope = scope_of(
        path=decoded.decode("utf-8", "replace"),
        raw_path=(prefix + raw).encode(),
        root_path=unquote_to_bytes(prefix).decode("utf-8", "replace"),
    )
    environ = to_environ(scope)
    assert (environ["SCRIPT_NAME"] + environ["PATH_INFO"]).encode("latin-1") == decoded
    if prefix != "/api/" or raw.startswith("//"):  # else its slash goes to the path, which is the same URL
        assert environ["SCRIPT_NAME"].encode("latin-1") == unquote_to_bytes(prefix)
        assert to_scope(environ) == scope
    assert to_scope(environ) == {
        **scope,
        "root_path": environ["SCRIPT_NAME"].encode("latin-1").decode("utf-8", "replace"),
    }


@pytest.mark.parametrize("keys", [(), ("REQUEST_URI",), ("RAW_URI",), ("REQUEST_URI", "RAW_URI")])
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("raw", RAW_PATHS)
def test_path_is_the_same_from_wsgi_and_back(raw: str, prefix: str, keys: tuple[str, ...]) -> None:
    """PEP 3333, "URL Reconstruction": SCRIPT_NAME and PATH_INFO go through a scope and come back, byte for byte."""
    script, info = (unquote_to_bytes(part).decode("latin-1") for part in (prefix, raw))
    uris = dict.fromkeys(keys, prefix + raw)
    environ = {**without_uri(environ_of(SCRIPT_NAME=script, PATH_INFO=info)), **uris}
    scope = to_scope(environ)
    uri = prefix + raw if keys else scope["raw_path"].decode()
    assert to_environ(scope) == {**environ, "REQUEST_URI": uri, "RAW_URI": uri}


# -- Inverses ---------------------------------------------------------------------------------------------------------

TOKENS = st.text("abcxyz0189.!~-", min_size=1, max_size=8).filter(
    lambda name: name not in {"proxy", "content-length", "content-type", "transfer-encoding", "host", "version"}
)
VALUES = st.binary(max_size=12)
RAW_SEGMENTS = st.binary(max_size=6).map(lambda data: "/" + quote_from_bytes(data, safe="/:@!$&'()*+,;=%"))
ADDRESSES = st.tuples(st.sampled_from(["192.0.2.1", "::1", "example.org"]), st.integers(1, 65535))


@st.composite
def scopes(draw: st.DrawFn) -> dict[str, Any]:
    """Draw scopes as well-behaved servers make them, without what an environ cannot say: repeats, spelling, state."""
    prefix, raw = draw(st.just("") | RAW_SEGMENTS.map(lambda part: part.rstrip("/"))), draw(RAW_SEGMENTS)
    headers = draw(st.dictionaries(TOKENS.map(str.encode), VALUES))
    headers |= draw(st.sampled_from([{}, {b"content-type": b"x"}, {b"host": b"h"}]))
    headers |= draw(st.sampled_from([{}, {b"content-length": b"5"}, {b"transfer-encoding": b"chunked"}]))
    return scope_of(
        method=draw(st.sampled_from(["GET", "POST", "M-SEARCH"])),
        scheme=draw(st.sampled_from(["http", "https"])),
        http_version=draw(st.sampled_from(["1.0", "1.1", "2", "3"])),
        path=unquote_to_bytes(prefix + raw).decode("utf-8", "replace"),
        raw_path=(prefix + raw).encode(),
        root_path=unquote_to_bytes(prefix).decode("utf-8", "replace"),
        query_string=draw(st.binary(max_size=12)),
        headers=list(headers.items()),
        client=draw(st.none() | ADDRESSES),
        server=draw(ADDRESSES),
    )


def in_any_order(scope: dict[str, Any]) -> dict[str, Any]:
    """Return the scope with its headers sorted: their order across names means nothing (RFC 9110 §5.3)."""
    return {**scope, "headers": sorted(scope["headers"])}


@given(scopes())
def test_scope_is_the_same_after_an_environ(scope: dict[str, Any]) -> None:
    """ASGI HTTP 2.5 and PEP 3333 tell the same request."""
    assert in_any_order(to_scope(to_environ(scope))) == in_any_order(scope)


@given(scopes(), st.booleans())
def test_environ_is_the_same_after_a_scope(scope: dict[str, Any], told: bool) -> None:
    """PEP 3333 and ASGI HTTP 2.5 tell the same request."""
    environ = to_environ(scope)
    told_environ = environ if told else without_uri(environ)
    again = to_environ(to_scope(told_environ))
    assert without_uri(again) == without_uri(environ)
    if told:
        assert again == environ


ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["/", "//", "*", "/%", "http://", "\udcff", "\ud800", "\0", "0", "HTTP/1.1"])
)
ODD_TEXTS = st.text(st.sampled_from("/%?:*.a1 \xe9\u20ac\ud800\udcff\0\r\n"), max_size=8)
ENVIRON_TEXTS = [key for key in environ_of(CONTENT_TYPE="", HTTP_X_A="") if key.isupper() and key != "REQUEST_METHOD"]


@given(st.dictionaries(st.sampled_from(ENVIRON_TEXTS), ODD_TEXTS | st.none()))
def test_no_environ_of_strings_is_too_odd_for_a_scope(changes: dict[str, Any]) -> None:
    """PEP 3333, "environ Variables": whatever strings a server hands over, the request has a scope, and an environ."""
    scope = scope_from_environ({**environ_of(), **changes})
    assert isinstance(scope["path"], str)
    assert isinstance(scope["raw_path"], bytes)
    check_native(environ_from_scope(scope))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "path": ODD_TEXTS | st.none(),
            "raw_path": VALUES | st.none(),
            "root_path": ODD_TEXTS | st.none(),
            "query_string": VALUES | st.none(),
            "server": st.none() | st.tuples(ODD_TEXTS | st.none(), ANYTHING),
            "headers": st.lists(st.tuples(VALUES.filter(lambda name: name.lower() != b"content-length"), VALUES)),
            "http_version": ODD_TEXTS | st.none(),
        },
    )
)
def test_no_scope_of_the_right_types_is_too_odd_for_an_environ(scope: dict[str, Any]) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": whatever a server hands over, the request has an environ, and a scope."""
    environ = environ_from_scope(scope)
    check_native(environ)
    scope_from_environ(environ)


def check_native(environ: dict[str, Any]) -> None:
    """PEP 3333, "Unicode Issues": every CGI value is a str of latin-1, and what must not be empty is not."""
    for key, value in environ.items():
        if key.isupper() and key not in {"SERVER_NAME", "REMOTE_ADDR"}:
            value.encode("latin-1")
    assert environ["SERVER_NAME"]
    assert environ["SERVER_PORT"]


# -- Nested bridges ---------------------------------------------------------------------------------------------------


def nested_scope(scope: dict[str, Any], changes: dict[str, Any] | None = None, **template: Any) -> dict[str, Any]:
    """Return what an ASGI app sees in a WSGI app on an ASGI server, where something in between changed the environ."""
    environ = {**environ_from_scope(scope, EnvironTemplate(**template)), **(changes or {})}
    return to_scope({key: value for key, value in environ.items() if value is not ...})


def nested_environ(environ: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return what a WSGI app sees in an ASGI app on a WSGI server, where something in between changed the scope."""
    return to_environ({**scope_from_environ(environ), **changes})


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


# -- Servers as they are ----------------------------------------------------------------------------------------------

ODD_HEADERS: Pairs = [
    (b"host", b"localhost"),
    (b"x-dup", b"one"),
    (b"x-dup", b"two"),
    (b"x_under", b"spoof"),
    (b"cookie", b"a=1"),
    (b"cookie", b"b=2"),
    (b"proxy", b"http://evil/"),
    (b"x-latin", b"\xe9"),
    (b"x-mixed", b"Case"),
    (b"x-empty", b""),
]
ODD_TARGET = "/a%20b/%E2%82%AC/%2Fx/%FF//y"
ODD_PATH_INFO = "/a b/\xe2\x82\xac//x/\xff//y"


def odd_environ(**changes: Any) -> dict[str, Any]:
    """Return the environ that the odd request has on every server, but for what the server does not tell."""
    environ = {
        **environ_of(REMOTE_ADDR="127.0.0.1", REMOTE_PORT="43774", SERVER_NAME="127.0.0.1", SERVER_PORT="18101"),
        "PATH_INFO": ODD_PATH_INFO,
        "QUERY_STRING": "q=1%20&r=%FF",
        "REQUEST_URI": f"{ODD_TARGET}?q=1%20&r=%FF",
        "RAW_URI": f"{ODD_TARGET}?q=1%20&r=%FF",
        "HTTP_HOST": "localhost",
        "HTTP_X_DUP": "one,two",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_LATIN": "\xe9",
        "HTTP_X_MIXED": "Case",
        "HTTP_X_EMPTY": "",
        **both_uris(changes),
    }
    return {key: value for key, value in environ.items() if value is not ...}


def odd_scope(**changes: Any) -> dict[str, Any]:
    """Return the scope of the odd request as uvicorn has it, changed."""
    return scope_of(
        **{
            "path": "/a b/\u20ac//x/\ufffd//y",
            "raw_path": ODD_TARGET.encode(),
            "query_string": b"q=1%20&r=%FF",
            "headers": list(ODD_HEADERS),
            "client": ("127.0.0.1", 43774),
            "server": ("127.0.0.1", 18101),
            "extensions": ...,
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("scope", "environ"),
    [
        pytest.param(odd_scope(), odd_environ(), id="uvicorn"),
        pytest.param(
            odd_scope(root_path="/a b", path="/a b/a b/\u20ac//x/\ufffd//y", raw_path=b"/a b" + ODD_TARGET.encode()),
            odd_environ(SCRIPT_NAME="/a b", URI=f"/a%20b{ODD_TARGET}?q=1%20&r=%FF"),
            id="uvicorn --root-path '/a b'",
        ),
        pytest.param(
            odd_scope(asgi={"version": "3.0"}, client=["127.0.0.1", 43774], server=["127.0.0.1", 18101]),
            odd_environ(),
            id="daphne",
        ),
        pytest.param(
            odd_scope(client=("127.0.0.1", "43774"), server=("127.0.0.1", "18101")), odd_environ(), id="granian"
        ),
        pytest.param(
            odd_scope(
                asgi=...,
                http_version="1.0",
                path="/a b/\u20ac//x/%FF//y",
                raw_path=f"{ODD_TARGET}?q=1%20&r=%FF".encode(),
                query_string=b"q=1 &r=%FF",
                client=["127.0.0.1", 0],
                server=["localhost", 80],
                subprotocols=[],
            ),
            odd_environ(
                SERVER_PROTOCOL="HTTP/1.0",
                QUERY_STRING="q=1 &r=%FF",
                URI=f"{ODD_TARGET}?q=1 &r=%FF",
                REMOTE_PORT=...,
                SERVER_NAME="localhost",
                SERVER_PORT="80",
            ),
            id="aiohttp-asgi",
        ),
        pytest.param(odd_scope(path=ODD_TARGET, root_path=...), odd_environ(), id="h2corn"),
        pytest.param(
            odd_scope(path="/a b/\u20ac//x/\udcff//y", server=("localhost", 18101)),
            odd_environ(SERVER_NAME="localhost"),
            id="peregrine",
        ),
        pytest.param(
            odd_scope(path="/a b/\xe2\x82\xac/%2Fx/\xff//y", raw_path=b"/a b/\xe2\x82\xac/%2Fx/\xff//y"),
            odd_environ(URI="/a%20b/%E2%82%AC/%2Fx/%FF//y?q=1%20&r=%FF"),
            id="m0serve",
        ),
        pytest.param(
            odd_scope(raw_path=..., query_string=b"", client=("127.0.0.1", 0), server=("127.0.0.1", 8000)),
            odd_environ(
                PATH_INFO="/a b/\xe2\x82\xac//x/\xef\xbf\xbd//y",
                QUERY_STRING="",
                URI="/a%20b/%E2%82%AC//x/%EF%BF%BD//y",
                REMOTE_PORT=...,
                SERVER_PORT="8000",
            ),
            id="tsuno",
        ),
        pytest.param(
            odd_scope(
                http_version="2",
                path="/pre/a%20b/%2Fx",
                raw_path=b"/pre/a%20b/%2Fx",
                root_path="/pre",
                query_string=b"",
            ),
            odd_environ(
                SERVER_PROTOCOL="HTTP/2",
                SCRIPT_NAME="/pre",
                PATH_INFO="/a b//x",
                QUERY_STRING="",
                URI="/pre/a%20b/%2Fx",
            ),
            id="gunicorn, HTTP/2",
        ),
        pytest.param(
            odd_scope(server=("/", "t"), client=None),
            odd_environ(SERVER_NAME="localhost", SERVER_PORT="80", REMOTE_ADDR=..., REMOTE_PORT=...),
            id="gunicorn, Unix socket",
        ),
        pytest.param(
            odd_scope(server=("", "0"), client=("", "0")),
            odd_environ(SERVER_NAME="localhost", SERVER_PORT="80", REMOTE_ADDR=..., REMOTE_PORT=...),
            id="granian, Unix socket",
        ),
        pytest.param(
            odd_scope(
                asgi={"version": "3.0", "spec_version": "2.0"}, raw_path=None, path="/x", headers=[[b"host", b"h"]]
            ),
            environ_of(
                PATH_INFO="/x",
                QUERY_STRING="q=1%20&r=%FF",
                URI="/x?q=1%20&r=%FF",
                HTTP_HOST="h",
                REMOTE_ADDR="127.0.0.1",
                REMOTE_PORT="43774",
                SERVER_NAME="127.0.0.1",
                SERVER_PORT="18101",
            ),
            id="mangum",
        ),
    ],
)
def test_environ_is_the_same_on_every_asgi_server(scope: dict[str, Any], environ: dict[str, Any]) -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": one request, as servers really tell it."""
    assert to_environ(scope) == environ


def seen_scope(**changes: Any) -> dict[str, Any]:
    """Return the scope that the odd request has on every WSGI server, changed."""
    return odd_scope(**{"headers": [], "extensions": {}, **changes})


def headers_of(**headers: str) -> Iterable[tuple[str, str]]:
    """Yield the HTTP_* keys of the odd request."""
    yield from {
        "HTTP_HOST": "localhost",
        "HTTP_COOKIE": "a=1,b=2",
        "HTTP_PROXY": "http://evil/",
        "HTTP_X_LATIN": "\xe9",
        "HTTP_X_EMPTY": "",
        **headers,
    }.items()


def pairs_of(*more: tuple[bytes, bytes], cookie: bytes = b"a=1,b=2", latin: bytes = b"\xe9") -> Pairs:
    """Return the same as headers of a scope."""
    return [(b"host", b"localhost"), (b"cookie", cookie), (b"x-latin", latin), (b"x-empty", b""), *more]


def dumped(*keys: tuple[str, Any], **changes: Any) -> dict[str, Any]:
    """Return an environ as a server made it, with nothing that it did not have."""
    base = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": ODD_PATH_INFO, "QUERY_STRING": "q=1%20&r=%FF"}
    return {**base, "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", **dict(keys), **both_uris(changes)}


LOCAL = {"REMOTE_ADDR": "127.0.0.1", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "18101"}
ODD_URI = f"{ODD_TARGET}?q=1%20&r=%FF"
QUOTED = b"/a%20b/%E2%82%AC//x/%FF//y"


@pytest.mark.parametrize(
    ("environ", "scope"),
    [
        pytest.param(
            dumped(*headers_of(), **LOCAL, REMOTE_PORT="43774", RAW_URI=ODD_URI),
            seen_scope(headers=pairs_of()),
            id="gunicorn",
        ),
        pytest.param(
            dumped(
                *headers_of(HTTP_COOKIE="a=1, b=2"),
                **LOCAL | {"SERVER_PORT": "/run/s", "REMOTE_PORT": "None"},
                REQUEST_URI=ODD_URI,
            ),
            seen_scope(headers=pairs_of(cookie=b"a=1, b=2"), server=("/run/s", None), client=("127.0.0.1", 0)),
            id="waitress, Unix socket",
        ),
        pytest.param(
            dumped(
                *headers_of(),
                **LOCAL,
                PATH_INFO="/a b/\xe2\x82\xac/%2Fx/\xff//y",
                REMOTE_PORT="43774",
                REQUEST_URI=ODD_URI,
            ),
            seen_scope(headers=pairs_of()),
            id="cheroot",
        ),
        pytest.param(
            dumped(*headers_of(), SERVER_NAME="", SERVER_PORT="", PATH_INFO="http://localhost/abs x"),
            seen_scope(headers=pairs_of(), server=None, client=None, path="/abs x", raw_path=b"/abs%20x"),
            id="gevent, Unix socket, absolute-form",
        ),
        pytest.param(
            dumped(
                *headers_of(), **LOCAL, CONTENT_TYPE="text/plain", SERVER_PROTOCOL="HTTP/1.0", RAW_PATH_INFO=ODD_TARGET
            ),
            seen_scope(
                headers=pairs_of((b"content-type", b"text/plain")),
                http_version="1.0",
                raw_path=QUOTED,
                client=("127.0.0.1", 0),
            ),
            id="eventlet",
        ),
        pytest.param(
            dumped(
                *headers_of(),
                **LOCAL,
                PATH_INFO="/a b/\xe2\x82\xac//x/\xef\xbf\xbd//y",
                REMOTE_PORT=43774,
                REQUEST_URI=ODD_URI,
            ),
            seen_scope(headers=pairs_of()),
            id="werkzeug",
        ),
        pytest.param(
            dumped(*headers_of(), **LOCAL, CONTENT_LENGTH="", CONTENT_TYPE="text/plain", REMOTE_HOST=""),
            seen_scope(headers=pairs_of((b"content-type", b"text/plain")), raw_path=QUOTED, client=("127.0.0.1", 0)),
            id="wsgiref",
        ),
        pytest.param(
            dumped(*headers_of(HTTP_COOKIE="a=1;b=2"), **LOCAL, SERVER_PROTOCOL="HTTP/1", GATEWAY_INTERFACE="CGI/1.1"),
            seen_scope(
                headers=pairs_of(cookie=b"a=1;b=2"), http_version="1.0", raw_path=QUOTED, client=("127.0.0.1", 0)
            ),
            id="granian, HTTP/1.0",
        ),
        pytest.param(
            dumped(
                *headers_of(),
                SERVER_NAME="localhost",
                SERVER_PORT="80",
                REMOTE_ADDR="127.0.0.1",
                CONTENT_LENGTH="",
                CONTENT_TYPE="",
            ),
            seen_scope(headers=pairs_of(), server=("localhost", 80), raw_path=QUOTED, client=("127.0.0.1", 0)),
            id="twisted",
        ),
        pytest.param(
            dumped(
                *headers_of(HTTP_X_LATIN="\udce9"),
                **LOCAL,
                PATH_INFO="/a b/\u20ac//x/%FF//y",
                REMOTE_PORT="43774",
                CONTENT_LENGTH="0",
                CONTENT_TYPE="",
                URI=ODD_URI,
            ),
            seen_scope(headers=pairs_of((b"content-length", b"0"))),
            id="aiohttp-wsgi",
        ),
        pytest.param(
            dumped(
                *headers_of(),
                PATH_INFO="/a b/\u20ac//x/\ufffd//y",
                QUERY_STRING="",
                SERVER_NAME="localhost",
                SERVER_PORT="0",
            ),
            seen_scope(
                headers=pairs_of(),
                query_string=b"",
                server=("localhost", None),
                client=None,
                raw_path=b"/a%20b/%E2%82%AC//x/%EF%BF%BD//y",
            ),
            id="tsuno, caddysnake",
        ),
        pytest.param(
            dumped(
                *headers_of(HTTP_VERSION="2"), **LOCAL, SERVER_PROTOCOL="HTTP/2.0", RAW_URI=ODD_URI, REMOTE_PORT="43774"
            ),
            seen_scope(headers=pairs_of(), http_version="2"),
            id="gunicorn, HTTP/2",
        ),
        pytest.param(
            dumped(
                *headers_of(HTTP_CONTENT_LENGTH="5", HTTP_CONTENT_TYPE="x"),
                SERVER_NAME="localhost",
                SERVER_PORT="",
                PATH_INFO="/a b/€",
                CONTENT_LENGTH="5",
                CONTENT_TYPE="x",
            ),
            seen_scope(
                headers=pairs_of((b"content-type", b"x"), (b"content-length", b"5")),
                server=("localhost", None),
                client=None,
                path="/a b/€",
                raw_path=b"/a%20b/%E2%82%AC",
            ),
            id="apig-wsgi",
        ),
    ],
)
def test_scope_is_the_same_on_every_wsgi_server(environ: dict[str, Any], scope: dict[str, Any]) -> None:
    """PEP 3333, "environ Variables": one request, as servers really tell it."""
    assert to_scope(environ) == scope


def test_uwsgi_keys_of_bytes_are_left_alone() -> None:
    """Servers (uWSGI) put bytes into the environ: they are no headers, and reach a nested WSGI app as they are."""
    environ = environ_of()
    environ |= {"uwsgi.node": b"vm", "uwsgi.version": b"2.0.31"}
    assert to_scope(environ) == scope_of()
    assert nested_environ(environ) == environ


def one_shot(pairs: Pairs) -> Iterator[tuple[bytes, bytes]]:
    """Yield headers once, each a pair that can be read once, as Falcon's test client does."""
    for pair in pairs:
        yield iter(pair)  # type: ignore[misc]


def test_nested_scope_has_headers_that_could_be_read_once() -> None:
    """ASGI HTTP 2.5, "HTTP Connection Scope": headers that can be read once are there for the inner bridge, too."""
    assert nested_scope(scope_of(headers=one_shot(RICH_HEADERS))) == scope_of(headers=RICH_HEADERS)
