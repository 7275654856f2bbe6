"""The kinds of WebSockets that are opened: good ones, and those of rude clients. Each has a connection of its own."""

from __future__ import annotations

import contextlib
import struct
import time

from bodies import body_of
from client import BrokenError, Connection, WrongError
from traffic import Client, kind

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    first, size = opcode | (0x80 if fin else 0), len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + bytes(4) + payload


def next_frame(connection: Connection) -> tuple[int, bytes]:
    """The server's next frame, of which none is a fragment."""
    first, size = connection.take_exactly(2)
    if size == 126:
        (size,) = struct.unpack("!H", connection.take_exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", connection.take_exactly(8))
    return first & 0x0F, connection.take_exactly(size)


def expect(connection: Connection, opcode: int, payload: bytes) -> None:
    """Check the next frame; one that was echoed is of its own socket."""
    got = next_frame(connection)
    if got != (opcode, payload):
        raise WrongError(f"{got[0]} {got[1][:60]!r} came, not {opcode} {payload[:60]!r}")


def expect_close(connection: Connection, code: int, *, answer: bool = True) -> None:
    """Take what comes until the Close, and check that; then the end of the connection, of whatever kind."""
    while (got := next_frame(connection))[0] != CLOSE:
        pass
    if got[1][:2] != struct.pack("!H", code):
        raise WrongError(f"closed by {got[1]!r}, not by {code}")
    with contextlib.suppress(BrokenError):
        if answer:
            connection.send(frame(CLOSE, got[1][:2]))
        connection.read_some(1 << 30)


def opened(client: Client, path: str, status: int = 101, *, receive_buffer: int | None = None) -> Connection:
    """A connection on which a handshake was answered."""
    connection = client.connect(fresh=True, receive_buffer=receive_buffer)
    headers = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    connection.send(client.head("GET", path, *headers, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
    if status == 101:
        connection.take_head(101)
    else:
        response = connection.response("GET")
        if response.status != status:
            raise WrongError(f"{response.status}, not {status}: {response.body[:200]!r}")
    return connection


def talk(client: Client, connection: Connection) -> None:
    """Send some messages, whole or in fragments, and take them back."""
    for number in range(client.chance.randrange(1, 8)):
        data = body_of(f"{client.identity}-{number}", client.length())
        if client.chance.random() < 0.2:
            at = client.chance.randrange(len(data) + 1)
            connection.send(frame(BINARY, data[:at], fin=False) + frame(PING, b"now") + frame(0, data[at:]))
            expect(connection, PONG, b"now")
        else:
            connection.send(frame(BINARY, data))
        expect(connection, BINARY, data)
        time.sleep(client.chance.choice((0, 0, 0.01, 0.05)))


# -- Good ones --------------------------------------------------------------------------------------------------------


@kind(30, traffic="websocket")
def ws_echo(client: Client) -> bool:
    connection = opened(client, "ws_echo")
    talk(client, connection)
    connection.send(frame(CLOSE, struct.pack("!H", 4444) + b"so long"))
    expect_close(connection, 4444, answer=False)
    return False


@kind(6, traffic="websocket")
def ws_close(client: Client) -> bool:
    expect_close(opened(client, "ws_close"), 4001)
    return False


@kind(6, traffic="websocket")
def ws_return(client: Client) -> bool:
    expect_close(opened(client, "ws_return"), 1000)
    return False


@kind(4, traffic="websocket")
def ws_deaf(client: Client) -> bool:
    """A client that is held up by the app, or has sent all before."""
    connection = opened(client, "ws_deaf")
    for _ in range(client.chance.choice((1, 5))):
        connection.send(frame(BINARY, bytes(10_000)))
    expect_close(connection, 1000)
    return False


# -- Apps that fail ---------------------------------------------------------------------------------------------------


@kind(4, traffic="websocket")
def ws_crash(client: Client) -> bool:
    expect_close(opened(client, "ws_crash"), 1011)
    return False


@kind(3, traffic="websocket")
def ws_refuse(client: Client) -> bool:
    opened(client, "ws_refuse", 401)
    return False


@kind(3, traffic="websocket")
def ws_raise(client: Client) -> bool:
    opened(client, "ws_raise", 500)
    return False


# -- Rude clients -----------------------------------------------------------------------------------------------------


def leave(client: Client) -> bool:
    """Close without a word, or reset, at random."""
    client.hang_up(reset=client.chance.random() < 0.5)
    return False


@kind(6, traffic="websocket")
def ws_leaves(client: Client) -> bool:
    """After some messages."""
    talk(client, opened(client, "ws_echo"))
    return leave(client)


@kind(4, traffic="websocket")
def ws_leaves_at_once(client: Client) -> bool:
    """Before or after the answer."""
    path = client.chance.choice(("ws_echo", "ws_close", "ws_crash", "ws_raise", "ws_flood"))
    connection = client.connect(fresh=True)
    headers = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    data = client.head("GET", path, *headers, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    connection.send(data[: client.chance.choice((len(data), client.chance.randrange(1, len(data))))])
    time.sleep(client.chance.choice((0, 0.001, 0.01)))
    return leave(client)


@kind(4, traffic="websocket")
def ws_leaves_in_a_frame(client: Client) -> bool:
    connection = opened(client, "ws_echo")
    data = frame(BINARY, bytes(client.chance.choice((10, 100_000))), fin=client.chance.random() < 0.5)
    connection.send(data[: client.chance.randrange(1, len(data))])
    return leave(client)


@kind(4, traffic="websocket")
def ws_breaks(client: Client) -> bool:
    """A reserved opcode, no mask, a continuation of nothing, or a message that is too long: 1002 or 1009."""
    connection = opened(client, "ws_echo")
    fault = client.chance.choice((frame(0x3), b"\x81\x01x", frame(0, b"x"), b"\x82\xff" + (1 << 40).to_bytes(8, "big")))
    connection.send(fault)
    expect_close(connection, 1009 if fault.startswith(b"\x82\xff") else 1002, answer=False)
    return False


@kind(5, traffic="websocket")
def ws_floods(client: Client) -> bool:
    """Pings, fragments or messages without end, whose echoes nobody reads."""
    connection = opened(client, "ws_echo", receive_buffer=4096)
    piece = client.chance.choice(
        (frame(PING, b"x" * 100) * 600, frame(BINARY, b"y" * 10_000) * 8, frame(TEXT, b"z") * 8_000)
    )
    with contextlib.suppress(BrokenError):
        connection.push(piece * 20, 0.5)
    return leave(client)


@kind(5, traffic="websocket")
def ws_reads_slowly(client: Client) -> bool:
    """A client that takes a part of 10 MB, with pauses, and leaves."""
    connection = opened(client, "ws_flood", receive_buffer=65_536)
    with contextlib.suppress(BrokenError):
        for _ in range(client.chance.randrange(1, 6)):
            if next_frame(connection)[1] != b"x" * 100_000:
                raise WrongError("another message")
            time.sleep(client.chance.random() * 0.1)
    return leave(client)


@kind(5, traffic="websocket")
def ws_idles(client: Client) -> bool:
    connection = opened(client, "ws_echo")
    time.sleep(client.chance.random())
    talk(client, connection)
    connection.send(frame(CLOSE))
    if next_frame(connection)[0] != CLOSE:
        raise WrongError("no Close came")
    return False
