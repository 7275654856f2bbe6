"""Quart, Django Channels and Socket.IO, unmodified, under a bridge on gunicorn's gthread worker."""

from __future__ import annotations

import contextlib
import importlib.util
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("websockets")

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from support.servers import module, running

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

SECONDS = 10.0


@contextlib.contextmanager
def serving(app: str, directory: Path) -> Iterator[int]:
    """A server of the app; its port."""
    if importlib.util.find_spec(app) is None:
        pytest.skip(f"{app} is not installed")

    def command(port: int) -> list[str]:
        own = ["--no-control-socket", f"--bind=127.0.0.1:{port}", "--worker-class=gthread", "--threads=4"]
        return module("gunicorn", *own, "interop.websocket_apps:application")

    with running(command, directory, environment={"WS_APP": app}, ready="/nothing") as server:
        yield server.port
        assert "Traceback" not in server.output()


def test_quart(tmp_path: Path) -> None:
    """Echo, and a denial response."""
    with serving("quart", tmp_path) as port:
        with connect(f"ws://127.0.0.1:{port}/echo") as ws:
            for message in ("hello", b"\x00" * 100_000):
                ws.send(message)
                assert ws.recv(SECONDS) == message
        with pytest.raises(InvalidStatus) as raised, connect(f"ws://127.0.0.1:{port}/deny"):
            pass
        response = raised.value.response
        assert (response.status_code, response.headers["WWW-Authenticate"], response.body) == (
            401,
            "Basic",
            b"who are you?",
        )


@pytest.mark.parametrize("path", ["echo", "sync"])
def test_channels(path: str, tmp_path: Path) -> None:
    """An asynchronous consumer and a synchronous one."""
    with serving("channels", tmp_path) as port, connect(f"ws://127.0.0.1:{port}/{path}") as ws:
        for message in ("hello", b"\x00" * 100_000):
            ws.send(message)
            assert ws.recv(SECONDS) == message


@pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]], ids=["websocket", "upgrade"])
def test_socketio(transports: list[str], tmp_path: Path) -> None:
    """Acknowledgements, bytes, rooms, a refusal, and a kick; at once and after an upgrade of long polling."""
    socketio = pytest.importorskip("socketio")
    with serving("socketio", tmp_path) as port, contextlib.ExitStack() as stack:
        said: queue.Queue[Any] = queue.Queue()

        def client(auth: Any = None) -> Any:
            one = socketio.Client(reconnection=False)
            stack.callback(one.eio.http.close if one.eio.http else lambda: None)
            one.on("said", said.put)
            one.connect(f"http://127.0.0.1:{port}", transports=transports, auth=auth, wait_timeout=10)
            return one

        first, second = client(), client()
        assert first.transport() == "websocket"
        assert first.call("echo", {"a": [1, b"\x00\x01"]}, timeout=10) == {"a": [1, b"\x00\x01"]}
        for one in (first, second):
            one.emit("join", "room")
        assert second.call("echo", 1, timeout=10) == 1
        first.emit("say", ("room", "hello"))
        assert [said.get(timeout=10) for _ in range(2)] == ["hello", "hello"]
        with pytest.raises(socketio.exceptions.ConnectionError):
            client({"token": "wrong"})
        first.emit("leave")
        first.wait()
        second.disconnect()
