"""The Autobahn cases against an echo server of nothing but our handshake and our frames."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from typing import Any

import pytest

from a2wsgi._protocol.codec import available
from a2wsgi._protocol.deflate import agree_on_deflate
from a2wsgi._protocol.frames import Close, Event, Frames, Message, Ping, Role, Violation
from a2wsgi._protocol.upgrade import Handshake, check_handshake, head_101, is_handshake
from interop.autobahn import CASES, run_cases

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not available() or importlib.util.find_spec("kosoku") is None, reason="needs kosoku"),
]

SECONDS = 240.0


class Echo(asyncio.Protocol):
    """One connection. The bytes reach the frames as they come, or in pieces of ``piece_bytes``."""

    def __init__(self, piece_bytes: int | None) -> None:
        self.piece_bytes = piece_bytes
        self.head = b""
        self.frames: Frames | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.frames is None:
            self.head += data
            head, found, data = self.head.partition(b"\r\n\r\n")
            if not found:
                return
            self.open(head.decode("latin-1"))
        assert self.frames is not None
        step = self.piece_bytes or len(data) or 1
        for start in range(0, len(data), step):
            for event in self.frames.feed(data[start : start + step]):
                self.answer(self.frames, event)

    def open(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        environ: dict[str, Any] = {"REQUEST_METHOD": first.split(" ")[0], "SERVER_PROTOCOL": first.split(" ")[2]}
        for line in lines:
            name, _, value = line.partition(":")
            environ["HTTP_" + name.upper().replace("-", "_")] = value.strip()
        assert is_handshake(environ)
        handshake = check_handshake(environ)
        assert isinstance(handshake, Handshake)
        deflate = agree_on_deflate(handshake.extensions)
        self.transport.write(head_101(handshake, extensions=deflate.header if deflate else "").data)
        self.frames = Frames(Role.SERVER, max_message_bytes=1 << 24, deflate=deflate)

    def answer(self, frames: Frames, event: Event) -> None:
        match event:
            case Message(data):
                self.transport.write(frames.message(data))
            case Ping(payload):
                self.transport.write(frames.pong(payload))
            case Close(code) | Violation(code):
                self.transport.write(frames.close(code))
                self.transport.close()
            case _:
                pass


async def results_of(cases: Sequence[str], piece_bytes: int | None) -> dict[str, tuple[str, str]]:
    """Return the verdicts on some cases."""
    server = await asyncio.get_running_loop().create_server(lambda: Echo(piece_bytes), "127.0.0.1", 0)
    async with server:
        address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return await asyncio.to_thread(run_cases, address, cases, SECONDS)


@pytest.mark.timeout(SECONDS + 30)
@pytest.mark.parametrize(
    ("cases", "piece_bytes", "number"),
    [
        (CASES, None, 247),
        (["9.*"], None, 54),
        (CASES, 1, 247),
        (["9.1.1", "9.2.1", "9.3.1", "9.5.1", "9.7.1"], 1, 5),  # the larger ones are 16 million pieces
    ],
    ids=["cases", "limits", "cases-bytewise", "limits-bytewise"],
)
def test_autobahn_finds_nothing_wrong(cases: list[str], piece_bytes: int | None, number: int) -> None:
    """Autobahn 1 to 7, 9 and 10: fragments, control frames, reserved bits, UTF-8, closing, and large messages.

    6.4.* is "non-strict": we see that a message is not UTF-8 when it is complete (RFC 6455 §8.1 says no more).
    """
    results = asyncio.run(results_of(cases, piece_bytes))
    assert len(results) == number
    good = {"OK", "INFORMATIONAL"}
    assert not {
        case: (said, closed)
        for case, (said, closed) in results.items()
        if said not in {*good, *(["NON-STRICT"] if case.startswith("6.4.") else [])} or closed not in good
    }
