"""Paths in either direction, and both ways in a row."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pytest

from a2wsgi._protocol.environ import EnvironTemplate
from support.translators import (
    environ_of,
    scope_of,
    to_environ,
    to_scope,
    without_uri,
)

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
