"""A client that checks what it gets, and one that is rude. Nothing waits longer than `DEADLINE_SECONDS`."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

#: How long one request may take from its first byte to its last. A server that takes longer hangs.
DEADLINE_SECONDS = 20.0


class HangError(Exception):
    """Nothing came within `DEADLINE_SECONDS`."""


class BrokenError(Exception):
    """The connection ended within a response, or before it.

    Attributes:
        response: As much as came; None if there was no head.
    """

    def __init__(self, text: str, response: Response | None = None) -> None:
        super().__init__(text)
        self.response = response


class WrongError(Exception):
    """What came is not what was to come."""


@dataclass
class Response:
    """What came."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    keeps: bool = True
    """Whether the connection may be used again."""


class Connection:
    """One connection."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.used = 0
        self._until = time.monotonic() + DEADLINE_SECONDS
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(DEADLINE_SECONDS)
        self._buffer = bytearray()
        try:
            self._socket.connect(("127.0.0.1", port))
        except TimeoutError:
            raise HangError("no connection") from None
        except OSError as error:
            raise BrokenError(f"no connection: {error!r}") from error

    def close(self, *, reset: bool = False) -> None:
        """Hang up, with a reset if so."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send this."""
        self._bound()
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise HangError("the server takes nothing") from None
        except OSError as error:
            raise BrokenError(f"sending failed: {error!r}") from error

    def begin(self) -> None:
        """A new request: its deadline begins."""
        self._until = time.monotonic() + DEADLINE_SECONDS

    def response(self, method: str, *, pause: float = 0.0) -> Response:
        """Take a response.

        Args:
            method: The request's.
            pause: For how many seconds to wait before each 64 KiB, for a slow reader.
        """
        head = self._head()
        while head.status == 100:
            head = self._head()
        keeps = head.headers.get("connection", "").lower() != "close"
        head.keeps = keeps
        if method == "HEAD" or head.status in {204, 304}:
            return head
        pieces: list[bytes] = []
        try:
            if "chunked" in head.headers.get("transfer-encoding", ""):
                for piece in self._chunks(pause):
                    pieces.append(piece)  # noqa: PERF402 - what came before an error is wanted, too
            elif "content-length" in head.headers:
                left = int(head.headers["content-length"])
                while left:
                    time.sleep(pause)
                    piece = self._take(left)
                    pieces.append(piece)
                    left -= len(piece)
            else:
                head.keeps = False
                while piece := self._take(1 << 20, ends=True):
                    time.sleep(pause)
                    pieces.append(piece)
        except BrokenError as error:
            head.body = b"".join(pieces)
            error.response = head
            raise
        head.body = b"".join(pieces)
        return head

    def read_some(self, size: int) -> None:
        """Take at least so many bytes of whatever comes, or what comes until the end."""
        while len(self._buffer) < size and self._fill():
            pass

    def take_head(self, status: int) -> None:
        """Take the head of a response that has nothing behind it: that of a WebSocket."""
        head = self._head()
        if head.status != status:
            raise WrongError(f"{head.status}, not {status}")

    def take_exactly(self, size: int) -> bytes:
        """Take so many bytes."""
        while len(self._buffer) < size:
            if not self._fill():
                raise BrokenError("the connection ended")
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def push(self, data: bytes, seconds: float) -> None:
        """Send as much of this as is taken within so many seconds."""
        self._socket.settimeout(seconds)
        try:
            with contextlib.suppress(TimeoutError):
                self._socket.sendall(data)
        except OSError as error:
            raise BrokenError(f"sending failed: {error!r}") from error

    def has_leftovers(self) -> bool:
        """Whether more came than was asked for."""
        return bool(self._buffer)

    def _head(self) -> Response:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not self._fill():
                raise BrokenError(f"no head: {bytes(self._buffer[:200])!r}")
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
            raise WrongError(f"not a response: {lines[0]!r}")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Response(int(rest[:3]), headers, keeps=version == "HTTP/1.1")

    def _chunks(self, pause: float) -> Iterator[bytes]:
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                if not self._fill():
                    raise BrokenError("the end within a chunk's size")
            try:
                size = int(self._buffer[:end].split(b";")[0], 16)
            except ValueError:  # a server that fails may write another response there
                raise BrokenError(f"no chunk's size: {bytes(self._buffer[:end])!r}") from None
            del self._buffer[: end + 2]
            left = size
            while left:
                time.sleep(pause)
                piece = self._take(left)
                left -= len(piece)
                yield piece
            while len(self._buffer) < 2:
                if not self._fill():
                    raise BrokenError("the end after a chunk")
            if self._buffer[:2] != b"\r\n":
                raise WrongError(f"a chunk of {size} bytes is followed by {bytes(self._buffer[:20])!r}")
            del self._buffer[:2]
            if not size:
                return

    def _take(self, most: int, *, ends: bool = False) -> bytes:
        if not self._buffer and not self._fill():
            if ends:
                return b""
            raise BrokenError(f"the end with {most} bytes to come")
        piece = bytes(self._buffer[:most])
        del self._buffer[:most]
        return piece

    def _fill(self) -> bool:
        self._bound()
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise HangError("nothing comes") from None
        except OSError as error:
            raise BrokenError(f"receiving failed: {error!r}") from error
        self._buffer += data
        return bool(data)

    def _bound(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise HangError("the request takes too long")
        self._socket.settimeout(left)
