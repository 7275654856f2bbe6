"""FastAPI under a bridge on each WSGI server, over real sockets: what `test_behaviour` has not.

Whatever a test waits for is told by the app through a file, by the server's answers or by the end of a connection.
"""

from __future__ import annotations

import gzip
import json
import uuid
from pathlib import Path

import pytest

from interop.servers import Served, serving
from support.servers import until

pytestmark = pytest.mark.interop

APPLICATIONS = {"wsgi": "interop.asgi_apps:application"}

#: Those on which the lifespan and the matrix are tried.
ON = [
    "gunicorn-sync",
    "gunicorn-sync-inline",
    "gunicorn-gthread",
    "gunicorn-gthread-trio",
    "gunicorn-gevent",
    "gunicorn-preload",
    "waitress",
    "uwsgi-threads",
    "uwsgi-lazy",
    "uwsgi-inline",
    "mod_wsgi",
    "wsgiref",
]


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


def test_server_starts_and_ends_in_good_order(server_name: str, tmp_path: Path) -> None:
    """PAINS A1, A3: startup and shutdown once in each process that serves; exit at once, and without a traceback."""
    with serving(server_name, APPLICATIONS["wsgi"], tmp_path, ready="/json") as served:
        for _ in range(10):
            with served.client() as client:
                assert client.get("/json", [("Connection", "close")]).status == 200
                # A signal that wsgiref gets while it is in a request is lost: it takes any exception for the app's.
                assert client.is_over()
        pids = {line.split()[1] for line in served.lines("lifespan")}
        assert sorted(served.lines("lifespan")) == sorted(f"startup {pid}" for pid in pids)
        if served.kind.packages == ["pyuwsgi"]:
            # It runs no exit handlers in a process that is busy, and a request is over when it stands in the log.
            until(lambda: served.server.output().count("GET /json") > 10, "The requests are over")
        served.server.signal(served.kind.ends_by)
        assert served.server.wait() == 0, served.server.output()
        ends = sorted(f"{what} {pid}" for pid in pids for what in ("startup", "shutdown"))
        assert sorted(served.lines("lifespan")) == ends
        assert "Traceback" not in served.server.output()
