"""Compression of messages: what is agreed on, and that inflating is bounded."""

from __future__ import annotations

import itertools
import random
import tracemalloc
import zlib

import pytest

from a2wsgi._protocol.codec import available
from a2wsgi._protocol.deflate import Agreement, agree_on_deflate
from a2wsgi._protocol.frames import Frames, Message, Role, Violation

pytestmark = pytest.mark.skipif(not available(), reason="needs websockets")


def agreed(offers: str) -> Agreement:
    """Agree on what has to be possible."""
    agreement = agree_on_deflate(offers)
    assert agreement is not None
    return agreement


def deflated(data: bytes) -> bytes:
    """Compress one message, by RFC 7692 §7.2.1 and nothing else."""
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def frame(payload: bytes, first: int = 0xC2) -> bytes:
    """A masked frame, with RSV1 and binary by default; the mask is zeros."""
    if len(payload) < 126:
        return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload
    return bytes([first, 0xFF]) + len(payload).to_bytes(8, "big") + bytes(4) + payload


@pytest.mark.parametrize(
    ("offers", "agreement"),
    [
        (
            "permessage-deflate; client_max_window_bits",
            Agreement(
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
                keep_ours=True,
                keep_theirs=True,
                our_bits=12,
                their_bits=12,
            ),
        ),
        (
            "permessage-deflate",
            Agreement("permessage-deflate; server_max_window_bits=12", True, True, our_bits=12, their_bits=15),
        ),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
            Agreement(
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
                keep_ours=False,
                keep_theirs=False,
                our_bits=10,
                their_bits=15,
            ),
        ),
        (
            "x-other, permessage-deflate; unknown=1, permessage-deflate; server_max_window_bits=15",
            Agreement("permessage-deflate; server_max_window_bits=12", True, True, our_bits=12, their_bits=15),
        ),
    ],
)
def test_agree_takes_the_first_offer_that_can_be_had(offers: str, agreement: Agreement) -> None:
    """RFC 7692 §5.1: an offer with parameters that are unknown or impossible is passed over."""
    assert agree_on_deflate(offers) == agreement


@pytest.mark.parametrize(
    "offers",
    [
        "",
        "x-other",
        "permessage-deflate; unknown",
        "permessage-deflate; server_max_window_bits=8",  # zlib cannot
        "permessage-deflate; server_max_window_bits=8; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate;;",
    ],
)
def test_agree_takes_none(offers: str) -> None:
    """RFC 7692 §7.1: a window of 8 bits, a repeated parameter or a value out of place is no offer."""
    assert agree_on_deflate(offers) is None


def test_short_messages_are_not_compressed() -> None:
    """RFC 7692 §6: the sender decides. 127 bytes go as they are, 128 compressed; so do control frames never."""
    frames = Frames(Role.SERVER, max_message_bytes=None, deflate=agreed("permessage-deflate"))
    assert frames.message("x" * 127) == b"\x81\x7e\x00\x7f" + b"x" * 127
    assert frames.message("x" * 128)[0] == 0xC1
    assert frames.ping(b"x" * 125) == b"\x89\x7d" + b"x" * 125


def test_the_window_is_kept_unless_otherwise_agreed() -> None:
    """RFC 7692 §7.1.1: a message that was sent before takes a few bytes, or with no_context_takeover as many again."""
    text = "".join(map(str, range(200)))
    kept = Frames(Role.SERVER, max_message_bytes=None, deflate=agreed("permessage-deflate"))
    offer = "permessage-deflate; server_no_context_takeover"
    fresh = Frames(Role.SERVER, max_message_bytes=None, deflate=agreed(offer))
    assert len(kept.message(text)) > 4 * len(kept.message(text))
    assert fresh.message(text) == fresh.message(text)


def test_fragments_are_inflated_as_one_message() -> None:
    """RFC 7692 §6.2: RSV1 stands on the first only; control frames between have none."""
    data = bytes(range(256)) * 4
    payload = deflated(data)
    frames = Frames(Role.SERVER, max_message_bytes=None, deflate=agreed("permessage-deflate"))
    assert list(frames.feed(frame(payload[:7], 0x42) + frame(payload[7:9], 0x00))) == []
    assert list(frames.feed(frame(payload[9:], 0x80))) == [Message(data)]
    assert list(frames.feed(frame(b"as it is", 0x82))) == [Message(b"as it is")]


@pytest.mark.parametrize(
    "sent",
    [
        frame(b"\xff\xff\xff"),  # not DEFLATE
        frame(b"", 0xC9),  # RSV1 on a ping
        frame(deflated(b"a"), 0x42) + frame(b"", 0xC0),  # RSV1 on a continuation
        frame(b"a", 0x02) + frame(b"", 0xC0),  # the same, of a message that is not compressed
        frame(b"a", 0xA2),  # RSV2
    ],
)
def test_what_breaks_compression_is_a_violation(sent: bytes) -> None:
    """RFC 7692 §6.1: the bit belongs on the first data frame of a message."""
    frames = Frames(Role.SERVER, max_message_bytes=None, deflate=agreed("permessage-deflate"))
    (violation,) = frames.feed(sent)
    assert isinstance(violation, Violation)
    assert violation.code == 1002


