"""Middleware around a bridge that serves WebSockets: nothing is raised through it, and Sentry has nothing to report."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from pathlib import Path

import pytest

pytest.importorskip("websockets")
pytest.importorskip("sentry_sdk")
pytest.importorskip("fastapi")
pytest.importorskip("flask")

from websockets.exceptions import ConnectionClosed

from interop.websocket_served import SECONDS, Served, frame, refused, rest_of
from interop.websocket_servers import KINDS, gunicorn
from support.servers import running, until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_sentry_and_middleware_see_nothing(worker: str, tmp_path: Path) -> None:
    """A close of the client, of the app, a reset, a denial, and a stop. An app that fails is reported, once."""
    events = tmp_path / "events"
    events.touch()
    environment = {"A2WSGI_TEST_DIR": str(tmp_path), "A2WSGI_TEST_EVENTS": str(events)}
    command = gunicorn(f"--worker-class={worker}", app="interop.websocket_sentry_app:application")

    def errors() -> list[str]:
        reported = map(json.loads, events.read_text().splitlines())
        return [event["exception"]["values"][-1]["value"] for event in reported if "exception" in event]

    with (
        running(lambda port: command(port, tmp_path), tmp_path, environment=environment, ready="/info") as server,
        contextlib.ExitStack() as stack,
    ):
        served = Served(f"gunicorn-{worker}", KINDS[f"gunicorn-{worker}"], server, tmp_path)
        with served.connect("/echo?name=first") as ws:
            ws.send("hello")
            assert ws.recv(SECONDS) == "hello"
        with served.connect("/close") as ws, pytest.raises(ConnectionClosed):
            ws.recv(SECONDS)
        client = served.opened("/echo?name=second")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert json.loads(served.told("second")[0]) == [1006, ""]
        with served.opened("/echo?name=third") as client:
            client.sendall(frame(0x3))  # an opcode that there is not
            assert rest_of(client)[2:4] == struct.pack("!H", 1002)
        response, _ = refused(served, "/deny")
        assert (response.status, response.headers["X-Counted"]) == (401, "0")
        stack.enter_context(served.connect("/echo?name=last"))
        until(lambda: served.info()["websockets"] == 1, "the others are over", SECONDS)
        assert errors() == []
        with served.connect("/crash") as ws, pytest.raises(ConnectionClosed):
            ws.recv(SECONDS)
        until(lambda: errors() == ["the app crashed on purpose"], "Sentry has it", SECONDS)
        server.stop()
        assert json.loads(served.told("last")[0]) == [1012, ""]
        assert errors() == ["the app crashed on purpose"]
        assert server.output().count("Traceback") == 1
