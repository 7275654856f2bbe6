"""The demo's clients: more than a browser opens at once, slower, and ruder."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"
PIECE = bytes(64 * 1024)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, which is gone at the end of the block."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def get(port: int, path: str) -> bytes:
    """The whole answer."""
    async with connected(port) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        return await reader.read()


async def seconds_of(port: int, path: str, limit: float) -> float:
    """How long an answer takes; the limit, if it takes longer."""
    begin = time.monotonic()
    with suppress(asyncio.TimeoutError, OSError):
        await asyncio.wait_for(get(port, path), limit)
        return time.monotonic() - begin
    return limit


async def leave(port: int, path: str) -> None:
    """Ask for a stream, take what comes first, and leave."""
    async with connected(port) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        with suppress(asyncio.TimeoutError):  # where no worker is free, nothing comes
            await asyncio.wait_for(reader.readline(), 1)


async def upload(port: int, path: str, megabytes: int, seconds: float) -> None:
    """Send a large body at an even pace."""
    pieces = megabytes * 16
    async with connected(port) as (reader, writer):
        headers = f"Host: {HOST}\r\nContent-Length: {pieces * len(PIECE)}\r\nConnection: close\r\n"
        writer.write(f"POST {path} HTTP/1.1\r\n{headers}\r\n".encode())
        begin = time.monotonic()
        for number in range(pieces):
            writer.write(PIECE)
            await writer.drain()
            await asyncio.sleep(max(0.0, begin + seconds * number / pieces - time.monotonic()))
        await reader.read()


async def trickle(port: int, path: str, seconds: int) -> None:
    """Begin to send a small body, byte by byte, and leave before it is whole."""
    async with connected(port) as (_, writer):
        writer.write(f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\n".encode())
        for _ in range(seconds * 4):
            writer.write(b".")
            await asyncio.sleep(0.25)
