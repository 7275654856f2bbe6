"""What both sides know: the body that belongs to a request's id, so that no body can pass for another's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

#: A prime, so that no chunk size and no buffer of ours lines up with it: a lost or doubled chunk shows.
_PERIOD = 1009


def body_of(identity: str, length: int) -> bytes:
    """The body of this many bytes that only this request has."""
    period = hashlib.shake_128(identity.encode()).digest(_PERIOD)
    return (period * (length // _PERIOD + 1))[:length]


def chunks_of(data: bytes, size: int) -> Iterator[bytes]:
    """The same in chunks."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def receipt(identity: str, digest: str) -> bytes:
    """What the app answers to an upload."""
    return f"{identity} {digest}".encode()
