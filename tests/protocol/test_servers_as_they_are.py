"""The same request on the oddest servers: each environ and each scope, compared whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from support.translators import (
    Pairs,
    both_uris,
    environ_of,
    scope_of,
    to_environ,
    to_scope,
)

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
