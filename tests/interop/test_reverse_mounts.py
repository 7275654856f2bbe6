"""ASGI apps inside WSGI apps, by path: the examples, on servers of both kinds.

On uvicorn the WSGI app is under a bridge itself, and so the mounted app under a pair.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from interop.client import Client, Response
from interop.mcp_client import use
from support.servers import TESTS, Server, module, running

pytest.importorskip("werkzeug")

pytestmark = pytest.mark.interop

EXAMPLES = TESTS.parent / "examples"

SERVERS = ["gunicorn", "gunicorn-gevent", "waitress", "cheroot", "werkzeug", "uvicorn"]


def command_of(server: str, app: str, port: int) -> Sequence[str]:
    """The command line of a server."""
    bind = f"127.0.0.1:{port}"
    if server == "gunicorn":
        return module("gunicorn", "--no-control-socket", "--threads=20", f"--bind={bind}", app)
    if server == "gunicorn-gevent":
        return module("gunicorn", "--no-control-socket", "--worker-class=gevent", f"--bind={bind}", app)
    if server == "waitress":
        return module("waitress", "--threads=20", f"--listen={bind}", app)
    if server == "cheroot":
        return module("cheroot", "--threads=20", f"--bind={bind}", app)
    if server == "werkzeug":
        return module("interop.serve", "werkzeug", app, str(port))
    return module("a2wsgi", "serve", app, "--server=uvicorn", f"--port={port}")


@contextmanager
def serving(server: str, app: str, directory: Path, ready: str) -> Iterator[Server]:
    """A server with an example."""
    for package in server.split("-"):
        pytest.importorskip(package)
    path = os.pathsep.join(filter(None, [str(EXAMPLES), str(TESTS), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": path}
    with running(lambda port: command_of(server, app, port), directory, environment=environment, ready=ready) as one:
        yield one


def get(server: Server, path: str) -> Response:
    """What is answered to one request, on a connection of its own."""
    with Client(server.port) as client:
        return client.get(path)


@pytest.mark.parametrize("server", SERVERS)
def test_mcp_inside_flask(server: str, tmp_path: Path) -> None:
    """Several clients at once, half of them with a session and a stream of their own; Flask goes on answering."""
    pytest.importorskip("mcp")
    pytest.importorskip("flask")
    with serving(server, "mcp_in_flask:application", tmp_path, "/") as one:
        url = f"http://127.0.0.1:{one.port}/mcp"
        assert use(f"{url}/", clients=3) == [(["add"], {"result": 5}, [(1.0, 2.0)])] * 6
        assert {used.result["result"] for used in use(url)} == {5}
        assert get(one, "/").json() == {"hello": "from Flask"}
        assert get(one, "/mcpx").status == 404
        assert "Traceback" not in one.output()


@pytest.mark.parametrize("server", SERVERS)
def test_mcp_inside_django(server: str, tmp_path: Path) -> None:
    """As a view, through Django's own streaming response."""
    pytest.importorskip("mcp")
    pytest.importorskip("django")
    with serving(server, "mcp_in_django:application", tmp_path, "/nowhere") as one:
        url = f"http://127.0.0.1:{one.port}/mcp"
        assert use(f"{url}/", clients=3) == [(["add"], {"result": 5}, [])] * 6
        assert {used.result["result"] for used in use(url)} == {5}
        assert get(one, "/mcpx").status == 404
        assert "Traceback" not in one.output()


@pytest.mark.parametrize("server", SERVERS)
def test_fastapi_inside_flask(server: str, tmp_path: Path) -> None:
    """Each answers what is its own. FastAPI's links, docs and schema have the prefix."""
    pytest.importorskip("fastapi")
    pytest.importorskip("flask")
    with serving(server, "fastapi_in_flask:app", tmp_path, "/hello") as one:
        assert get(one, "/hello").json() == {"hello": "from Flask"}
        assert get(one, "/api/hello").json() == {"hello": "from FastAPI", "url": "/api/hello"}
        assert b"/api/openapi.json" in get(one, "/api/docs").body
        assert get(one, "/api/openapi.json").json()["servers"] == [{"url": "/api"}]
        assert (get(one, "/apiary").status, get(one, "/api/nowhere").status) == (404, 404)
        assert get(one, "/api/nowhere").body == b'{"detail":"Not Found"}'
