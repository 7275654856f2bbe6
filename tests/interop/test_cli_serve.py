"""``a2wsgi serve`` as a process: each kind of app on each server, from a directory that is not the project's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from a2wsgi._cli.servers import SERVERS
from interop.client import SECONDS
from support.servers import START_SECONDS, STOP_SECONDS, Server, free_port, until

pytestmark = pytest.mark.interop

SHOP = """\
import asyncio
import json
import os

print("shop is imported by", os.getpid(), flush=True)


def wsgi(environ, start_response):
    told = {key: environ[key] for key in ("SCRIPT_NAME", "PATH_INFO")}
    body = json.dumps({"kind": "wsgi", **told}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            print(step, "of", os.getpid(), flush=True)
            await send({"type": f"lifespan.{step}.complete"})
        return
    if scope["path"] == "/slow":
        print("request has begun", flush=True)
        await asyncio.sleep(1.0)
        print("request ends", flush=True)
    body = json.dumps({"kind": "asgi", "root_path": scope["root_path"]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def make():
    return wsgi
"""

#: gunicorn's is in the user's home, and one for all.
EXTRA = {name: ["--", "--no-control-socket"] for name in ("gunicorn", "gunicorn-asgi")}
PAIRS = [(kind, name) for kind in ("wsgi", "asgi") for name in SERVERS]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with a module of apps, which is not the project's."""
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@contextlib.contextmanager
def serving(directory: Path, app: str, *options: str, server: str = "uvicorn") -> Iterator[Server]:
    """``a2wsgi serve``, run in ``directory``, from its first answer to the end of the block."""
    if SERVERS[server].version() is None:
        pytest.skip(f"{server} is not installed")
    port = free_port()
    output_path = directory / f"server-{port}.log"
    command = [sys.executable, "-m", "a2wsgi", "serve", app, f"--server={server}", f"--port={port}", *options]
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "SCRIPT_NAME"}}
    with output_path.open("wb") as output:
        process = subprocess.Popen(
            [*command, *EXTRA.get(server, [])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            # Of two versions of a module that are written within a second the second would be taken for the first.
            env={**environment, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
    running = Server(port, process, output_path)

    def has_begun() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{command} ended with {process.returncode}:\n{running.output()}")
        return running.listens()

    try:
        until(has_begun, f"{command} listens", START_SECONDS)
        yield running
    finally:
        running.stop()


def get(server: Server, path: str = "/") -> Any:
    """The JSON at ``path``. The server has done with the request when this returns: it has closed the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        response = b"".join(iter(lambda: client.recv(65_536), b""))
    return json.loads(response.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_serve_runs_any_app_on_any_server_and_ends_on_sigterm(directory: Path, kind: str, name: str) -> None:
    """It says what it does, it serves, and process managers can end it; then the app's lifespan ends too."""
    with serving(directory, f"shop:{kind}", server=name) as server:
        assert get(server)["kind"] == kind
        bridge = {"wsgi": "WSGIMiddleware", "asgi": "ASGIMiddleware"}[kind]
        called = SERVERS[name].called("wsgi" if kind == "wsgi" else "asgi3")
        how = "without a bridge" if called.startswith(kind) else f"through {bridge}"
        version = SERVERS[name].version()
        place = f"http://127.0.0.1:{server.port}"
        statement = f"a2wsgi: serving the {kind.upper()} app shop:{kind} on {place} by {name} {version}, {how}\n"
        assert statement in server.output()
        server.signal(signal.SIGTERM)
        assert server.wait() in {0, -signal.SIGTERM}  # uvicorn ends by the signal itself
        output = server.output()
        assert "Traceback" not in output
        assert output.count("startup of ") == output.count("shutdown of ")
        assert ("shutdown of " in output) == (kind == "asgi" and "lifespan" not in SERVERS[name].lacks)


@pytest.mark.parametrize("name", [name for name in SERVERS if name not in {"daphne", "werkzeug"}])  # they cut it off
def test_serve_lets_a_request_end_on_sigterm(directory: Path, name: str) -> None:
    """Its client has the whole response. Only then does the app's lifespan end."""
    with serving(directory, "shop:asgi", server=name) as server, ThreadPoolExecutor(1) as clients:
        response = clients.submit(get, server, "/slow")
        until(lambda: "request has begun" in server.output(), "the request begins", SECONDS)
        server.signal(signal.SIGTERM)
        assert response.result(SECONDS)["kind"] == "asgi"
        assert server.wait() in {0, -signal.SIGTERM}
        output = server.output()
        assert "Traceback" not in output
        assert output.index("request ends") < output.index("shutdown of ")


@pytest.mark.parametrize("name", SERVERS)
def test_serve_ends_on_ctrl_c(directory: Path, name: str) -> None:
    """A terminal sends the signal to all processes; none of them shows a traceback."""
    kind = "wsgi" if SERVERS[name].interface == "asgi3" else "asgi"
    with serving(directory, f"shop:{kind}", server=name) as server:
        assert get(server)["kind"] == kind
        server.signal_group(signal.SIGINT)
        # A worker of gunicorn may wait for ever for a lock that it has itself (see test_examples_run.py). It is killed
        # after 30 s.
        status = server.wait(40.0 if name == "gunicorn" else STOP_SECONDS)
        if name == "granian" and "Unexpected exit from worker" in server.output():
            pytest.xfail("granian may learn of its worker's end before its own Ctrl-C, and takes it for a crash")
        assert status in {0, -signal.SIGINT}
        assert "Traceback" not in server.output()


@pytest.mark.parametrize("name", SERVERS)
def test_serve_mounts_the_app_under_a_prefix(directory: Path, name: str) -> None:
    """Each server is told by an option of its own, and the bridge passes it on."""
    kind = "wsgi" if SERVERS[name].interface == "asgi3" else "asgi"
    with serving(directory, f"shop:{kind}", "--root-path=/pre", server=name) as server:
        told = get(server, "/x" if name == "uvicorn" else "/pre/x")
        if kind == "wsgi":
            assert told == {"kind": "wsgi", "SCRIPT_NAME": "/pre", "PATH_INFO": "/x"}
        else:
            assert told == {"kind": "asgi", "root_path": "/pre"}


@pytest.mark.parametrize("name", [name for name in SERVERS if SERVERS[name].can("workers")])
def test_serve_starts_as_many_processes_as_it_is_told(directory: Path, name: str) -> None:
    """Each of them loads the app."""
    with serving(directory, "shop:make", "--factory", "--workers=2", server=name) as server:

        def importers() -> set[str]:
            lines = server.output().splitlines()
            return {line.rpartition(" ")[2] for line in lines if line.startswith("shop is imported by ")}

        until(lambda: len(importers() - {str(server.process.pid)}) == 2, "two processes import the app", START_SECONDS)
        assert get(server)["kind"] == "wsgi"


@pytest.mark.parametrize("name", [name for name in SERVERS if SERVERS[name].can("reload")])
def test_serve_reloads_when_the_code_changes(directory: Path, name: str) -> None:
    """The next request after a change is answered by the new code."""
    with serving(directory, "shop:wsgi", "--reload", server=name) as server:
        assert get(server)["kind"] == "wsgi"
        written = 0.0

        def is_new() -> bool:
            nonlocal written
            if time.monotonic() > written + 3.0:  # again, since servers serve before they begin to watch
                (directory / "shop.py").write_text(SHOP.replace('"kind": "wsgi"', '"kind": "new"'))
                written = time.monotonic()
            with contextlib.suppress(OSError, ValueError):  # none listens, or none answers, while it restarts
                return bool(get(server)["kind"] == "new")
            return False

        until(is_new, "the new code answers", START_SECONDS)


def test_serve_finds_a_file_in_another_directory(directory: Path) -> None:
    """The module of a package, by the path of its file, with its import by dots."""
    package = directory / "site" / "pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(SHOP)
    (package / "main.py").write_text("from .parts import wsgi as app\n")
    (directory / "empty").mkdir()
    with serving(directory / "empty", "../site/pkg/main.py:app") as server:
        assert get(server)["kind"] == "wsgi"


def test_serve_is_a_command(directory: Path) -> None:
    """The script that pip installs says the same as ``python -m a2wsgi``."""
    script = Path(sys.executable).with_name("a2wsgi")
    done = subprocess.run([script, "serve", "shop:nothing"], cwd=directory, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"a2wsgi: shop has no attribute 'nothing', in {directory}/shop.py.\n")


def test_serve_runs_flask_made_by_a_factory(directory: Path) -> None:
    """The app of a framework."""
    pytest.importorskip("flask")
    (directory / "pages.py").write_text(
        "from flask import Flask\n\ndef create_app():\n    app = Flask(__name__)\n"
        "    @app.get('/')\n    def home():\n        return {'kind': 'flask'}\n    return app\n"
    )
    with serving(directory, "pages.py:create_app", "--factory") as server:
        assert get(server) == {"kind": "flask"}


def test_serve_runs_fastapi_on_gunicorn(directory: Path) -> None:
    """The app of a framework, with its lifespan."""
    pytest.importorskip("fastapi")
    (directory / "api.py").write_text(
        "from contextlib import asynccontextmanager\nfrom fastapi import FastAPI, Request\n\n"
        "@asynccontextmanager\nasync def lifespan(app):\n    yield {'kind': 'fastapi'}\n\n"
        "app = FastAPI(lifespan=lifespan)\n\n"
        "@app.get('/')\nasync def home(request: Request):\n    return {'kind': request.state.kind}\n"
    )
    with serving(directory, "api:app", server="gunicorn") as server:
        assert get(server) == {"kind": "fastapi"}
