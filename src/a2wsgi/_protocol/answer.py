"""The HTTP response that a WSGI app writes on the socket of its WebSocket before the first frame.

*Facts*

- A 101 opens the WebSocket. It has ``Upgrade: websocket``, ``Connection: Upgrade`` and the answer to the key, no
  subprotocol but one that was offered, and no extension, since none was (RFC 6455 §4.1, §4.2.2). Any other final status
  refuses it.
- The body of a refusal ends where ``Content-Length`` says, or is chunked, or ends with the stream. A length and chunks
  at once are an attack or a mistake (RFC 9112 §6.1, §6.3). A 204 or 304 has no body.
- A line ends with CR LF, nothing stands between a name and its colon, and no header continues on a second line
  (RFC 9112 §2.2, §5.1, §5.2).

The head is bounded. Whatever breaks these rules is the app's fault and raises an `AppProtocolError`.

Specs: RFC 6455; RFC 9110; RFC 9112.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from a2wsgi._errors import AppProtocolError

from .framing import Framing
from .names import HOP_BY_HOP_BYTES
from .upgrade import accept_token

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

MAX_HEAD_BYTES = 65536  # as uvicorn and h11
_MAX_LINE_BYTES = 4096  # of a chunk's size or a trailer; arbitrary

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n\0]*)?")  # RFC 9112 §4
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\r\n\0]*)")  # RFC 9112 §5, RFC 9110 §5.5
_LENGTH = re.compile(rb"[0-9]{1,20}")  # RFC 9110 §8.6; the bound is h11's
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n\0]*)?")  # RFC 9112 §7.1

_Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The app opened the WebSocket.

    Attributes:
        subprotocol: Its choice.
        headers: Its other headers, names in lower case, without those of the connection and the handshake.
    """

    subprotocol: str | None
    headers: _Headers


@dataclass(frozen=True, slots=True)
class Denied:
    """The app refused the WebSocket.

    Attributes:
        status: The status code.
        headers: Names in lower case, without those of the connection.
        body: The parser of the body. Feed it `HeadParser.rest` first.
    """

    status: int
    headers: _Headers
    body: BodyParser


class HeadParser:
    """Reads the head that an app writes.

    Args:
        key: The ``HTTP_SEC_WEBSOCKET_KEY`` of its environ.
        subprotocols: What the client offers.

    Attributes:
        rest: What came after the head, once that is complete.
    """

    def __init__(self, key: str, subprotocols: Collection[str] = ()) -> None:
        self._key = key
        self._subprotocols = subprotocols
        self._head = bytearray()
        self.rest = b""

    @property
    def begun(self) -> bool:
        """Whether the app has written anything."""
        return bool(self._head)

    def feed(self, data: bytes) -> Accepted | Denied | None:
        """Take what the app wrote. Return its answer once the head is complete, and ``None`` before that.

        Raises:
            AppProtocolError: It is not a valid HTTP response, or its head is too long.
        """
        searched = max(len(self._head) - 3, 0)
        self._head += data
        if not self._head.startswith(b"HTTP/1."[: len(self._head)]):
            raise _fault("it does not begin with HTTP/1.1", "RFC 9112 §4")
        end = self._head.find(b"\r\n\r\n", searched)
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._head) > MAX_HEAD_BYTES):
            raise _fault(f"its head is longer than {MAX_HEAD_BYTES} bytes", "our limit")
        if end < 0:
            return None
        self.rest = bytes(self._head[end + 4 :])
        first, *lines = bytes(self._head[:end]).split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise _fault("its status line is malformed", "RFC 9112 §4")
        status, headers = int(match[1]), [_field(line) for line in lines]
        return self._accepted(headers) if status == 101 else _denied(status, headers)

    def _accepted(self, headers: _Headers) -> Accepted:
        if b"websocket" not in _tokens(headers, b"upgrade") or b"upgrade" not in _tokens(headers, b"connection"):
            raise _fault("its 101 lacks Upgrade: websocket or Connection: Upgrade", "RFC 6455 §4.2.2")
        if _values(headers, b"sec-websocket-accept") != [accept_token(self._key).encode()]:
            raise _fault("Sec-WebSocket-Accept does not answer HTTP_SEC_WEBSOCKET_KEY", "RFC 6455 §4.2.2")
        if _values(headers, b"sec-websocket-extensions"):
            raise _fault("it agrees on an extension, and none was offered", "RFC 6455 §9.1")
        subprotocols = _values(headers, b"sec-websocket-protocol")
        if len(subprotocols) > 1:
            raise _fault("it has Sec-WebSocket-Protocol more than once", "RFC 6455 §11.3.4")
        subprotocol = subprotocols[0].decode("latin-1") if subprotocols else None
        if subprotocol is not None and subprotocol not in self._subprotocols:
            raise _fault(f"the client does not offer the subprotocol {subprotocol[:80]!r}", "RFC 6455 §4.2.2")
        others = [
            (name, value)
            for name, value in _end_to_end(headers)
            if not name.startswith(b"sec-websocket-") and name != b"content-length"
        ]
        return Accepted(subprotocol, others)


