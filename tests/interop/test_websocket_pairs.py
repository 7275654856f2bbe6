"""WebSockets through two bridges, one around the other, on a real server of either kind."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

pytest.importorskip("websockets")
pytest.importorskip("fastapi")
pytest.importorskip("flask_sock")

from websockets.sync.client import connect

from support.servers import module, running

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

SECONDS = 10.0
SERVERS = {
    "uvicorn": lambda port: module("uvicorn", f"--port={port}", "interop.websocket_pairs:on_asgi"),
    "gunicorn": lambda port: module(
        "gunicorn",
        "--no-control-socket",
        f"--bind=127.0.0.1:{port}",
        "--threads=4",
        "interop.websocket_pairs:on_wsgi",
    ),
}


@pytest.mark.parametrize("name", SERVERS)
def test_websocket_echoes_through_a_pair(name: str, tmp_path: Path) -> None:
    """Short and long messages come back whole, several sockets at a time, and a close is clean."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(SERVERS[name], tmp_path, ready="/nothing"))
        sockets = [stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/echo")) for _ in range(3)]
        for number, socket in enumerate(sockets):
            for message in (f"hello {number}", f"{number}" * 200_000):
                socket.send(message)
                assert socket.recv(SECONDS) == message
        for socket in sockets:
            socket.close()
            assert socket.close_code == 1000
