"""What WebSockets of an ASGI app cost a WSGI server's process, and what else may happen in it: on a few servers."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("websockets")


from interop.websocket_served import SECONDS, frame, refused, rest_of, serving, unique
from interop.websocket_servers import KINDS, gunicorn
from support.servers import running, until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


# -- Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "most_kib"),
    [("", 40), ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", 100)],
    ids=["plain", "compressed"],
)
def test_five_hundred_sockets_take_little_memory(offer: str, most_kib: int, tmp_path: Path) -> None:
    """Each has taken and sent a message. Compression is at work in those whose messages are long enough for it."""
    with serving("gunicorn-gthread", tmp_path) as served, contextlib.ExitStack() as stack:

        def more(number: int) -> list[socket.socket]:
            made = [stack.enter_context(served.opened("/echo", offer)) for _ in range(number)]
            for client in made:
                client.sendall(frame(0x1, b"hello " * 40))
            for client in made:
                head = client.recv(2)
                assert (head[0] == 0xC1) == bool(offer)
                if head[1] == 126:
                    client.recv(2)
                client.recv(240)
            return made

        def memory() -> int:
            return int(served.get("/memory")[1])

        more(20)  # which have the process load and cache what it needs
        before = memory()
        more(500)
        assert served.info()["websockets"] == 520
        assert (memory() - before) / 500 < most_kib


# -- Silence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gunicorn-sync", "wsgiref", "gunicorn-gthread-tls"])
def test_client_that_answers_no_ping_is_closed(name: str, tmp_path: Path) -> None:
    """RFC 6455 §5.5.2: within the interval and the timeout. The app is told that the client is lost."""
    with serving(name, tmp_path, websocket_ping_interval=0.2, websocket_ping_timeout=0.2) as served:
        seconds = []
        for _ in range(3):  # the quickest: a machine that does much besides delays some of them
            told = unique()
            with served.opened(f"/echo?name={told}") as client:
                began = time.monotonic()
                data = rest_of(client)
                seconds.append(time.monotonic() - began)
            assert data[:2] == b"\x89\x04"
            assert data[6:] == b"\x88\x18\x03\xf3keepalive ping timeout"
            assert json.loads(served.told(told)[0]) == [1006, ""]
        assert min(seconds) < 1.4  # the interval, the timeout, and a second


# -- Descriptors, and forks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name in KINDS if name != "gunicorn-preload" and not name.startswith("event")]
)
def test_handshake_without_a_descriptor_left_is_answered_by_the_server(name: str, tmp_path: Path) -> None:
    """EMFILE at the takeover: the app's accept() raises, the server has the client still, and nothing is lost."""
    with serving(name, tmp_path) as served:
        before = served.info()["descriptors"]
        for number in range(1, 4):
            if name in {"uwsgi", "uwsgi-router"}:  # which answers nothing
                with pytest.raises(http.client.RemoteDisconnected):
                    refused(served, "/exhausted")
            else:
                response, _ = refused(served, "/exhausted")
                assert response.status == (502 if name == "nginx-uwsgi" else 500)
            # The server answers as soon as its own thread has failed: until the app is told, no client gets in.
            until(lambda: len(served.told("restored")) == number, "the limit is restored", SECONDS)  # noqa: B023
        until(lambda: "Too many open files" in served.server.output(), "the error is logged", SECONDS)
        with served.connect("/echo") as ws:
            ws.send("hello")
            assert ws.recv(SECONDS) == "hello"
        until(lambda: served.info()["descriptors"] <= before + 1, "all are closed", SECONDS)


@pytest.mark.parametrize("name", ["gunicorn-gthread", "gunicorn-preload", "uwsgi"])
def test_fork_in_the_app_keeps_no_socket_open(name: str, tmp_path: Path) -> None:
    """A child has copies of the sockets that were open. A client sees its end all the same, while the child lives."""
    with serving(name, tmp_path) as served:
        go_on = unique()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(served.opened("/echo")) for _ in range(3)]
            child = int(served.get(f"/fork?name={go_on}")[1])
            try:
                for client in clients:
                    client.sendall(frame(0x1, b"hello"))
                    assert client.recv(7) == b"\x81\x05hello"
                    client.sendall(frame(0x8))
                    assert rest_of(client) == b"\x88\x00"
                with served.connect("/echo") as ws:
                    ws.send("hello")
                    assert ws.recv(SECONDS) == "hello"
                assert Path(f"/proc/{child}").exists()
            finally:
                (served.directory / go_on).touch()
        until(lambda: served.info()["websockets"] == 0, "all are over", SECONDS)


# -- HTTP/2 -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("h2") is None, reason="needs h2")
def test_http2_of_gunicorn_is_http(tmp_path: Path) -> None:
    """Its ``gunicorn.socket`` is that of all streams: none gets it. The stream is an ordinary request."""
    from interop.client import BrokenError, HTTP2Client

    if importlib.util.find_spec("gunicorn.http2") is None:
        pytest.skip("this gunicorn has no HTTP/2")
    command = gunicorn("--threads=4", "--http-protocols=h2,h1", "--http2-cleartext=both")
    environment = {"A2WSGI_TEST_DIR": str(tmp_path)}
    with running(lambda port: command(port, tmp_path), tmp_path, environment=environment, ready="/info") as server:
        key = [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
        for path, status in (("/info", 200), ("/echo", 404)):
            with HTTP2Client(server.port) as client:
                assert client.get(path, key).status == status
            # gunicorn ends the connection, since there is no such header in HTTP/2 (RFC 9113 §8.2.2).
            with HTTP2Client(server.port) as client, contextlib.suppress(BrokenError):
                assert client.get(path, [("Upgrade", "websocket"), *key]).status == status
        with HTTP2Client(server.port) as client:
            info = client.get("/info").json()
            assert (info["websockets"], info["in_flight"]) == (0, 1)
        assert "A WebSocket was refused" not in server.output()
