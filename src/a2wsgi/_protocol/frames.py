"""WebSocket frames without I/O: bytes in, events out; messages in, bytes out.

*Facts*

- Clients mask their frames and servers do not. Anything else is a violation (RFC 6455 §5.1). The mask is for proxies
  that do not know the protocol (RFC 6455 §10.3). There are none on a link, and we are client nowhere else: our mask is
  zero, which changes nothing.
- A message may come in fragments. Control frames may come between them; they are never fragmented, and hold 125 bytes
  at most (RFC 6455 §5.4, §5.5).
- Text is UTF-8, in messages and in the reason of a Close; if it is not, the code is 1007 (RFC 6455 §8.1). A message
  over the limit is 1009, anything else that is wrong 1002 (RFC 6455 §7.4.1).
- Nothing is read after a Close or a violation (RFC 6455 §5.5.1, §7.1.7), and no data is sent after our own Close.
- With permessage-deflate, RSV1 marks a compressed message. Each side keeps its window from message to message unless
  otherwise agreed, and may leave any message uncompressed (RFC 7692 §6, §7.2). Without it, RSV1 is a violation.

*Bounds.* The limit of a message is compared with the length in a frame's header, before any of the payload is kept, and
with the decompressed size during decompression. What cannot be compressed takes a few more bytes compressed than as it
is, and these are allowed for. Fragments are joined as they come. At most one message is held, besides
the bytes that were fed and are not yet events. `Frames.feed` makes each event only when the caller asks for it: one
read of 256 KiB may hold 43,690 of them, and the caller may want to stop halfway.

`websockets` parses, unmasks and decompresses a frame; `codec` lists what we use of it. A message that is there whole,
in one frame, is read without its parser.

Specs: RFC 6455 (WebSocket); RFC 7692 (compression).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from .close_codes import INVALID_DATA, NO_CODE, NORMAL, PROTOCOL_ERROR, TOO_BIG, cut_reason, may_travel, refuse_code
from .codec import websockets
from .deflate import MIN_DEFLATED_BYTES, Agreement, Deflater

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from .codec import Frame

# RFC 6455 §11.8; §5.5: those with the bit 0x8 are control frames.
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_DATA = (_TEXT, _BINARY)
_CONTROL_BIT = 0x08
_OPCODE_BITS = 0x0F  # RFC 6455 §5.2
_RSV1 = 0x40  # RFC 6455 §5.2
_FIN = 0x80  # RFC 6455 §5.2
_MASKED = 0x80  # RFC 6455 §5.2, in the second byte
_TWO_BYTES, _EIGHT_BYTES = 126, 127  # of length (RFC 6455 §5.2)
_LENGTH_BITS = 0x7F  # RFC 6455 §5.2, in the second byte
_MAX_CONTROL_BYTES = 125  # RFC 6455 §5.5
# How much longer than its message a compressed frame may be, besides a seventh. By zlib's deflateBound(), it is longer
# by 1/8, 1/256, 1/512 and a few bytes at most. A flush and each final block add some.
_DEFLATED_MORE_BYTES = 64


class Role(Enum):
    """Which end of the connection is ours."""

    SERVER = "server"
    CLIENT = "client"


# -- Events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message: text as ``str``, binary as ``bytes``."""

    data: str | bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping. Answer with `Frames.pong` and the same payload (RFC 6455 §5.5.2)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong, whether a ping asked for it or not."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's Close; nothing comes after it. Answer with `Frames.close` and the same code (RFC 6455 §5.5.1).

    Attributes:
        code: The peer's; 1005 if there is none.
        reason: The peer's.
    """

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Violation:
    """The peer broke the protocol; nothing comes after it. Call `Frames.close` with it, then end the connection.

    Attributes:
        code: 1002, 1007 or 1009.
        reason: What was wrong. It contains none of the peer's data.
    """

    code: int
    reason: str


Event = Message | Ping | Pong | Close | Violation


# -- One connection ---------------------------------------------------------------------------------------------------


class Frames:
    """The frames of one connection, from the end of its handshake on.

    Args:
        role: Which end is ours.
        max_message_bytes: The longest message to take; a longer one is a violation (1009). ``None``: no limit.
        deflate: What `agree_on_deflate` returned. Only servers have one: the client of a link offers no extension.

    Raises:
        MissingCapability: `websockets` is not installed.
    """

    def __init__(self, role: Role, *, max_message_bytes: int | None, deflate: Agreement | None = None) -> None:
        self._websockets = websockets()
        self._peer_masks = role is Role.SERVER  # RFC 6455 §5.1
        self._their_mask_bit, self._our_mask_bit = (_MASKED, 0) if self._peer_masks else (0, _MASKED)
        self._our_mask = b"" if self._peer_masks else bytes(4)
        self._max_message_bytes = max_message_bytes
        self._extensions = () if deflate is None else (Deflater(deflate),)
        self._unread = _Unread()
        self._parsing: Generator[None, None, Frame] | None = None  # a frame of which only a part has come
        self._opcode = 0  # of the message whose fragments are coming
        self._is_deflated = False  # that message, or the one that comes next
        self._fragments = bytearray()
        self._ended = False  # by the peer's Close or a violation
        self._close_sent = False

    def __repr__(self) -> str:
        return f"<Frames ended={self._ended} close_sent={self._close_sent} unread_bytes={self.unread_bytes}>"

    # -- From the peer

    def feed(self, data: bytes | memoryview) -> Iterator[Event]:
        """Take what came from the peer, and return an iterator over the events in it.

        The data is kept at once, but an event is made only when the iterator is advanced. A caller that cannot take
        more events drops the iterator. The next call, even with ``b""``, continues from there.
        """
        if not self._ended:  # RFC 6455 §5.5.1, §7.1.7: whatever comes later is thrown away
            self._unread += data
        return self._events()

    def _events(self) -> Generator[Event, None, None]:
        # A frame without a payload is an event as soon as its head is there: none waits for no bytes at all.
        while self._unread and (event := self._next_event()) is not None:
            yield event

    @property
    def unread_bytes(self) -> int:
        """How many bytes were fed and are not yet frames."""
        return len(self._unread)

    def _next_event(self) -> Event | None:
        """Return the next event; ``None`` if more data is needed."""
        try:
            message = self._whole_message()
            if message is not None:
                return message
            while not self._ended and (frame := self._next_frame()) is not None:
                event = self._event_of(frame)
                if type(event) is Close:
                    self._end()
                if event is not None:
                    return event
        except self._websockets.PayloadTooBig:
            return self._violation(TOO_BIG, f"message longer than {self._max_message_bytes} bytes")
        except self._websockets.ProtocolError as exc:
            return self._violation(PROTOCOL_ERROR, str(exc))
        except UnicodeDecodeError:
            return self._violation(INVALID_DATA, "text that is not UTF-8")
        return None

    def _violation(self, code: int, reason: str) -> Violation:
        self._end()
        return Violation(code, reason)

    def _end(self) -> None:
        self._ended = True
        self._unread.clear()
        self._fragments.clear()
        self._parsing = None

    def _whole_message(self) -> Message | None:
        """Take a message that is there whole, in one frame without extensions; None if that is not what comes next.

        Fast path: most frames are such, and `Frame.parse` takes five times as long (benchmarks/websocket_echo.py).
        """
        unread = self._unread
        if len(unread) < 2 or self._parsing is not None or self._opcode or self._ended:
            return None
        opcode, size, begin = unread[0] ^ _FIN, unread[1] ^ self._their_mask_bit, 2
        if size == _TWO_BYTES and len(unread) >= 4:
            size, begin = int.from_bytes(unread[2:4], "big"), 4
        elif size >= _TWO_BYTES:
            return None
        at = begin + 4 if self._peer_masks else begin
        most = self._max_message_bytes
        if opcode not in _DATA or len(unread) < at + size or (most is not None and size > most):
            return None
        data = unread[at : at + size]
        payload = self._websockets.apply_mask(data, unread[begin:at]) if self._peer_masks else data
        del unread[: at + size]
        return Message(str(payload, "utf-8") if opcode == _TEXT else bytes(payload))

    def _next_frame(self) -> Frame | None:
        """Return the next frame; ``None`` if more data is needed."""
        if self._parsing is None:
            if len(self._unread) < 2:
                return None
            self._parsing = self._websockets.Frame.parse(
                self._unread.read_exactly,
                mask=self._peer_masks,
                max_size=self._limit(self._unread[0], self._unread[1]),
                extensions=self._extensions,
            )
        try:
            next(self._parsing)
        except StopIteration as stop:
            self._parsing = None
            frame: Frame = stop.value
            return frame
        return None

    def _limit(self, first: int, second: int) -> int | None:
        """Return how long the payload of a frame that begins with these bytes may be."""
        if first & _CONTROL_BIT:
            if second & _LENGTH_BITS > _MAX_CONTROL_BYTES:
                raise self._websockets.ProtocolError("control frame too long")
            return None  # a ping may come even in the middle of a message that has reached the limit
        if self._max_message_bytes is None:
            return None
        left = self._max_message_bytes - len(self._fragments)
        if first & _OPCODE_BITS:  # not a continuation, which never has the bit (RFC 7692 §6.1)
            self._is_deflated = bool(self._extensions) and bool(first & _RSV1)
        return left + left // 7 + _DEFLATED_MORE_BYTES if self._is_deflated else left

    def _event_of(self, frame: Frame) -> Event | None:
        """Return what a frame means; ``None`` for a fragment that is not the last."""
        opcode = frame.opcode
        if opcode & _CONTROL_BIT:
            return self._event_of_control(opcode, bytes(frame.data))
        if (opcode == _CONTINUATION) != bool(self._opcode):  # RFC 6455 §5.4
            why = "message before the end of another" if opcode else "continuation of no message"
            raise self._websockets.ProtocolError(why)
        data = frame.data
        most = self._max_message_bytes
        if most is not None and len(self._fragments) + len(data) > most:  # once it is inflated
            raise self._websockets.PayloadTooBig(len(data), most)
        if not frame.fin or self._fragments:
            self._fragments += data
            data = self._fragments
        if not frame.fin:
            self._opcode = self._opcode or opcode
            return None
        opcode, self._opcode = self._opcode or opcode, 0
        message = Message(str(data, "utf-8") if opcode == _TEXT else bytes(data))
        self._fragments.clear()
        return message

    def _event_of_control(self, opcode: int, payload: bytes) -> Event:
        if opcode == _PING:
            return Ping(payload)
        if opcode == _PONG:
            return Pong(payload)
        # RFC 6455 §5.5.1
        if not payload:
            return Close(NO_CODE, "")
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1 or not may_travel(code):
            raise self._websockets.ProtocolError("invalid close code")
        return Close(code, str(payload[2:], "utf-8"))

    # -- To the peer

    @property
    def close_sent(self) -> bool:
        """Whether `close` was called."""
        return self._close_sent

    def message(self, data: str | bytes) -> bytes:
        """Return the bytes to write for a message.

        Raises:
            UnicodeEncodeError: The text contains a lone surrogate, for which UTF-8 has no encoding.
            RuntimeError: `close` was called before.
        """
        if isinstance(data, str):
            return self._written(_TEXT, data.encode())
        return self._written(_BINARY, data)

    def ping(self, payload: bytes = b"") -> bytes:
        """Return the bytes to write for a ping, whose payload has 125 bytes at most.

        Raises:
            RuntimeError: `close` was called before.
        """
        return self._written(_PING, payload)

    def pong(self, payload: bytes) -> bytes:
        """Return the bytes to write in answer to a ping; ``b""`` after `close`, when none is due any more."""
        return b"" if self._close_sent else self._written(_PONG, payload)

    def close(self, code: int = NORMAL, reason: str = "") -> bytes:
        """Return the bytes to write for a Close; ``b""`` if one was sent before. So either side may begin.

        Args:
            code: One that may travel, or 1005 for a Close without a code.
            reason: Cut at 123 bytes; left out if there is no code.

        Raises:
            ValueError: The code may not travel (RFC 6455 §7.4.1).
        """
        refuse_code(code)
        if self._close_sent:
            return b""
        written = self._written(_CLOSE, b"" if code == NO_CODE else code.to_bytes(2, "big") + cut_reason(reason))
        self._close_sent = True
        return written

    def _written(self, opcode: int, payload: bytes) -> bytes:
        if self._close_sent:
            raise RuntimeError("Nothing may be sent after a Close (RFC 6455 §5.5.1)")
        size = len(payload)
        if self._extensions and size >= MIN_DEFLATED_BYTES:
            return self._websockets.Frame(opcode, payload).serialize(mask=False, extensions=self._extensions)
        # Fast path: as `Frame.serialize`, which takes four times as long (benchmarks/websocket_echo.py).
        if size < _TWO_BYTES:
            head = bytes((_FIN | opcode, self._our_mask_bit | size))
        elif size < 65_536:
            head = struct.pack("!BBH", _FIN | opcode, self._our_mask_bit | _TWO_BYTES, size)
        else:
            head = struct.pack("!BBQ", _FIN | opcode, self._our_mask_bit | _EIGHT_BYTES, size)
        return b"".join((head, self._our_mask, payload))


class _Unread(bytearray):
    """The bytes that were fed and are not yet frames."""

    def read_exactly(self, size: int) -> Generator[None, None, bytearray]:
        while len(self) < size:
            yield
        taken = self[:size]
        del self[:size]
        return taken
