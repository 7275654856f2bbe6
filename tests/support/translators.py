"""The two translators as the bridges call them, followed by what a nested bridge takes back; and requests for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from hypothesis import strategies as st

from a2wsgi import _nested
from a2wsgi._protocol import environ as _environ
from a2wsgi._protocol import scope as _scope
from a2wsgi._protocol.environ import DEFAULT_TEMPLATE, EnvironTemplate, ScopeView

Pairs = list[tuple[bytes, bytes]]
HOST: Pairs = [(b"host", b"example.org")]


def environ_from_scope(scope: dict[str, Any], template: EnvironTemplate = DEFAULT_TEMPLATE) -> dict[str, Any]:
    """Return the environ that a WSGI app's bridge makes of a scope."""
    environ = _environ.environ_from_scope(scope, template)
    if "wsgi_environ" in scope:
        _nested.take_back_environ(environ, scope)
    return environ


def scope_from_environ(environ: dict[str, Any], process: dict[str, tuple[str, ...]] | None = None) -> dict[str, Any]:
    """Return the scope that an ASGI app's bridge makes of an environ."""
    scope = _scope.scope_from_environ(environ, process or {})
    if "asgi.scope" in environ:
        _nested.take_back_scope(scope, environ)
    return scope


# -- Requests ----------------------------------------------------------------------------------------------------------


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


def without_uri(environ: dict[str, Any]) -> dict[str, Any]:
    """Return the environ of a server that does not tell the request target."""
    return {key: value for key, value in environ.items() if key not in {"REQUEST_URI", "RAW_URI"}}


def one_shot(pairs: Pairs) -> Iterator[tuple[bytes, bytes]]:
    """Yield headers once, each a pair that can be read once, as Falcon's test client does."""
    for pair in pairs:
        yield iter(pair)  # type: ignore[misc]


def nested_scope(scope: dict[str, Any], changes: dict[str, Any] | None = None, **template: Any) -> dict[str, Any]:
    """Return what an ASGI app sees in a WSGI app on an ASGI server, where something in between changed the environ."""
    environ = {**environ_from_scope(scope, EnvironTemplate(**template)), **(changes or {})}
    return to_scope({key: value for key, value in environ.items() if value is not ...})


def nested_environ(environ: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return what a WSGI app sees in an ASGI app on a WSGI server, where something in between changed the scope."""
    return to_environ({**scope_from_environ(environ), **changes})


# -- Requests at random ------------------------------------------------------------------------------------------------

TOKENS = st.text("abcxyz0189.!~-", min_size=1, max_size=8).filter(
    lambda name: name not in {"proxy", "content-length", "content-type", "transfer-encoding", "host", "version"}
)
VALUES = st.binary(max_size=12).map(lambda value: value.strip(b" \t"))  # RFC 9110 §5.5: those are not of a value
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
