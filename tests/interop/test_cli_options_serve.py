"""What the options of ``a2wsgi serve`` do on each server: sockets, TLS, proxies, and how often the app is loaded."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from a2wsgi._cli.servers import SERVERS
from interop.client import SECONDS
from support.servers import START_SECONDS, Server, free_port, until

pytestmark = pytest.mark.interop

SHOP = """\
import os

with open("imports", "a") as file:
    print(os.getpid(), file=file)


def app(environ, start_response):
    told = (environ["wsgi.url_scheme"], environ.get("REMOTE_ADDR", ""), environ["wsgi.multithread"])
    body = repr(told).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def create():
    return app
"""

#: gunicorn's is in the user's home, and one for all.
EXTRA = {name: ["--", "--no-control-socket"] for name in ("gunicorn", "gunicorn-asgi")}
Connect = Callable[[], socket.socket]


@contextlib.contextmanager
def serving(
    directory: Path, connect: Connect, *options: str, app: str = "shop", pass_fds: tuple[int, ...] = ()
) -> Iterator[Server]:
    """``a2wsgi serve``, from its first connection to the end of the block."""
    (directory / "shop.py").write_text(SHOP)
    [server] = [option.removeprefix("--server=") for option in options if option.startswith("--server=")]
    if SERVERS[server].version() is None:
        pytest.skip(f"{server} is not installed")
    output_path = directory / "server.log"
    with output_path.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "a2wsgi", "serve", app, *options, *EXTRA.get(server, [])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
            pass_fds=pass_fds,
        )
    running = Server(0, process, output_path)

    def has_begun() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{options} ended with {process.returncode}:\n{running.output()}")
        with contextlib.suppress(OSError):
            connect().close()
            return True
        return False

    try:
        until(has_begun, f"{options} listens", START_SECONDS)
        yield running
    finally:
        running.stop()


def get(connect: Connect, *headers: str) -> Any:
    """What the app tells."""
    with connect() as client:
        head = "".join(f"{header}\r\n" for header in ("Host: localhost", "Connection: close", *headers))
        client.sendall(f"GET / HTTP/1.0\r\n{head}\r\n".encode())
        response = b"".join(iter(lambda: client.recv(65_536), b""))
    return eval(response.partition(b"\r\n\r\n")[2])  # noqa: S307 - our own app's repr


def to(port: int) -> Connect:
    """Connects to a port of 127.0.0.1."""
    return lambda: socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


@pytest.mark.parametrize("name", [name for name in SERVERS if SERVERS[name].can("uds")])
def test_server_listens_on_a_unix_socket(name: str, tmp_path: Path) -> None:
    """By its path, which the banner has."""

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(SECONDS)
        try:
            client.connect(str(tmp_path / "app.sock"))
        except OSError:
            client.close()
            raise
        return client

    with serving(tmp_path, connect, f"--server={name}", "--uds=app.sock") as server:
        assert get(connect)[0] == "http"
        assert f" on unix:app.sock by {name} " in server.output()


@pytest.mark.parametrize("name", [name for name in SERVERS if SERVERS[name].can("fd")])
def test_server_listens_on_a_descriptor(name: str, tmp_path: Path) -> None:
    """As a service manager passes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connect, number = to(listener.getsockname()[1]), listener.fileno()
        with serving(tmp_path, connect, f"--server={name}", f"--fd={number}", pass_fds=(number,)) as server:
            assert get(connect)[0] == "http"
            assert f" on file descriptor {number} by {name} " in server.output()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for localhost, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("certificate")
    names = str(directory / "cert.pem"), str(directory / "key.pem")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-out", names[0], "-keyout", names[1]], check=True, capture_output=True)
    return names


