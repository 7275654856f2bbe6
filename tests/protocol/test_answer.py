"""What a WSGI app writes on its socket before the first frame: each rule, and any cut of the bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2wsgi._errors import AppProtocolError
from a2wsgi._protocol.answer import MAX_HEAD_BYTES, Accepted, BodyParser, Denied, HeadParser

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
OPENING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "


def pieces_of(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """Cut data into pieces of these sizes, over and over."""
    start = 0
    for size in cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


def parse(*pieces: bytes) -> tuple[Accepted | Denied | None, bytes]:
    """Return the answer in what an app wrote, and what came after it."""
    parser = HeadParser(KEY, ["chat", "superchat"])
    answer = None
    rest = b""
    for piece in pieces:
        if answer is None:
            answer = parser.feed(piece)
            rest = parser.rest
        else:
            rest += piece
    return answer, rest


def denied(head: bytes) -> Denied:
    """Parse a head that has to be a refusal."""
    answer, _ = parse(head)
    assert isinstance(answer, Denied)
    return answer


# -- The head ---------------------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_a_101_accepts_however_it_is_cut(sizes: list[int]) -> None:
    """The subprotocol and the app's own headers are handed on; frames may follow at once."""
    sent = (
        OPENING + ACCEPT + b"\r\nsec-websocket-protocol: chat\r\nSec-WebSocket-Version: 13\r\n"
        b"Set-Cookie:a=1\r\nSET-COOKIE: \tb=\xe4\t\r\nDate: now\r\nContent-Length: 0\r\nKeep-Alive: 1\r\n\r\n\x81\x00"
    )
    headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=\xe4"), (b"date", b"now")]
    assert parse(*pieces_of(sent, sizes)) == (Accepted("chat", headers), b"\x81\x00")


def test_a_101_needs_no_reason_and_no_subprotocol() -> None:
    """RFC 9112 §4: the reason may be missing."""
    assert parse(OPENING.replace(b" Switching Protocols", b"") + ACCEPT + b"\r\n\r\n") == (Accepted(None, []), b"")


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (b"\x81\x02hi", "does not begin with HTTP/1.1"),  # a frame, or anything else: known at once
        (b"HTTX", "does not begin with HTTP/1.1"),
        (b"HTTP/2", "does not begin with HTTP/1.1"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "status line is malformed"),
        (b"HTTP/1.1  200 OK\r\n\r\n", "status line is malformed"),
        (b"HTTP/1.2 200 OK\r\n\r\n", "status line is malformed"),
        (b"HTTP/1.1 200 O\nK\r\n\r\n", "status line is malformed"),
        (b"HTTP/1.1 200 OK\r\na\r\n\r\n", "a header is malformed"),
        (b"HTTP/1.1 200 OK\r\na : b\r\n\r\n", "a header is malformed"),  # RFC 9112 §5.1
        (b"HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n", "a header is malformed"),  # RFC 9112 §5.2
        (b"HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n", "a header is malformed"),  # RFC 9112 §2.2
        (b"HTTP/1.1 200 OK\r\na: \0\r\n\r\n", "a header is malformed"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "status 100 is not final"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "Content-Length is not one number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "Content-Length is not one number"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "Transfer-Encoding is not just chunked"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "comes with Content-Length",
        ),
        (OPENING + b"x\r\n\r\n", "Sec-WebSocket-Accept does not answer"),
        (OPENING.replace(b"Upgrade: websocket\r\n", b"") + ACCEPT + b"\r\n\r\n", "lacks Upgrade: websocket"),
        (
            OPENING.replace(b"Connection: Upgrade", b"Connection: close") + ACCEPT + b"\r\n\r\n",
            "or Connection: Upgrade",
        ),
        (OPENING + ACCEPT + b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "agrees on an extension"),
        (OPENING + ACCEPT + b"\r\nSec-WebSocket-Protocol: Chat\r\n\r\n", "does not offer the subprotocol 'Chat'"),
        (OPENING + ACCEPT + b"\r\nSec-WebSocket-Protocol:\r\n\r\n", "does not offer the subprotocol ''"),
        (OPENING + ACCEPT + b"\r\nSec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n\r\n", "more than once"),
    ],
)
def test_a_wrong_head_is_the_fault_of_the_app(head: bytes, fault: str) -> None:
    """RFC 6455 §4.2.2, RFC 9112 §2 to §6: nothing of it is passed on."""
    with pytest.raises(AppProtocolError, match=fault):
        parse(head)


