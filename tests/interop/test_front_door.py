"""Servers take what either class name gives for what it is, with no option that says so, and serve it."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from interop.client import Client
from support.servers import Server, module, running

pytestmark = pytest.mark.interop

#: Written where the server runs, as a user writes it: the first is the quickstart of the published description.
SOURCE = """
from a2wsgi import ASGIMiddleware, WSGIMiddleware

def wsgi_app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode(), b" ", body]

async def native_app(scope, receive, send):
    assert scope["type"] == "http"
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": scope["path"].encode() + b" " + body})

asgi_app = ASGIMiddleware(wsgi_app)
other_asgi_app = WSGIMiddleware(wsgi_app)
served_app = WSGIMiddleware(native_app)
other_served_app = ASGIMiddleware(native_app)
"""

ASGI_SERVERS: dict[str, Callable[[str, int], Sequence[str]]] = {
    "uvicorn": lambda app, port: module("uvicorn", app, f"--port={port}"),
    # Without a worker process: with one, its parent goes on listening until the worker has ended.
    "hypercorn": lambda app, port: module("hypercorn", "--workers=0", f"--bind=127.0.0.1:{port}", app),
    "hypercorn-trio": lambda app, port: module(
        "hypercorn", "--worker-class=trio", "--workers=0", f"--bind=127.0.0.1:{port}", app
    ),
    # It has no way to tell: --interface is of RSGI by default. All others look at the app.
    "granian": lambda app, port: module("granian", "--interface=asgi", f"--port={port}", app),
    "daphne": lambda app, port: module("daphne", f"--port={port}", app),
}
WSGI_SERVERS: dict[str, Callable[[str, int], Sequence[str]]] = {
    "gunicorn": lambda app, port: module("gunicorn", "--no-control-socket", f"--bind=127.0.0.1:{port}", app),
    "waitress": lambda app, port: module("waitress", f"--listen=127.0.0.1:{port}", app),
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where ``front_door_app.py`` is."""
    (tmp_path / "front_door_app.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def serve(directory: Path) -> Iterator[Callable[[Callable[[str, int], Sequence[str]], str], Server]]:
    """Starts a server on a name of that module, and ends it after the test."""
    with contextlib.ExitStack() as stack:

        def start(command: Callable[[str, int], Sequence[str]], name: str) -> Server:
            environment = {"PYTHONPATH": str(directory)}
            server = running(lambda port: command(f"front_door_app:{name}", port), directory, environment=environment)
            return stack.enter_context(server)

        yield start


def answers(server: Server) -> list[bytes]:
    """The bodies of a GET and a POST, each on a connection of its own: not every server keeps one."""
    with Client(server.port) as client, Client(server.port) as other:
        return [client.get("/one").body, other.request("POST", "/two", body=[b"posted"]).body]


ANSWERS = [b"/one ", b"/two posted"]
Serve = Callable[[Callable[[str, int], Sequence[str]], str], Server]


@pytest.mark.parametrize("app", ["asgi_app", "other_asgi_app"])
@pytest.mark.parametrize("name", ASGI_SERVERS)
def test_asgi_server_takes_a_wsgi_app_under_either_name(serve: Serve, name: str, app: str) -> None:
    """It sees an ASGI 3 app."""
    if not all(map(importlib.util.find_spec, name.split("-"))):
        pytest.skip(f"{name} is not installed")
    assert answers(serve(ASGI_SERVERS[name], app)) == ANSWERS


@pytest.mark.parametrize("app", ["served_app", "other_served_app"])
@pytest.mark.parametrize("name", WSGI_SERVERS)
def test_wsgi_server_takes_an_asgi_app_under_either_name(serve: Serve, name: str, app: str) -> None:
    """It sees a WSGI app."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    assert answers(serve(WSGI_SERVERS[name], app)) == ANSWERS


@pytest.mark.parametrize("app", ["asgi_app", "other_asgi_app"])
def test_uvicorn_says_that_it_has_found_an_asgi_3_app(app: str) -> None:
    """All else it would call as ASGI 2."""
    config = pytest.importorskip("uvicorn.config")
    names: dict[str, object] = {"__name__": "front_door_app"}
    exec(SOURCE, names)  # noqa: S102  # the same module, in this process
    loaded = config.Config(names[app], lifespan="off")
    loaded.load()
    assert loaded.interface == "asgi3"
