"""FastAPI under a bridge on each WSGI server, over real sockets.

Whatever a test waits for is told by the app through a file, by the server's answers or by the end of a connection.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import random
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from interop.client import BrokenError, Client
from support.servers import Server, module, running, until

pytestmark = pytest.mark.interop

UPLOAD = random.Random(20).randbytes(1_000_000) * 20
SHA256 = hashlib.sha256(UPLOAD).hexdigest()
PIECES = [UPLOAD[at : at + 65_536] for at in range(0, len(UPLOAD), 65_536)]


@dataclass(frozen=True)
class Kind:
    """A WSGI server, and how it is used.

    Attributes:
        package: What it needs.
        command: Its command line.
        ends_by: The signal that it takes for a request to end; others kill it.
        cannot: What it cannot do, whatever a bridge does.
        options: Those of the bridge.
    """

    package: str
    command: Callable[[int], Sequence[str]]
    ends_by: signal.Signals = signal.SIGTERM
    cannot: frozenset[str] = frozenset()
    options: dict[str, object] = field(default_factory=dict)


def _gunicorn(*arguments: str) -> Callable[[int], Sequence[str]]:
    return lambda port: module(
        "gunicorn",
        "--no-control-socket",
        f"--bind=127.0.0.1:{port}",
        "--graceful-timeout=5",
        *arguments,
        "interop.asgi_apps:application",
    )


def _uwsgi(*arguments: str) -> Callable[[int], Sequence[str]]:
    return lambda port: [
        str(Path(sys.executable).parent / "pyuwsgi"),
        f"--http-socket=127.0.0.1:{port}",
        "--need-app",
        "--die-on-term",
        "--buffer-size=16384",
        *arguments,
        "--module=interop.asgi_apps:application",
    ]


WSGIREF = """
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server
from interop.asgi_apps import validated
class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass
with make_server("127.0.0.1", int(sys.argv[1]), validated, handler_class=Quiet) as server:
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
"""

# waitress takes in a request before the app sees it, and only notices that a client has left when it writes to it.
KINDS = {
    "gunicorn-sync": Kind("gunicorn", _gunicorn("--worker-class=sync")),
    "gunicorn-sync-inline": Kind("gunicorn", _gunicorn("--worker-class=sync"), options={"inline": True}),
    "gunicorn-gthread": Kind("gunicorn", _gunicorn("--worker-class=gthread", "--threads=4")),
    "gunicorn-gevent": Kind("gevent", _gunicorn("--worker-class=gevent")),
    "gunicorn-preload": Kind(
        "gunicorn", _gunicorn("--preload", "--workers=2", "--worker-class=gthread", "--threads=2")
    ),
    "waitress": Kind(
        "waitress",
        lambda port: module("waitress", f"--listen=127.0.0.1:{port}", "interop.asgi_apps:application"),
        signal.SIGINT,
    ),
    "uwsgi-threads": Kind("pyuwsgi", _uwsgi("--master", "--processes=2", "--enable-threads")),
    "uwsgi-lazy": Kind("pyuwsgi", _uwsgi("--master", "--lazy-apps")),
    "uwsgi-inline": Kind("pyuwsgi", _uwsgi("--master"), options={"inline": True}),
    "wsgiref-validated": Kind(
        "wsgiref",
        lambda port: [sys.executable, "-c", WSGIREF, str(port)],
        signal.SIGINT,
        # It reads no chunks, and HTTP/1.0 is what it speaks.
        cannot=frozenset({"chunked upload"}),
    ),
}


@dataclass(frozen=True)
class Served:
    """A server that runs, and the directory through which its app tells."""

    kind: Kind
    server: Server
    directory: Path

    def client(self) -> Client:
        return Client(self.server.port)

    def tell(self, name: str) -> None:
        (self.directory / name).touch()

    def told(self, name: str) -> None:
        until((self.directory / name).exists, f"The app tells {name}")

    def lifespan(self) -> list[str]:
        path = self.directory / "lifespan"
        return path.read_text().splitlines() if path.exists() else []


def serving(kind: Kind, directory: Path) -> Iterator[Served]:
    """One server, from its first answer to the end of the test."""
    if importlib.util.find_spec(kind.package) is None:
        pytest.skip(f"{kind.package} is not installed")
    environment = {"A2WSGI_TEST_DIR": str(directory), "A2WSGI_TEST_OPTIONS": json.dumps(kind.options)}
    with running(kind.command, directory, environment=environment, ready="/json") as server:
        yield Served(kind, server, directory)


@pytest.fixture(scope="module", params=list(KINDS))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Each server, once for all tests."""
    yield from serving(KINDS[request.param], tmp_path_factory.mktemp("server"))


