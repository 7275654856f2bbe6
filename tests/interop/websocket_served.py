"""WSGI servers with `websocket_app` under a bridge, and clients for them.

The numbers in the docstrings are the clauses of RFC 6455.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import ssl
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from interop.websocket_servers import KINDS, PAIRS, WITHOUT, Kind
from support.servers import Server, running, until

SECONDS = 10.0
#: A client that ends TLS does not look at who the server is.
UNSAFE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNSAFE.check_hostname = False
UNSAFE.verify_mode = ssl.CERT_NONE
#: The same for `websockets`, which reads in one thread and writes in another. TLS 1.3 has the server's tickets come
#: after the handshake. If one thread reads them while the other writes, the client hangs: one in a few hundred.
UNSAFE_IN_THREADS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNSAFE_IN_THREADS.check_hostname = False
UNSAFE_IN_THREADS.verify_mode = ssl.CERT_NONE
UNSAFE_IN_THREADS.maximum_version = ssl.TLSVersion.TLSv1_2


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    name: str
    kind: Kind
    server: Server
    directory: Path

    def connect(self, path: str, **options: Any) -> ClientConnection:
        """Open a WebSocket."""
        scheme, context = ("wss", UNSAFE_IN_THREADS) if self.kind.tls else ("ws", None)
        uri = f"{scheme}://127.0.0.1:{self.server.port}{path}"
        options = {"max_size": None, "open_timeout": SECONDS, "close_timeout": SECONDS, **options}
        ws: ClientConnection = connect(uri, ssl=context, **options)
        return ws

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Answer of a plain request, on a connection of its own."""
        with contextlib.closing(self.http()) as client:
            client.request("GET", path, headers={"Connection": "close", **(headers or {})})
            response = client.getresponse()
            return response.status, response.read()

    def http(self) -> http.client.HTTPConnection:
        """A connection for plain requests."""
        if self.kind.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.server.port, timeout=SECONDS, context=UNSAFE)
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=SECONDS)

    def info(self) -> dict[str, Any]:
        """What the server's process has."""
        status, body = self.get("/info")
        assert status == 200
        info: dict[str, Any] = json.loads(body)
        return info

    def raw(self, receives: int | None = None) -> socket.socket:
        """A connection; its system may receive so many bytes that nobody reads, or megabytes."""
        plain = socket.socket()
        plain.settimeout(SECONDS)
        if receives is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        plain.connect(("127.0.0.1", self.server.port))
        return UNSAFE.wrap_socket(plain) if self.kind.tls else plain

    def opened(self, path: str, more: str = "", receives: int | None = None) -> socket.socket:
        """A connection on which the handshake is done, with these headers besides, and nothing else was read."""
        client = self.raw(receives)
        client.sendall(handshake(path, more=more))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
            assert head
        assert head.startswith(b"HTTP/1.1 101 "), head
        return client

    def told(self, name: str) -> list[str]:
        """Wait until the app has told something; its lines."""
        path = self.directory / name
        # It is there before the line is in it.
        until(lambda: path.exists() and path.stat().st_size > 0, f"the app tells {name}", SECONDS)
        return path.read_text().splitlines()


def handshake(path: str, version: str = "13", key: str | None = None, more: str = "") -> bytes:
    """A request for a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode() if key is None else key
    return (
        f"GET {path} HTTP/1.1\r\nHost: testserver\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
        f"Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n"
    ).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    head = bytes([opcode | (0x80 if fin else 0)])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65_536:
        head += b"\xfe" + struct.pack("!H", len(payload))
    else:
        head += b"\xff" + struct.pack("!Q", len(payload))
    return head + bytes(4) + payload


def rest_of(client: socket.socket) -> bytes:
    """All that still comes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65_536):
            data += part
    return data


def unique() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex


def answers(server: Server, path: str) -> bool:
    """Whether a server that takes only TLS answers."""
    with (
        contextlib.suppress(OSError),
        contextlib.closing(
            http.client.HTTPSConnection("127.0.0.1", server.port, timeout=SECONDS, context=UNSAFE)
        ) as client,
    ):
        client.request("GET", path)
        return client.getresponse().status > 0
    return False


@contextlib.contextmanager
def serving(name: str, directory: Path, **options: Any) -> Iterator[Served]:
    """A server, from its first answer to the end of the block."""
    kind = {**KINDS, **PAIRS, **{f"without-{other}": kind for other, kind in WITHOUT.items()}}[name]
    missing = kind.missing()
    if missing:
        pytest.skip(missing)
    environment = {"A2WSGI_TEST_DIR": str(directory), "A2WSGI_TEST_OPTIONS": json.dumps(options)}
    with running(
        lambda port: kind.command(port, directory),
        directory,
        environment=environment,
        ready="/info",
        answers=answers if kind.tls else None,
    ) as server:
        yield Served(name, kind, server, directory)


def refused(served: Served, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    """What a handshake was answered, by a client that takes any response."""
    with served.raw() as client:
        client.sendall(handshake(path))
        response = http.client.HTTPResponse(client)
        response.begin()
        return response, response.read()
