"""The connection of an ASGI app's WebSocket, fed by hand."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

pytest.importorskip("websockets")

from a2wsgi._asgi_on_wsgi.endpoint import Endpoint
from a2wsgi._asgi_on_wsgi.loops import GivenLoop
from a2wsgi._protocol.frames import Frames, Role


class Transport(asyncio.Transport):
    """Takes everything, and delivers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None:
        self.states.append("paused")

    def resume_reading(self) -> None:
        self.states.append("resumed")

    def abort(self) -> None: ...


def text(data: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    return b"\x81" + bytes([0x80 | len(data)]) + bytes(4) + data


def test_early_bytes_come_before_those_that_are_read_next() -> None:
    """Also if there is no room for all of them, and none is lost."""

    async def main() -> list[Any]:
        one, other = socket.socketpair()
        frames = Frames(Role.SERVER, max_message_bytes=None)
        host = GivenLoop(asyncio.get_running_loop())
        endpoint = Endpoint(host, frames, one, write_buffer_bytes=65_536, ping_interval=None, ping_timeout=None)
        endpoint._greeting = b"", b"".join(text(b"%d" % number) for number in range(2_000))
        transport = Transport()
        with other:
            endpoint.connection_made(transport)
            assert transport.states == []
            endpoint.data_received(b"".join(text(b"%d" % number) for number in range(2_000, 2_100)))
            assert transport.states == ["paused"]
            messages = [await endpoint.take() for _ in range(2_100)]
            assert transport.states[-1] == "resumed"
            endpoint.connection_lost(None)
        return messages

    assert asyncio.run(main()) == [str(number) for number in range(2_100)]