def unique() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex


def test_json(served: Served) -> None:
    """PAINS B1: the app was started up in the process that serves, and its state is there."""
    with served.client() as client:
        assert client.get("/json").json() == {"hello": "world", "started_here": True}


def test_sync_endpoint(served: Served) -> None:
    """An endpoint that FastAPI runs in a thread."""
    with served.client() as client:
        assert client.get("/sync").json() == {"hello": "from a thread"}


def test_upload_of_20_mb(served: Served) -> None:
    """PAINS D1: a long body arrives byte for byte."""
    with served.client() as client:
        response = client.request("POST", "/upload", body=UPLOAD)
        assert response.json() == {"sha256": SHA256, "length": len(UPLOAD)}


def test_upload_of_20_mb_in_chunks(served: Served) -> None:
    """PAINS G3: as above, without a length."""
    if "chunked upload" in served.kind.cannot:
        pytest.skip("The server reads no chunks")
    with served.client() as client:
        response = client.request("POST", "/upload", body=PIECES)
        assert response.json() == {"sha256": SHA256, "length": len(UPLOAD)}


def test_upload_that_is_aborted(served: Served) -> None:
    """PAINS E3: a client that hangs up in its body does no harm: the server goes on to serve."""
    with served.client() as client:
        client.send_head("POST", "/upload", [("Content-Length", "100000")])
        client.send(b"x" * 10)
    with served.client() as client:
        assert client.get("/json").status == 200


def read_until(client: Client, wanted: bytes) -> bytes:
    """Read what comes until it holds ``wanted``."""
    data = b""
    while wanted not in data:
        piece = client._socket.recv(65_536)
        assert piece, data
        data += piece
    return data


def test_events_arrive_one_by_one(served: Served) -> None:
    """PAINS D5: an event is there before the app is told to make the next."""
    name = unique()
    with served.client() as client:
        client.send_head("GET", f"/events/{name}")
        for number in range(3):
            read_until(client, b"data: %d" % number)
            served.tell(f"{name}-{number + 1}")


def test_head_of_a_quiet_stream(served: Served) -> None:
    """PAINS D6: where the server flushes the head with an empty chunk, it arrives before there is a body."""
    name = unique()
    flushes = served.kind.package in {"gunicorn", "gevent"}
    with served.client() as client:
        client.send_head("GET", f"/quiet/{name}")
        if flushes:
            read_until(client, b"\r\n\r\n")
        served.tell(name)
        read_until(client, b"said")


def test_client_that_hangs_up_is_noticed(served: Served) -> None:
    """PAINS E2: the app's generator is closed."""
    name = unique()
    with served.client() as client:
        client.send_head("GET", f"/endless/{name}")
        read_until(client, b"xxxx")
    served.told(f"{name}-ended")


def test_client_that_hangs_up_on_a_quiet_stream_is_noticed(served: Served) -> None:
    """PAINS E2: as above, though the app says nothing, where the server shows its socket."""
    if not served.kind.package.startswith("g") or served.kind.options:
        pytest.skip("The server shows no socket, or runs the app in its only thread")
    name = unique()
    with served.client() as client:
        client.send_head("GET", f"/silent/{name}")
        read_until(client, b"begun")
    served.told(f"{name}-ended")


