"""The app of the sections that need no server, as a WSGI app and as an ASGI app.

The path says what to do and the query string how much of it:

- ``/hello`` answers with 13 bytes and a length.
- ``/echo`` answers with the body of the request and a length.
- ``/stream?100x1024`` answers with 100 chunks of 1,024 bytes and no length.
- ``/upload`` reads the body, and answers with how long it was; ``/upload?check`` with its checksum, too.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

READ_BYTES = 8 * 1024
HELLO = b"Hello, world!"


@functools.cache
def _alphabet(size: int) -> list[bytes]:
    return [bytes([letter]) * size for letter in b"ABCDEFGHIJKLMNOP"]


def chunks(count: int, size: int) -> Iterator[bytes]:
    """So many chunks of so many bytes, which differ from their neighbours, so that disorder shows in a checksum."""
    return itertools.islice(itertools.cycle(_alphabet(size)), count)


def _numbers(query: str) -> tuple[int, int]:
    count, size = query.split("x")
    return int(count), int(size)


# -- As a WSGI app ------------------------------------------------------------------------------------------------


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return chunks(*_numbers(environ["QUERY_STRING"]))
    if path == "/hello":
        body = HELLO
    elif path == "/echo":
        body = environ["wsgi.input"].read()
    else:
        body = _uploaded(environ["wsgi.input"], check=environ["QUERY_STRING"] == "check")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _uploaded(stream: Any, *, check: bool) -> bytes:
    length = checksum = 0
    while piece := stream.read(READ_BYTES):
        length += len(piece)
        if check:
            checksum = zlib.crc32(piece, checksum)
    return b"%d %d" % (length, checksum)


# -- As an ASGI app -----------------------------------------------------------------------------------------------


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    path = scope["path"]
    if path == "/stream":
        headers = [(b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in chunks(*_numbers(scope["query_string"].decode())):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if path == "/hello":
        body = HELLO
    elif path == "/echo":
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
    else:
        body = await _received(receive, check=scope["query_string"] == b"check")
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _received(receive: Callable[[], Awaitable[dict[str, Any]]], *, check: bool) -> bytes:
    length = checksum = 0
    more = True
    while more:
        message = await receive()
        piece = message.get("body", b"")
        length += len(piece)
        if check:
            checksum = zlib.crc32(piece, checksum)
        more = message.get("more_body", False)
    return b"%d %d" % (length, checksum)
