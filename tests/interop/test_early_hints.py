"""Early hints of Flask and FastAPI on the servers that have them: what is on the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from interop.client import Head, HTTP2Client
from interop.servers import Served
from support.servers import module, running

pytest.importorskip("flask")
pytest.importorskip("fastapi")

from interop.hints_apps import SCRIPT, STYLE

pytestmark = pytest.mark.interop

APPLICATIONS = {"asgi": "interop.hints_apps:for_asgi", "wsgi": "interop.hints_apps:for_wsgi"}
ON = [
    "hypercorn-http2",
    "hypercorn",
    "gunicorn-sync",
    "gunicorn-gthread",
    "gunicorn-gevent",
    "waitress",
]
HAVE_THEM = {"hypercorn-http2", "gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent"}

HINTS = [[STYLE], [STYLE, SCRIPT]]


def links(hint: Head) -> list[str]:
    """Those of a hint."""
    assert hint.status == 103
    return hint.all("link")


@pytest.mark.parametrize("path", ["/hinted", "/pair/hinted"])
def test_framework_gives_its_hints(served: Served, path: str) -> None:
    """Through a bridge and through a pair. Where the server has no hints, the app finds none."""
    with served.client() as client:
        client.send_head("GET", path)
        if served.name in HAVE_THEM:
            assert [links(client.head()), links(client.head())] == HINTS
            assert client.response().body == b"hinted"
        else:
            assert client.response().body == b"no hints"


@pytest.mark.parametrize("path", ["/hinted", "/pair/hinted"])
def test_client_of_http_1_0_gets_no_hint(served: Served, path: str) -> None:
    """RFC 9110 §15.2: it would take the hint for the answer."""
    if served.kind.http2 or served.name not in HAVE_THEM:
        pytest.skip("it has no hints on HTTP/1")
    with served.client() as client:
        client.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        assert client.response().body == b"hinted"


# -- HTTP/2 -------------------------------------------------------------------------------------------------------


def gunicorn(port: int) -> Sequence[str]:
    """With its workers for WSGI."""
    http2 = ["--http-protocols=h2,h1", "--http2-cleartext=prior-knowledge"]
    options = ["--no-control-socket", "--worker-class=gthread", "--threads=4", *http2]
    return module("gunicorn", *options, f"--bind=127.0.0.1:{port}", APPLICATIONS["wsgi"])


def uvicorn(port: int) -> Sequence[str]:
    """With the only implementation of HTTP/2 that it has."""
    return module("uvicorn", "--http=zttp", "--http2", f"--port={port}", APPLICATIONS["asgi"])


@pytest.mark.parametrize("path", ["/hinted", "/pair/hinted"])
@pytest.mark.parametrize(("command", "needs"), [(gunicorn, "h2"), (uvicorn, "zttp")], ids=["gunicorn", "uvicorn"])
def test_framework_gives_its_hints_on_http_2(
    command: Callable[[int], Sequence[str]], needs: str, path: str, tmp_path: Path
) -> None:
    """RFC 9113 §8.1: each is a HEADERS frame of its own. For HTTP/2 these servers have other code than for HTTP/1.

    The request has a body, since receive() of uvicorn 0.54 waits for ever for the end of one that has none.
    """
    pytest.importorskip(needs)
    with running(command, tmp_path, ready="/hello") as server, HTTP2Client(server.port) as client:
        client.send_head("POST", path, [("Content-Length", "4")])
        client.send(b"body")
        assert [links(client.head()), links(client.head())] == HINTS
        assert client.response().body == b"hinted"
