"""Frames without I/O: each rule of RFC 6455 §5 and §7.4, any cut of the bytes, and bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import cycle, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi._protocol.codec import available
from a2wsgi._protocol.deflate import agree_on_deflate
from a2wsgi._protocol.frames import (
    Close,
    Event,
    Frames,
    Message,
    Ping,
    Pong,
    Role,
    Violation,
)

pytestmark = pytest.mark.skipif(not available(), reason="needs websockets")

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x01\x80\xfe\x37"


def wire(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK) -> bytes:
    """Encode one frame, by RFC 6455 §5.2 and nothing else."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    masked = 0 if mask is None else 0x80
    if len(payload) < 126:
        head += bytes([masked | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([masked | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + len(payload).to_bytes(8, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ key for byte, key in zip(payload, cycle(mask), strict=False))


def server(max_message_bytes: int | None = 1000) -> Frames:
    """Make the frames of a server."""
    return Frames(Role.SERVER, max_message_bytes=max_message_bytes)


def events(frames: Frames, *pieces: bytes) -> list[Event]:
    """Feed piece by piece, and return all events."""
    return [event for piece in pieces for event in frames.feed(piece)]


# -- From the peer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
@pytest.mark.parametrize("role", Role)
def test_feed_returns_a_message_of_any_length(role: Role, size: int) -> None:
    """RFC 6455 §5.2: a payload's length takes 7, 16 or 64 bits."""
    data = bytes(range(251)) * (size // 251 + 1)
    mask = MASK if role is Role.SERVER else None
    frames = Frames(role, max_message_bytes=None)
    assert events(frames, wire(BINARY, data[:size], mask=mask)) == [Message(data[:size])]


def test_feed_returns_each_kind_of_event() -> None:
    """Text is str, binary is bytes; pings and pongs have their payload, a Close its code and reason."""
    sent = [
        wire(TEXT, "höhe".encode()),
        wire(BINARY, b"\xff"),
        wire(PING, b"p"),
        wire(PONG, b"q"),
        wire(CLOSE, b"\x0f\xa1bye"),
    ]
    expected = [Message("höhe"), Message(b"\xff"), Ping(b"p"), Pong(b"q"), Close(4001, "bye")]
    assert events(server(), b"".join(sent)) == expected


def test_feed_joins_fragments_and_returns_control_frames_between_them() -> None:
    """RFC 6455 §5.4: a control frame in the middle of a message comes before it; a character may be cut."""
    sent = [
        wire(TEXT, b"h\xc3", fin=False),
        wire(PING, b"1"),
        wire(CONTINUATION, b"", fin=False),
        wire(CONTINUATION, b"\xb6he"),
        wire(BINARY, b"", fin=False),
        wire(CONTINUATION, b""),
    ]
    assert events(server(), *sent) == [Ping(b"1"), Message("höhe"), Message(b"")]


def test_feed_returns_a_close_in_the_middle_of_a_message() -> None:
    """RFC 6455 §5.5.1: a Close may come at any time. Autobahn's case 7.1.5 wants it answered in kind."""
    sent = [wire(TEXT, b"a", fin=False), wire(CLOSE, b"\x03\xe8"), wire(CONTINUATION, b"b")]
    assert events(server(), *sent) == [Close(1000, "")]


def test_feed_returns_1005_for_a_close_without_a_code() -> None:
    """RFC 6455 §7.1.5: a Close without a code is said to have 1005."""
    assert events(server(), wire(CLOSE)) == [Close(1005, "")]


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (wire(TEXT, b"a", mask=None), 1002, "incorrect masking"),  # §5.1
        (wire(TEXT, b"a", rsv=4), 1002, "reserved bits must be 0"),  # §5.2; RSV1 without an extension
        (wire(TEXT, b"a", rsv=1), 1002, "reserved bits must be 0"),
        (wire(PING, b"a", rsv=2), 1002, "reserved bits must be 0"),
        (wire(3, b"a"), 1002, "invalid opcode"),  # §5.2
        (wire(11, b"a"), 1002, "invalid opcode"),
        (wire(PING, bytes(126)), 1002, "control frame too long"),  # §5.5
        (wire(CLOSE, bytes(126)), 1002, "control frame too long"),
        (wire(PING, b"", fin=False), 1002, "fragmented control frame"),  # §5.5
        (wire(CONTINUATION, b"a"), 1002, "continuation of no message"),  # §5.4
        (wire(TEXT, b"", fin=False) + wire(TEXT), 1002, "message before the end of another"),
        (wire(CLOSE, b"\x03"), 1002, "invalid close code"),  # §5.5.1
        (wire(CLOSE, b"\x03\xed"), 1002, "invalid close code"),  # §7.4.1: 1005 never travels
        (wire(CLOSE, b"\x03\xee"), 1002, "invalid close code"),  # nor 1006
        (wire(CLOSE, b"\x03\xe7"), 1002, "invalid close code"),  # 999
        (wire(CLOSE, b"\x07\xd0"), 1002, "invalid close code"),  # 2000
        (wire(CLOSE, b"\x13\x88"), 1002, "invalid close code"),  # 5000
        (wire(CLOSE, b"\x03\xe8\xff"), 1007, "text that is not UTF-8"),  # §8.1
        (wire(TEXT, b"\xff"), 1007, "text that is not UTF-8"),
        (wire(TEXT, b"\xed\xa0\x80"), 1007, "text that is not UTF-8"),  # a surrogate
        (wire(TEXT, b"\xc3", fin=False) + wire(CONTINUATION), 1007, "text that is not UTF-8"),
        (wire(BINARY, bytes(1001)), 1009, "message longer than 1000 bytes"),
        (wire(BINARY, bytes(900), fin=False) + wire(CONTINUATION, bytes(101)), 1009, "message longer than 1000 bytes"),
    ],
)
def test_feed_returns_a_violation_and_nothing_after_it(sent: bytes, code: int, reason: str) -> None:
    """RFC 6455 §7.1.7: what breaks the protocol has a code, and whatever comes later is thrown away."""
    frames = server()
    assert events(frames, sent + wire(TEXT, b"late"), wire(PING), b"") == [Violation(code, reason)]
    assert frames.unread_bytes == 0


def test_feed_of_a_client_takes_unmasked_frames_only() -> None:
    """RFC 6455 §5.1: a server that masks is failed by its client."""
    frames = Frames(Role.CLIENT, max_message_bytes=None)
    sent = wire(TEXT, b"a", mask=None) + wire(TEXT, b"a")
    assert events(frames, sent) == [Message("a"), Violation(1002, "incorrect masking")]


def test_feed_of_a_client_refuses_compression() -> None:
    """A link has no extension: RSV1 is a violation."""
    frames = Frames(Role.CLIENT, max_message_bytes=None)
    assert events(frames, wire(TEXT, b"a", rsv=4, mask=None)) == [Violation(1002, "reserved bits must be 0")]


def test_feed_takes_a_message_of_just_the_limit_with_a_ping_in_it() -> None:
    """The limit is that of a message: a control frame does not count towards it."""
    sent = [wire(BINARY, bytes(1000), fin=False), wire(PING, bytes(125)), wire(CONTINUATION)]
    assert events(server(1000), *sent) == [Ping(bytes(125)), Message(bytes(1000))]


def test_feed_goes_on_where_an_iterator_was_dropped() -> None:
    """A caller who cannot take more stops halfway, and finds the rest later; meanwhile data may come."""
    frames = server()
    assert next(frames.feed(wire(TEXT, b"1") + wire(TEXT, b"2") + wire(TEXT, b"3"))) == Message("1")
    assert frames.unread_bytes == 2 * len(wire(TEXT, b"1"))
    assert next(frames.feed(wire(TEXT, b"4"))) == Message("2")
    assert events(frames, b"") == [Message("3"), Message("4")]
    assert frames.unread_bytes == 0


def test_feed_keeps_the_data_of_an_iterator_that_is_never_advanced() -> None:
    """The data is taken by the call, not by the iteration."""
    frames = server()
    frames.feed(wire(TEXT, b"1"))
    assert events(frames, b"") == [Message("1")]


# -- Any cut of the bytes ---------------------------------------------------------------------------------------------

texts = st.text(max_size=50)  # without surrogates, which have no UTF-8
payloads = st.binary(max_size=20)
messages = st.builds(Message, texts | st.binary(max_size=150))
controls = st.builds(Ping, payloads) | st.builds(Pong, payloads)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Event], bytes]:
    """Draw events, and bytes that mean them: messages in fragments, with control frames between those."""
    expected: list[Event] = []
    sent = b""
    for message in draw(st.lists(messages, max_size=3)):
        data = message.data.encode() if isinstance(message.data, str) else message.data
        ends = [0, *sorted(draw(st.lists(st.integers(0, len(data)), max_size=4))), len(data)]
        opcode = TEXT if isinstance(message.data, str) else BINARY
        for index, (start, end) in enumerate(pairwise(ends)):
            for control in draw(st.lists(controls, max_size=1)):
                expected.append(control)
                sent += wire(PING if isinstance(control, Ping) else PONG, control.payload, mask=draw(masks))
            last = index == len(ends) - 2
            sent += wire(CONTINUATION if index else opcode, data[start:end], fin=last, mask=draw(masks))
        expected.append(message)
    return expected, sent


masks = st.binary(min_size=4, max_size=4)


def pieces_of(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """Cut data into pieces of these sizes, over and over."""
    start = 0
    for size in cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


@given(conversation=conversations(), sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_feed_returns_the_same_however_the_bytes_are_cut(
    conversation: tuple[list[Event], bytes], sizes: list[int]
) -> None:
    """Where TCP cuts the stream means nothing."""
    expected, sent = conversation
    assert events(server(None), sent) == expected
    assert events(server(None), *pieces_of(sent, sizes)) == expected
    assert events(server(None), *pieces_of(sent, [1])) == expected


@given(data=st.binary(max_size=300), sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_feed_never_raises_and_ends_alike_however_noise_is_cut(data: bytes, sizes: list[int]) -> None:
    """Whatever a client sends is an event; after a violation there is none."""
    whole = events(server(), data)
    assert events(server(), *pieces_of(data, sizes)) == whole
    assert not any(isinstance(event, Violation | Close) for event in whole[:-1])


OFFER = "permessage-deflate; client_max_window_bits"


@given(sent=st.lists(texts | st.binary(max_size=2000)), role=st.sampled_from(Role), deflated=st.booleans())
def test_messages_arrive_as_they_were_sent(sent: list[str | bytes], role: Role, deflated: bool) -> None:
    """Decoding is the inverse of encoding, in either direction, with compression and without."""
    deflate = agree_on_deflate(OFFER) if deflated else None
    sender = Frames(role, max_message_bytes=None, deflate=deflate)
    receiver = Frames(Role.CLIENT if role is Role.SERVER else Role.SERVER, max_message_bytes=None, deflate=deflate)
    assert events(receiver, *map(sender.message, sent)) == list(map(Message, sent))


# -- To the peer ------------------------------------------------------------------------------------------------------


def test_what_a_server_sends_is_not_masked() -> None:
    """RFC 6455 §5.1, §5.6: byte for byte."""
    frames = server()
    assert frames.message("hö") == b"\x81\x03h\xc3\xb6"
    assert frames.message(b"\x00") == b"\x82\x01\x00"
    assert frames.ping(b"a") == b"\x89\x01a"
    assert frames.pong(b"b") == b"\x8a\x01b"
    assert frames.close(4000, "bye") == b"\x88\x05\x0f\xa0bye"


def test_what_a_client_sends_is_masked() -> None:
    """RFC 6455 §5.3: a server reads it. The mask is zero, since there is nobody between the ends of a link."""
    frames = Frames(Role.CLIENT, max_message_bytes=None)
    sent = [frames.message("a" * 20), frames.message("a" * 20), frames.ping(b"p"), frames.close(1005)]
    assert sent[2] == b"\x89\x81\x00\x00\x00\x00p"
    assert events(server(), *sent) == [Message("a" * 20), Message("a" * 20), Ping(b"p"), Close(1005, "")]


@pytest.mark.parametrize(
    ("reason", "travels"),
    [
        ("", b""),
        ("a" * 123, b"a" * 123),
        ("a" * 124, b"a" * 123),
        ("ä" * 62, "ä".encode() * 61),
        ("a\ud800", b"a?"),
    ],
)
def test_close_cuts_a_reason_that_does_not_fit(reason: str, travels: bytes) -> None:
    """RFC 6455 §5.5: 123 bytes, and never half a character."""
    assert server().close(1000, reason) == bytes([0x88, 2 + len(travels)]) + b"\x03\xe8" + travels


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2000, 2999, 5000])
def test_close_refuses_a_code_that_may_not_travel(code: int) -> None:
    """RFC 6455 §7.4.1: and nothing has been sent then."""
    frames = server()
    with pytest.raises(ValueError, match=f"may not carry the code {code}"):
        frames.close(code)
    assert not frames.close_sent


def test_nothing_is_sent_after_a_close() -> None:
    """RFC 6455 §5.5.1: a second Close and a pong are nothing, anything else is a mistake of the caller."""
    frames = server()
    frames.close()
    assert frames.close_sent
    assert frames.close(1011) == frames.pong(b"") == b""
    with pytest.raises(RuntimeError, match="after a Close"):
        frames.message("a")
    with pytest.raises(RuntimeError, match="after a Close"):
        frames.ping()


def test_messages_are_received_after_our_own_close() -> None:
    """RFC 6455 §1.4: the peer may go on until it has answered."""
    frames = server()
    frames.close()
    assert events(frames, wire(TEXT, b"a"), wire(CLOSE, b"\x03\xe8")) == [Message("a"), Close(1000, "")]


def test_message_refuses_a_lone_surrogate() -> None:
    """RFC 6455 §5.6: text is UTF-8, which has none."""
    with pytest.raises(UnicodeEncodeError):
        server().message("\ud800")


# -- Bounded memory ---------------------------------------------------------------------------------------------------


def drain(frames: Frames, piece: bytes) -> None:
    """Feed a piece; answer pings, and drop each event at once."""
    for event in frames.feed(piece):
        if isinstance(event, Ping):
            frames.pong(event.payload)


def peak_bytes(frames: Frames, pieces: Iterable[bytes]) -> tuple[int, int]:
    """Feed all; return the peak of what was held, and what still is."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for piece in pieces:
            drain(frames, piece)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before, now - before


READ = 65536  # of the bytes below, at once


@pytest.mark.parametrize("opcode", [PING, TEXT, PONG])
def test_a_flood_of_empty_frames_holds_one_read(opcode: int) -> None:
    """Events are made one by one: 10,922 in a read of 64 KiB, where each would take 100 bytes and more at once."""
    flood = wire(opcode) * (READ // 6)
    frames = server()
    events(frames, wire(opcode))  # what is made once is made now
    peak, left = peak_bytes(frames, [flood] * 3)
    # The read itself, with a bytearray's surplus of an eighth, and a moment's copy when it shrinks; and one event.
    assert peak < 2 * READ + 16384
    assert left < 4096


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_flood_of_fragments_holds_what_they_say(opcode: int) -> None:
    """30,000 fragments of one byte take their bytes, not an object each (39 bytes and more)."""
    fragments = 30_000
    frames = server(None)
    flood = wire(CONTINUATION, b"x", fin=False) * 1000
    peak, left = peak_bytes(
        frames, [wire(opcode, fin=False), *[flood] * (fragments // 1000), wire(CONTINUATION), wire(PING)]
    )
    # The message being joined, its surplus, and the copy that becomes the event; and one read.
    assert peak < 2.25 * fragments + 2 * len(flood) + 16384
    assert left < 4096


@pytest.mark.parametrize("first", [TEXT, CONTINUATION])
def test_a_length_over_the_limit_is_refused_before_any_payload(first: int) -> None:
    """A header that says 1 TiB is answered 1009 at once, in a first frame and in a later one."""
    frames = server(1 << 24)
    if first == CONTINUATION:
        assert events(frames, wire(TEXT, b"a", fin=False)) == []
    header = bytes([0x80 | first, 0xFF]) + (1 << 40).to_bytes(8, "big")
    assert events(frames, header) == [Violation(1009, f"message longer than {1 << 24} bytes")]


def test_a_control_frame_of_a_tebibyte_is_refused_before_any_payload() -> None:
    """RFC 6455 §5.5: its limit holds even where messages have none."""
    assert events(server(None), bytes([0x89, 0xFF])) == [Violation(1002, "control frame too long")]


def test_a_message_that_was_taken_is_held_no_longer() -> None:
    """An idle socket costs nothing of the message before, in one frame or in several."""
    data = bytes(1 << 20)
    frames = server(None)
    sent = [wire(BINARY, data, mask=None), wire(BINARY, data, fin=False, mask=None), wire(CONTINUATION, mask=None)]
    frames = Frames(Role.CLIENT, max_message_bytes=None)
    _, left = peak_bytes(frames, sent)
    assert left < 4096
