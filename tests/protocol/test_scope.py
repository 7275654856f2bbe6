"""Scopes of environs, compared whole: one test a rule."""

from __future__ import annotations

from typing import Any

import pytest

from a2wsgi._protocol.framing import BadRequest
from a2wsgi._protocol.scope import process_headers, request_length
from support.translators import (
    HOST,
    environ_of,
    scope_from_environ,
    scope_of,
    to_scope,
)

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


@pytest.mark.parametrize("encoding", ["gzip, chunked", "gzip", "chunked, GZIP"])
@pytest.mark.parametrize("terminated", [True, False, ...])
def test_body_that_is_still_coded_has_no_length(encoding: str, terminated: Any) -> None:
    """RFC 9112 §6.1, §6.2: servers take off the chunks only, so the header stays, and a length goes."""
    environ = environ_of(CONTENT_LENGTH="5", HTTP_TRANSFER_ENCODING=encoding, wsgi_input_terminated=terminated)
    assert to_scope(environ) == scope_of(headers=[*HOST, (b"transfer-encoding", encoding.encode())])


@pytest.mark.parametrize("encoding", ["", "identity", "Chunked "])
def test_body_that_is_coded_no_more_has_its_length(encoding: str) -> None:
    """RFC 9112 §7.1: without its chunks such a body has the length that the server says."""
    environ = environ_of(CONTENT_LENGTH="5", HTTP_TRANSFER_ENCODING=encoding, wsgi_input_terminated=...)
    assert to_scope(environ) == scope_of(headers=[*HOST, (b"content-length", b"5")])


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
