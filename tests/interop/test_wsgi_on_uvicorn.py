"""What only uvicorn's options bring about, for Flask and Django under a bridge."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interop.client import Client
from support.servers import Server, module, running, until

pytestmark = pytest.mark.interop

pytest.importorskip("django")
pytest.importorskip("flask")
pytest.importorskip("uvicorn")


def uvicorn(*arguments: str) -> Callable[[int], list[str]]:
    """The command line of uvicorn with these arguments."""
    return lambda port: module("uvicorn", "interop.wsgi_apps:application", f"--port={port}", *arguments)


@pytest.fixture(scope="module", params=["h11", "httptools"])
def prefixed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server behind a proxy that cuts ``/a b`` from each path."""
    pytest.importorskip(request.param)
    with running(uvicorn(f"--http={request.param}", "--root-path=/a b"), tmp_path_factory.mktemp("server")) as server:
        yield server


def test_root_path_is_the_script_name(prefixed: Server) -> None:
    """What uvicorn puts before each path, by ``--root-path``, the app gets apart from the path."""
    with Client(prefixed.port) as client:
        strings = client.get("/environ/c%20d/%E9").json()
    assert strings["SCRIPT_NAME"] == "/a b"
    assert strings["PATH_INFO"].encode("latin-1") == b"/environ/c d/\xe9"


def test_django_knows_the_root_path(prefixed: Server) -> None:
    """Django's paths begin with it, on the second request as on the first."""
    with Client(prefixed.port) as client:
        for _ in range(2):
            assert client.get("/prefix", [("X-Bridge", "django")]).json() == {
                "path": "/a b/prefix",
                "path_info": "/prefix",
                "query": {},
            }


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("path", ["/endless/x", "/quiet/x", "/stuck"])
def test_sigterm_ends_what_does_not_end_itself(tmp_path: Path, http: str, path: str) -> None:
    """After uvicorn's own grace period no request keeps the process alive, not even one whose app is stuck."""
    pytest.importorskip(http)
    command = uvicorn(f"--http={http}", "--timeout-graceful-shutdown=0")
    with running(command, tmp_path) as server, Client(server.port) as client, Client(server.port) as other:
        client.send_head("GET", path)
        until(lambda: other.get("/statistics").json()["flask"]["busy"] == 1, "the app runs")
        server.signal(signal.SIGTERM)
        assert server.wait() in {0, -signal.SIGTERM}


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_request_of_http_1_0_is_answered_to_its_end(tmp_path: Path, http: str) -> None:
    """A client of HTTP/1.0 knows no chunks: the end of the connection is the end of the body."""
    pytest.importorskip(http)
    with running(uvicorn(f"--http={http}"), tmp_path) as server, Client(server.port) as client:
        client.send(b"GET /streamed HTTP/1.0\r\nHost: localhost\r\n\r\n")
        response = client.response()
        assert (response.status, response.body) == (200, b"one two three")