@pytest.mark.parametrize("name", [name for name in SERVERS if SERVERS[name].can("ssl_certfile")])
def test_server_speaks_tls(name: str, tmp_path: Path, certificate: tuple[str, str]) -> None:
    """With the certificate that it is told, and the app knows."""
    port = free_port()
    context = ssl.create_default_context(cafile=certificate[0])
    context.check_hostname = False

    def connect() -> socket.socket:
        return context.wrap_socket(to(port)())

    options = [f"--ssl-certfile={certificate[0]}", f"--ssl-keyfile={certificate[1]}"]
    with serving(tmp_path, connect, f"--server={name}", f"--port={port}", *options) as server:
        assert get(connect)[0] == "https"
        assert f" on https://127.0.0.1:{port} by {name} " in server.output()


@pytest.mark.parametrize("name", ["hypercorn", "granian", "daphne"])
def test_server_speaks_tls_with_a_certificate_and_its_key_in_one_file(
    name: str, tmp_path: Path, certificate: tuple[str, str]
) -> None:
    """These need to be told of the key. Untold, hypercorn would speak HTTP."""
    port, context = free_port(), ssl.create_default_context(cafile=certificate[0])
    context.check_hostname = False
    (tmp_path / "both.pem").write_text("".join(Path(part).read_text() for part in certificate))

    def connect() -> socket.socket:
        return context.wrap_socket(to(port)())

    with serving(tmp_path, connect, f"--server={name}", f"--port={port}", "--ssl-certfile=both.pem"):
        assert get(connect)[0] == "https"


#: gunicorn takes only the scheme from a proxy.
KEEPS_THE_ADDRESS = {"gunicorn", "gunicorn-asgi"}


@pytest.mark.parametrize("name", [name for name in SERVERS if SERVERS[name].can("proxy_headers")])
def test_server_believes_the_proxy_that_it_is_told_of(name: str, tmp_path: Path) -> None:
    """The client's address and the scheme are those that the proxy has seen."""
    port = free_port()
    with serving(tmp_path, to(port), f"--server={name}", f"--port={port}", "--proxy-headers"):
        scheme, address, _ = get(to(port), "X-Forwarded-For: 10.1.2.3", "X-Forwarded-Proto: https")
        assert scheme == "https"
        assert address == ("127.0.0.1" if name in KEEPS_THE_ADDRESS else "10.1.2.3")


@pytest.mark.parametrize("name", [name for name in SERVERS if SERVERS[name].can("no_proxy_headers")])
def test_server_believes_nobody_when_it_is_told(name: str, tmp_path: Path) -> None:
    """Whatever it does by default."""
    port = free_port()
    with serving(tmp_path, to(port), f"--server={name}", f"--port={port}", "--no-proxy-headers"):
        told = get(to(port), "X-Forwarded-For: 10.1.2.3", "X-Forwarded-Proto: https")
        assert told[:2] == ("http", "127.0.0.1")


@pytest.mark.parametrize("app", ["shop", "shop:create"])
@pytest.mark.parametrize("name", [name for name in SERVERS if SERVERS[name].in_place])
def test_app_is_loaded_once_by_a_server_of_one_process(name: str, app: str, tmp_path: Path) -> None:
    """As often as by the server alone: what the command has loaded is what is served."""
    port = free_port()
    factory = ["--factory"] if app.endswith("create") else []
    with serving(tmp_path, to(port), f"--server={name}", f"--port={port}", *factory, app=app) as server:
        assert get(to(port))[0] == "http"
        assert (tmp_path / "imports").read_text() == f"{server.process.pid}\n"


@pytest.mark.parametrize("name", ["gunicorn", "hypercorn"])
def test_app_is_loaded_once_more_by_a_server_of_several_processes(name: str, tmp_path: Path) -> None:
    """Once by the command, in a process that forks none: so threads that the app starts are never missing."""
    port = free_port()
    with serving(tmp_path, to(port), f"--server={name}", f"--port={port}") as server:
        assert get(to(port))[0] == "http"
        first, second = (tmp_path / "imports").read_text().split()
        assert (int(first), int(second) != int(first)) == (server.process.pid, True)


def test_threads_of_the_bridge_are_as_many_as_wanted(tmp_path: Path) -> None:
    """With one, the app knows that it has no other."""
    port = free_port()
    with serving(tmp_path, to(port), "--server=uvicorn", f"--port={port}", "--threads=1"):
        assert get(to(port))[2] is False