@pytest.mark.parametrize("path", ["background", "nothing"])
def test_background_work_goes_on_after_the_response(served: Served, path: str) -> None:
    """PAINS E6: the client has its whole response before the work is done."""
    name = unique()
    with served.client() as client:
        response = client.get(f"/{path}/{name}", [("Connection", "close")] if path == "nothing" else [])
        assert response.status == (200 if path == "background" else 204)
        served.tell(f"{name}-received")
        served.told(f"{name}-done")


def test_error_is_answered(served: Served) -> None:
    """PAINS H1: an error is the app's own page, and its traceback is in the server's log."""
    since = served.server.output_length()
    with served.client() as client:
        assert client.get("/error", [("Connection", "close")]).status == 500
    until(lambda: "an error of the app's" in served.server.output(since), "The error is logged")
    with served.client() as client:
        assert client.get("/json").status == 200


def test_error_in_the_middle_breaks_the_response(served: Served) -> None:
    """PAINS H3: a response that was cut short does not look whole, where the protocol lets it show."""
    with served.client() as client:
        client.send_head("GET", "/break")
        try:
            response = client.response()
        except BrokenError:
            return
        # Without a length and without chunks, as wsgiref and uWSGI send it, the end of the connection is all there is.
        assert not response.all("transfer-encoding")
        assert response.body == b"half"


@pytest.mark.parametrize("length", [None, 5, 1_000_000])
@pytest.mark.parametrize("response", ["json", "stream", "file", "events"])
@pytest.mark.parametrize("middleware", ["0", "1", "3", "gzip"])
def test_matrix(served: Served, response: str, middleware: str, length: int | None) -> None:
    """PAINS C6: every kind of response, under every kind of middleware, to every kind of request."""
    fields = [("Connection", "close")] + [("Accept-Encoding", "gzip")] * (middleware == "gzip")
    with served.client() as client:
        method, body = ("GET", None) if length is None else ("POST", b"x" * length)
        answer = client.request(method, f"/matrix/{middleware}/{response}", fields, body)
    data = gzip.decompress(answer.body) if answer.all("content-encoding") else answer.body
    payload = "0123456789" * 10_000
    pieces = [payload[at : at + 30_000] for at in range(0, len(payload), 30_000)]
    wanted = {
        "json": json.dumps({"payload": payload}, separators=(",", ":")),
        "events": "".join(f"data: {piece}\r\n\r\n" for piece in pieces),
    }.get(response, payload)
    assert (answer.status, answer["x-length"], data.decode()) == (200, str(length or 0), wanted)


@pytest.mark.parametrize("name", list(KINDS))
def test_server_starts_and_ends_in_good_order(name: str, tmp_path: Path) -> None:
    """PAINS A1, A3: startup and shutdown once in each process that serves; exit at once, and without a traceback."""
    for served in serving(KINDS[name], tmp_path):
        for _ in range(10):
            with served.client() as client:
                assert client.get("/json", [("Connection", "close")]).status == 200
                # A signal that wsgiref gets while it is in a request is lost: it takes any exception for the app's.
                assert client.is_over()
        pids = {line.split()[1] for line in served.lifespan()}
        assert sorted(served.lifespan()) == sorted(f"startup {pid}" for pid in pids)
        if served.kind.package == "pyuwsgi":
            # It runs no exit handlers in a process that is busy, and a request is over when it stands in the log.
            until(lambda server=served.server: server.output().count("GET /json") > 10, "The requests are over")  # type: ignore[misc]  # of no known type
        served.server.signal(served.kind.ends_by)
        assert served.server.wait() == 0, served.server.output()
        assert sorted(served.lifespan()) == sorted(f"{what} {pid}" for pid in pids for what in ("startup", "shutdown"))
        assert "Traceback" not in served.server.output()
