"""nginx and Caddy in front of a Flask app, with the configurations that ``docs/deploying.md`` shows."""

from __future__ import annotations

import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.servers import Server, module, running

httpx = pytest.importorskip("httpx")
pytest.importorskip("flask_sock")
pytest.importorskip("uvicorn")
client_of_websockets = pytest.importorskip("websockets.sync.client")

pytestmark = pytest.mark.interop

PAGE = Path(__file__).resolve().parents[2] / "docs" / "deploying.md"
SECONDS = 10.0

APP = """
import threading
from a2wsgi import WSGIMiddleware
from flask import Flask, request
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)
next_event = threading.Event()

@app.get("/")
def about():
    return {"address": request.remote_addr, "scheme": request.scheme, "host": request.host}

@app.post("/")
def upload():
    return str(len(request.get_data()))

@app.get("/events")
def events():
    def stream():
        yield "data: first\\n\\n"
        next_event.wait(10)
        yield "data: second\\n\\n"
    return app.response_class(stream(), mimetype="text/event-stream")

@app.post("/go-on")
def go_on():
    next_event.set()
    return ""

@sock.route("/ws")
def chat(ws):
    ws.send(request.remote_addr)
    while True:
        ws.send(ws.receive())

application = WSGIMiddleware(app)
"""


def shown(language: str) -> str:
    """The configuration that the page shows in a language."""
    match = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert match is not None
    return match[1]


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """The text with other ports and names, each of which stands there."""
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(directory: Path, app: int) -> Iterator[Server]:
    """nginx, with what the page shows."""

    def command(port: int) -> list[str]:
        servers = replaced(
            shown("nginx"), ("127.0.0.1:8000", f"127.0.0.1:{app}"), ("listen 80", f"listen 127.0.0.1:{port}")
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
        configuration = directory / "nginx.conf"
        configuration.write_text(
            f"daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;\n"
            f"events {{}}\nhttp {{ access_log off; {paths}\n{servers} }}\n"
        )
        return ["nginx", "-p", str(directory), "-c", str(configuration), "-e", str(directory / "error.log")]

    with running(command, directory) as server:
        yield server


@contextmanager
def caddy(directory: Path, app: int) -> Iterator[Server]:
    """Caddy, with what the page shows, without certificates."""

    def command(port: int) -> list[str]:
        site = replaced(
            shown("text"), ("127.0.0.1:8000", f"127.0.0.1:{app}"), ("example.com", f"http://127.0.0.1:{port}")
        )
        configuration = directory / "Caddyfile"
        configuration.write_text("{\n admin off\n auto_https off\n}\n" + site)
        return ["caddy", "run", "--config", str(configuration), "--adapter", "caddyfile"]

    with running(command, directory, environment={"HOME": str(directory)}) as server:
        yield server


@pytest.fixture(params=[nginx, caddy], ids=lambda proxy: proxy.__name__)
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A client of the proxy, which has a Flask app on uvicorn behind it."""
    if shutil.which(request.param.__name__) is None:
        pytest.skip(f"{request.param.__name__} is not installed")
    (tmp_path / "shop_app.py").write_text(APP)

    def command(port: int) -> list[str]:
        return module("uvicorn", "--app-dir", str(tmp_path), "--port", str(port), "shop_app:application")

    with (
        running(command, tmp_path) as app,
        request.param(tmp_path, app.port) as proxy,
        httpx.Client(base_url=f"http://127.0.0.1:{proxy.port}", timeout=SECONDS) as client,
    ):
        yield client


def test_events_are_not_held_back(proxied: Any) -> None:
    """An event comes through before the app makes the next one."""
    with proxied.stream("GET", "/events") as response:
        lines = (line for line in response.iter_lines() if line)
        assert next(lines) == "data: first"
        assert httpx.post(proxied.base_url.join("/go-on"), timeout=SECONDS).status_code == 200
        assert next(lines) == "data: second"


def test_clients_cannot_choose_their_address(proxied: Any) -> None:
    """What a client says in the forwarded headers is replaced by what the proxy knows."""
    told = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    answer = proxied.get("/", headers=told).json()
    assert answer == {"address": "127.0.0.1", "scheme": "http", "host": proxied.base_url.netloc.decode()}


def test_uploads_pass(proxied: Any) -> None:
    """A body of more than nginx's own limit, with a length and without."""
    content = b"x" * 3_000_000
    assert proxied.post("/", content=content).text == "3000000"
    assert proxied.post("/", content=iter([content, content])).text == "6000000"


def test_websockets_pass(proxied: Any) -> None:
    """Both ways, and what their client says of its address is replaced, too."""
    uri = f"ws://{proxied.base_url.netloc.decode()}/ws"
    with client_of_websockets.connect(uri, additional_headers={"X-Forwarded-For": "203.0.113.9"}) as ws:
        assert ws.recv(timeout=SECONDS) == "127.0.0.1"
        ws.send("hello")
        assert ws.recv(timeout=SECONDS) == "hello"


class Counted(http.server.BaseHTTPRequestHandler):
    """Answers, and counts the connections."""

    protocol_version = "HTTP/1.1"
    connections = 0

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name for it
        pass


def test_nginx_uses_its_connection_to_the_app_again(tmp_path: Path) -> None:
    """Requests that follow each other share one."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counted) as app:
        thread = threading.Thread(target=app.serve_forever)
        thread.start()
        try:
            with nginx(tmp_path, app.server_address[1]) as proxy:
                before = Counted.connections
                for _ in range(5):
                    assert httpx.get(f"http://127.0.0.1:{proxy.port}/", timeout=SECONDS).status_code == 204
            assert Counted.connections - before <= 1
        finally:
            app.shutdown()
            thread.join()