def test_a_malformed_header_is_not_shown() -> None:
    """It may be a cookie."""
    with pytest.raises(AppProtocolError) as caught:
        parse(b"HTTP/1.1 200 OK\r\nSet-Cookie : secret\r\n\r\n")
    assert "secret" not in str(caught.value)


def test_a_head_is_bounded() -> None:
    """64 KiB are a head; one byte more is none, whether its end has come or not."""
    start = b"HTTP/1.1 200 OK\r\na: "
    fits = start + b"a" * (MAX_HEAD_BYTES - len(start))
    assert isinstance(parse(fits + b"\r\n\r\n")[0], Denied)
    assert parse(fits) == (None, b"")
    for head in (fits + b"a\r\n\r\n", fits + b"aaaa"):
        with pytest.raises(AppProtocolError, match="longer than 65536 bytes"):
            parse(head)


def test_begun_tells_whether_anything_came() -> None:
    """A link that ends silent is another thing than one that ends in the middle of a head."""
    parser = HeadParser(KEY)
    assert not parser.begun
    assert parser.feed(b"H") is None
    assert parser.begun


# -- The body of a refusal --------------------------------------------------------------------------------------------


def test_a_refusal_has_its_status_and_headers() -> None:
    """What belongs to the connection is left out; Content-Length stays."""
    answer = denied(
        b"HTTP/1.0 401 No\r\nWWW-Authenticate: Basic\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno and more"
    )
    assert (answer.status, answer.headers) == (401, [(b"www-authenticate", b"Basic"), (b"content-length", b"2")])
    assert not answer.body.complete
    assert answer.body.feed(b"no and more") == b"no"
    assert answer.body.complete


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_a_refusal_without_a_body_is_complete(status: bytes) -> None:
    """RFC 9110 §6.4.1: whatever its headers say."""
    body = denied(b"HTTP/1.1 " + status + b" X\r\nTransfer-Encoding: chunked\r\n\r\n").body
    assert body.complete
    assert body.feed(b"2\r\nno\r\n") == b""


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
)
def test_a_body_is_read_however_it_is_framed_and_cut(chunks: list[bytes], sizes: list[int]) -> None:
    """RFC 9112 §6.3: by its length, in chunks, or until the end of the stream; what comes after it is thrown away."""
    whole = b"".join(chunks)
    chunked = b"".join(b"%X;x=y\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nTrailer: x\r\n\r\n"
    for head, sent in (
        (b"Content-Length: %d" % len(whole), whole + b"late"),
        (b"Transfer-Encoding: Chunked", chunked + b"late"),
        (b"X: y", whole),
    ):
        body = denied(b"HTTP/1.1 500 X\r\n" + head + b"\r\n\r\n").body
        assert b"".join(map(body.feed, pieces_of(sent, sizes))) == whole
        assert body.complete is (head != b"X: y")
        body.end_of_stream()
        assert body.complete


@pytest.mark.parametrize("sent", [b"", b"5\r\nab", b"2\r\nab", b"2\r\nab\r\n", b"0\r\n", b"0\r\nA: b\r\n"])
def test_a_chunked_body_that_ends_early_is_a_fault(sent: bytes) -> None:
    """RFC 9112 §8: an incomplete response never looks complete."""
    body = BodyParser(length=None, chunked=True)
    body.feed(sent)
    with pytest.raises(AppProtocolError, match="ends early"):
        body.end_of_stream()


def test_a_body_shorter_than_its_length_is_a_fault() -> None:
    """RFC 9112 §8."""
    body = BodyParser(length=3, chunked=False)
    assert body.feed(b"ab") == b"ab"
    with pytest.raises(AppProtocolError, match="ends early"):
        body.end_of_stream()


@pytest.mark.parametrize("sent", [b"x\r\n", b"-1\r\n", b"\r\n", b"1\r\nabc", b"1\n", b"1" * 17 + b"\r\n", b"1" * 4096])
def test_a_malformed_chunk_is_a_fault(sent: bytes) -> None:
    """RFC 9112 §7.1; a line has a bound."""
    body = BodyParser(length=None, chunked=True)
    with pytest.raises(AppProtocolError):
        body.feed(sent + bytes(4096))