@pytest.mark.parametrize("limit", [1000, 65536])
@pytest.mark.parametrize("fragments", [1, 7])
def test_inflating_stops_at_the_limit(limit: int, fragments: int) -> None:
    """A bomb of 16 MiB in 16 KiB is answered 1009, having taken little more than the limit."""
    bomb = deflated(bytes(1 << 24))
    size = len(bomb) // fragments + 1
    parts = [bomb[start : start + size] for start in range(0, len(bomb), size)]
    sent = frame(parts[0], 0x42) + b"".join(frame(part, 0x00) for part in parts[1:])
    limit = max(limit, size)  # so that it is not the length of a frame that is refused
    frames = Frames(Role.SERVER, max_message_bytes=limit, deflate=agreed("permessage-deflate"))
    tracemalloc.start()
    try:
        assert list(frames.feed(sent)) == [Violation(1009, f"message longer than {limit} bytes")]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The wire three times over (fed, taken, unmasked), zlib's window and state, and what was inflated, twice.
    assert peak < 4 * len(sent) + 65536 + 3 * limit


def test_an_inflated_message_of_just_the_limit_is_taken() -> None:
    """The limit is that of the message, not of its frames."""
    frames = Frames(Role.SERVER, max_message_bytes=5000, deflate=agreed("permessage-deflate"))
    assert list(frames.feed(frame(deflated(bytes(5000))))) == [Message(bytes(5000))]
    assert list(frames.feed(frame(deflated(bytes(5001))))) == [Violation(1009, "message longer than 5000 bytes")]


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED])
@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_a_message_of_the_limit_that_cannot_be_compressed_is_taken(size: int, strategy: int, fragments: int) -> None:
    """It is longer compressed than as it is, and the limit is that of the message."""
    data = random.Random(size).randbytes(size + 1)
    for more, event in ((0, Message(data[:-1])), (1, Violation(1009, f"message longer than {size} bytes"))):
        frames = Frames(Role.SERVER, max_message_bytes=size, deflate=agreed("permessage-deflate"))
        deflater = zlib.compressobj(wbits=-15, memLevel=1, strategy=strategy)
        sent = (deflater.compress(data[: size + more]) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert len(sent) > size + more
        cuts = [len(sent) * number // fragments for number in range(fragments + 1)]
        parts = [sent[begin:end] for begin, end in itertools.pairwise(cuts)]
        heads = [0x42, *[0x00] * (fragments - 1)]
        heads[-1] |= 0x80
        assert list(frames.feed(b"".join(map(frame, parts, heads)))) == [event]


def test_a_message_of_the_limit_that_is_not_compressed_has_no_more_room() -> None:
    """Though compression was agreed on: its length is known from its frame's head."""
    frames = Frames(Role.SERVER, max_message_bytes=1000, deflate=agreed("permessage-deflate"))
    assert list(frames.feed(b"\x82\xfe" + (1001).to_bytes(2, "big"))) == [
        Violation(1009, "message longer than 1000 bytes")
    ]


def test_inflating_stops_at_the_limit_where_a_fragment_ends_on_it() -> None:
    """A limit of 0 bytes, which is what the next fragment has left, means no limit to zlib."""
    frames = Frames(Role.SERVER, max_message_bytes=1000, deflate=agreed("permessage-deflate"))
    sent = frame(deflated(bytes(1030))[:-1], 0x42) + frame(b"", 0x80)  # zlib has read all, and keeps 30 bytes back
    assert list(frames.feed(sent)) == [Violation(1009, "message longer than 1000 bytes")]


def finished(data: bytes) -> bytes:
    """Compress with a final block, as RFC 7692 §7.2.3.4 does where a flush cannot be had; what comes next is padded."""
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush(zlib.Z_FINISH)


OFFERS = ("permessage-deflate", "permessage-deflate; client_no_context_takeover")

#: RFC 7692 §7.2.3.4: "Hello" in a final block, and the head of the empty block whose other octets are left out.
HELLO_FINISHED = bytes.fromhex("f3 48 cd c9 c9 07 00 00")
HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")  # RFC 7692 §7.2.3.1


@pytest.mark.parametrize("offer", OFFERS)
def test_messages_may_come_in_final_blocks(offer: str) -> None:
    """RFC 7692 §7.2.3.4: zlib ends its stream there, and the next message begins another."""
    frames = Frames(Role.SERVER, max_message_bytes=1000, deflate=agreed(offer))
    sent = frame(HELLO_FINISHED) * 3 + frame(HELLO) + frame(b"as it is", 0x82) + frame(HELLO_FINISHED, 0xC1)
    hello = Message(b"Hello")
    assert list(frames.feed(sent)) == [hello, hello, hello, hello, Message(b"as it is"), Message("Hello")]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("size", [0, 10, 3000])
def test_a_final_block_may_be_all_there_is_of_a_message(offer: str, size: int) -> None:
    """Clients forget the octet that stands for the empty block behind it. What comes next is whole all the same."""
    data = random.Random(0).randbytes(size)  # longer than 2 KiB: `websockets` inflates the end of those by itself
    frames = Frames(Role.SERVER, max_message_bytes=None, deflate=agreed(offer))
    sent = [finished(data), finished(b"Hello"), finished(data), HELLO]
    messages = [Message(one) for one in (data, b"Hello", data, b"Hello")]
    assert list(frames.feed(b"".join(map(frame, sent)))) == messages


@pytest.mark.parametrize("size", [10, 3000])
@pytest.mark.parametrize("offer", OFFERS)
def test_a_message_may_go_on_behind_a_final_block(offer: str, size: int) -> None:
    """RFC 7692 §7.2.1: the next block follows at the next octet, be it in the same frame or not; so does its window."""
    data = random.Random(0).randbytes(size)
    frames = Frames(Role.SERVER, max_message_bytes=None, deflate=agreed(offer))
    payload = finished(data) * 2 + deflated(data)
    assert list(frames.feed(frame(payload))) == [Message(data * 3)]
    for cut in (1, len(payload) // 3, 2 * len(payload) // 3, len(payload) - 1):
        sent = frame(payload[:cut], 0x42) + frame(payload[cut:], 0x80)
        assert list(frames.feed(sent)) == [Message(data * 3)]


def test_the_window_is_kept_from_behind_a_final_block() -> None:
    """RFC 7692 §7.1.1: what is not final leaves a window, whatever was before."""
    data = random.Random(0).randbytes(300)
    deflater = zlib.compressobj(wbits=-15)
    first, second = (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH) for _ in range(2))
    assert len(second) < 50
    frames = Frames(Role.SERVER, max_message_bytes=None, deflate=agreed("permessage-deflate"))
    sent = frame(finished(b"Hello") + first[:-4]) + frame(second[:-4])
    assert list(frames.feed(sent)) == [Message(b"Hello" + data), Message(data)]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("fragments", [1, 2])
def test_the_limit_is_that_of_all_streams_of_a_message(offer: str, fragments: int) -> None:
    """No final block begins the count again."""
    first, second = finished(bytes(500)), finished(bytes(500)) + b"\x00"
    sent = frame(first + second) if fragments == 1 else frame(first, 0x42) + frame(second, 0x80)
    for limit, event in (
        (1000, Message(bytes(1000))),
        (999, Violation(1009, "message longer than 999 bytes")),
        (500, Violation(1009, "message longer than 500 bytes")),
    ):
        frames = Frames(Role.SERVER, max_message_bytes=limit, deflate=agreed(offer))
        assert list(frames.feed(sent)) == [event]


def test_what_comes_behind_final_blocks_is_not_gathered() -> None:
    """Zlib keeps what is behind the end of its stream, all of it, and copies it each time."""
    frames = Frames(Role.SERVER, max_message_bytes=1 << 20, deflate=agreed("permessage-deflate"))
    data = random.Random(0).randbytes(1000)
    tracemalloc.start()
    try:
        assert list(frames.feed(frame(b"\x03\x00"))) == [Message(b"")]
        for _ in range(200):
            assert list(frames.feed(frame(deflated(data)))) == [Message(data)]
        assert list(frames.feed(frame(b"\x03\x00", 0x42))) == []
        for _ in range(200):
            assert list(frames.feed(frame(b"\x00\x00\x00\xff\xff" * 200, 0x00))) == []
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 100_000  # zlib's window and state; what was sent is more than 200,000 bytes, twice


def test_a_frame_of_nothing_but_final_blocks_is_a_violation() -> None:
    """Each is a stream of its own to zlib, two octets long; a frame of 16 MiB would keep the loop for minutes."""
    frames = Frames(Role.SERVER, max_message_bytes=1 << 24, deflate=agreed("permessage-deflate"))
    assert list(frames.feed(frame(b"\x03\x00" * 16))) == [Message(b"")]
    assert list(frames.feed(frame(b"\x03\x00" * 17))) == [Violation(1002, "decompression failed")]


def test_an_idle_connection_has_no_zlib_object() -> None:
    """32 KiB to deflate and as much to inflate are taken when a message wants it, not at the handshake."""
    deflate = agreed("permessage-deflate")
    tracemalloc.start()
    try:
        frames = [Frames(Role.SERVER, max_message_bytes=None, deflate=deflate) for _ in range(10)]
        for one in frames:
            one.message("short")
            list(one.feed(frame(b"short", 0x82)))
        idle, _ = tracemalloc.get_traced_memory()
        frames[0].message("x" * 1000)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert idle < 10 * 4096
    assert used - idle > 256  # the object; zlib's own memory is not traced


def test_agree_on_deflate_reads_no_offers_of_any_length() -> None:
    """Servers let headers of megabytes pass, and the loop would stand still for as long as they take to read."""
    assert agree_on_deflate(", ".join(["x"] * 100 + ["permessage-deflate"])) is not None
    assert agree_on_deflate(", ".join(["x"] * 2_000 + ["permessage-deflate"])) is None
