"""Compression of messages: what to agree on with a client, compressing and decompressing (RFC 7692).

*Facts*

- The client offers ``permessage-deflate`` with parameters. The server accepts one offer and answers with the parameters
  (RFC 7692 §5, §7.1). It skips an offer with parameters that it does not know or cannot accept.
- Each direction has a window that is kept from message to message, unless ``..._no_context_takeover`` was agreed on
  (RFC 7692 §7.1.1). The sender decides, message by message, whether to compress at all (RFC 7692 §6).
- A block may be final, at the end of a message (RFC 7692 §7.2.3.4) or within it: the next one then begins at the next
  octet (RFC 7692 §7.2.1). zlib ends a stream there. Senders that use it begin another, whose window is empty.

Many sockets never send a message that is worth compressing, and an idle one should cost little. So the compressor and
the decompressor are made when they are first needed.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

from .codec import websockets

if TYPE_CHECKING:
    from .codec import Extension, Frame

_CONTINUATION, _CONTROL_BIT = 0x0, 0x08  # RFC 6455 §11.8, §5.5

# The settings that websockets chose by measurement: its compressor takes 32 KiB instead of zlib's 256.
_WINDOW_BITS = 12
# zlib's smallest window, for compression. The client may ask for 8 bits (RFC 7692 §7.1.2.1).
_MIN_WINDOW_BITS = 9
_MEMORY_LEVEL = 5
# Arbitrary: clients send 24 to 100 bytes. The loop thread reads them, and servers let headers of megabytes pass.
_MAX_OFFERS_BYTES = 4_096
#: Arbitrary: compressing a shorter message gains little, and takes as long as for a longer one.
MIN_DEFLATED_BYTES = 128
# Final blocks in a frame. Arbitrary: hardly any sender has more than the last, and what follows one is copied.
_MOST_FINAL_BLOCKS = 16


class Agreement(NamedTuple):
    """What client and server agreed on (RFC 7692 §7.1).

    Attributes:
        header: The value of our ``Sec-WebSocket-Extensions``.
        keep_ours: Whether our window is kept from one message to the next.
        keep_theirs: Whether the client's is.
        our_bits: The size of our window, as zlib counts.
        their_bits: The size of the client's.
    """

    header: str
    keep_ours: bool
    keep_theirs: bool
    our_bits: int
    their_bits: int


def agree_on_deflate(offers: str) -> Agreement | None:
    """Return what to agree on with a client; ``None`` if it offers nothing acceptable.

    Args:
        offers: The value of its ``Sec-WebSocket-Extensions``. One that is longer than any client sends is not read.

    Raises:
        MissingCapability: `websockets` is not installed.
    """
    codec = websockets()
    if len(offers) > _MAX_OFFERS_BYTES:
        return None
    factory = codec.ServerPerMessageDeflateFactory(
        server_max_window_bits=_WINDOW_BITS,
        client_max_window_bits=_WINDOW_BITS,
        compress_settings={"memLevel": _MEMORY_LEVEL},
    )
    try:
        for name, parameters in codec.parse_extension(offers):
            if name != "permessage-deflate":
                continue
            try:
                agreed, chosen = factory.process_request_params(parameters, ())
            except (
                codec.InvalidHandshake,
                ValueError,
            ):  # websockets 16 asks zlib for a window of 8 bits, which it lacks
                continue
            if chosen.local_max_window_bits < _MIN_WINDOW_BITS:  # without context takeover, it asks zlib later
                continue
            return Agreement(
                header=codec.build_extension([(name, agreed)]),
                keep_ours=not chosen.local_no_context_takeover,
                keep_theirs=not chosen.remote_no_context_takeover,
                our_bits=chosen.local_max_window_bits,
                their_bits=chosen.remote_max_window_bits,
            )
    except codec.InvalidHandshake:  # RFC 6455 §9.1: malformed, and refused by `check_handshake`
        pass
    return None


class Deflater:
    """Compresses the messages of one connection, as an extension of `websockets`.

    An extension of `websockets` makes both zlib objects at once, except one that keeps no window, which it makes anew
    for each message. So there are two extensions here, and each has only the object that it needs.
    """

    __slots__ = ("_agreed", "_deflating", "_inflating")

    def __init__(self, agreed: Agreement) -> None:
        self._agreed = agreed
        self._deflating: Extension | None = None
        self._inflating: tuple[Extension, _Inflater] | None = None

    def encode(self, frame: Frame) -> Frame:
        if frame.opcode & _CONTROL_BIT or len(frame.data) < MIN_DEFLATED_BYTES:
            return frame
        if self._deflating is None:
            ours = self._agreed
            self._deflating = websockets().PerMessageDeflate(
                remote_no_context_takeover=True,
                local_no_context_takeover=not ours.keep_ours,
                remote_max_window_bits=ours.their_bits,
                local_max_window_bits=ours.our_bits,
                compress_settings={"memLevel": _MEMORY_LEVEL},
            )
        return self._deflating.encode(frame)

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.rsv1 and frame.opcode == _CONTINUATION:  # RFC 7692 §6.1; websockets 14 and 15 let it pass
            raise websockets().ProtocolError("reserved bits must be 0")
        if frame.opcode & _CONTROL_BIT:  # which may come between fragments
            return frame
        if self._inflating is None:
            if not frame.rsv1:
                return frame
            theirs = self._agreed
            extension = websockets().PerMessageDeflate(
                remote_no_context_takeover=False,  # where none is kept, that is done below
                local_no_context_takeover=True,
                remote_max_window_bits=theirs.their_bits,
                local_max_window_bits=theirs.our_bits,
            )
            extension.decoder = inflater = _Inflater(theirs.their_bits)
            self._inflating = extension, inflater
        inflating, inflater = self._inflating
        inflated = inflating.decode(frame, max_size=max_size)
        if max_size is not None and len(inflated.data) > max_size:  # zlib takes a limit of 0 for no limit
            raise websockets().PayloadTooBig(len(inflated.data), max_size)
        if frame.fin and not (self._agreed.keep_theirs and inflater.has_window):
            self._inflating = None
        return inflated


class _Inflater:
    """The decompressor of `websockets`, which calls it as zlib's. It goes on behind a final block.

    zlib's gives nothing more from there on, but keeps whatever comes, and copies all of it each time.

    Attributes:
        has_window: Something was inflated since the stream began. If not, a new one does as well for the next message,
            and better if the sender has left out the empty block that is to follow a final one.
    """

    __slots__ = ("_bits", "_stream", "has_window")

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._stream = zlib.decompressobj(wbits=-bits)
        self.has_window = False

    @property
    def unconsumed_tail(self) -> bytes:
        return self._stream.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        stream = self._stream
        inflated = stream.decompress(data, max_length)
        self.has_window = self.has_window or bool(inflated)
        for _ in range(_MOST_FINAL_BLOCKS + 1):
            if not stream.eof:
                return inflated
            rest = stream.unused_data
            stream = self._stream = zlib.decompressobj(wbits=-self._bits)
            # 0 would be no limit. A byte too many is refused by the caller.
            more = stream.decompress(rest, max_length and max(max_length - len(inflated), 1))
            self.has_window = bool(more)
            inflated += more
        raise zlib.error("too many final blocks")  # which is a violation