def _denied(status: int, headers: _Headers) -> Denied:
    if status < 200:
        raise _fault(f"its status {status} is not final", "RFC 9110 §15.2")
    lengths, codings = set(_values(headers, b"content-length")), _tokens(headers, b"transfer-encoding")
    if codings and (codings != [b"chunked"] or lengths):
        raise _fault("Transfer-Encoding is not just chunked, or comes with Content-Length", "RFC 9112 §6.1")
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise _fault("Content-Length is not one number", "RFC 9110 §8.6")
    framing = Framing("GET", status, int(lengths.pop()) if lengths else None)
    body = BodyParser(length=framing.remaining, chunked=bool(codings) and not framing.bodiless)
    return Denied(status, _end_to_end(headers), body)


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise _fault("a header is malformed", "RFC 9112 §5")  # not shown, since it may hold a cookie
    return match[1].lower(), match[2].strip(b" \t")


def _values(headers: _Headers, name: bytes) -> list[bytes]:
    return [value for other, value in headers if other == name]


def _tokens(headers: _Headers, name: bytes) -> list[bytes]:
    return [
        token.strip(b" \t").lower() for token in b",".join(_values(headers, name)).split(b",") if token.strip(b" \t")
    ]


def _end_to_end(headers: Sequence[tuple[bytes, bytes]]) -> _Headers:
    return [pair for pair in headers if pair[0] not in HOP_BY_HOP_BYTES]


def _fault(what: str, source: str) -> AppProtocolError:
    return AppProtocolError(
        f"The app answered the handshake on its socket, but {what} ({source}). Let a WebSocket library write the "
        "response, or leave the socket alone and return a WSGI response."
    )


# -- The body of a refusal --------------------------------------------------------------------------------------------


class _At(Enum):
    """Where in a body the next byte belongs."""

    DATA = auto()  # of the body, or of a chunk
    SIZE = auto()  # the line before a chunk
    CHUNK_END = auto()  # the empty line after it
    TRAILERS = auto()  # the lines after the last chunk, which are discarded
    END = auto()


class BodyParser:
    """Reads the body of a refusal.

    Args:
        length: Its length; ``None`` if it is not known in advance.
        chunked: Whether it comes in chunks.
    """

    def __init__(self, *, length: int | None, chunked: bool) -> None:
        self._at = _At.SIZE if chunked else _At.DATA if length != 0 else _At.END
        self._chunked = chunked
        self._left = length
        self._unread = bytearray()

    @property
    def complete(self) -> bool:
        """Whether all of it was fed. A body that ends with the stream is complete only after `end_of_stream`."""
        return self._at is _At.END

    def feed(self, data: bytes) -> bytes:
        """Take what the app wrote, and return the part that belongs to the body. The rest is discarded.

        Raises:
            AppProtocolError: A chunk is malformed.
        """
        self._unread += data
        body = bytearray()
        while self._step(body):
            pass
        return bytes(body)

    def end_of_stream(self) -> None:
        """Take the end of the stream.

        Raises:
            AppProtocolError: The body is shorter than was announced.
        """
        if self._at is _At.DATA and self._left is None:
            self._at = _At.END
        if self._at is not _At.END:
            raise _fault("its body ends early", "RFC 9112 §8")

    def _step(self, body: bytearray) -> bool:
        """Consume what is at the current place. Return False if that needs more data."""
        if self._at is _At.END:
            self._unread.clear()
            return False
        if self._at is _At.DATA:
            taken = self._unread if self._left is None else self._unread[: self._left]
            body += taken
            del self._unread[: len(taken)]
            if self._left is None:
                return False
            self._left -= len(taken)
            if self._left == 0:
                self._at = _At.CHUNK_END if self._chunked else _At.END
            return self._left == 0
        line = self._line()
        if line is None:
            return False
        if self._at is _At.SIZE:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise _fault("the size of a chunk is malformed", "RFC 9112 §7.1")
            self._left = int(match[1], 16)
            self._at = _At.DATA if self._left else _At.TRAILERS
        elif self._at is _At.CHUNK_END:
            if line:
                raise _fault("a chunk is longer than its size", "RFC 9112 §7.1")
            self._at = _At.SIZE
        elif not line:  # RFC 9112 §7.1.2: the empty line after the trailers
            self._at = _At.END
        return True

    def _line(self) -> bytes | None:
        end = self._unread.find(b"\r\n", 0, _MAX_LINE_BYTES)
        if end < 0:
            if len(self._unread) >= _MAX_LINE_BYTES:
                raise _fault("a line between chunks is too long", "our limit")
            return None
        line = bytes(self._unread[:end])
        del self._unread[: end + 2]
        return line
