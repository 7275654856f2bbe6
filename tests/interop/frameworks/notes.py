"""What the apps of the frameworks have in common: what they note, count and wait for, as their contract says."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

#: How long an app waits for what a test does, at most.
SECONDS = 10.0

SECRET = "a secret that signs the cookies of a test"

_events: defaultdict[str, list[str]] = defaultdict(list)
_gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)
_parties: dict[int, threading.Barrier] = {}
_local = threading.local()


def note(name: str | None, event: str) -> None:
    """Note that something has happened, for a request that has a name."""
    if name:
        _events[name].append(event)


def noted(name: str) -> list[str]:
    """What has happened, in its order."""
    return list(_events[name])


def summary(stream: Any) -> dict[str, Any]:
    """What a stream holds, read to its end piece by piece."""
    digest, length = hashlib.sha256(), 0
    while piece := stream.read(64 * 1024):
        digest.update(piece)
        length += len(piece)
    return {"length": length, "sha256": digest.hexdigest()}


# -- For apps that wait in threads --------------------------------------------------------------------------------


def steps(name: str) -> Iterator[bytes]:
    """Two pieces; between them somebody must `go`."""
    yield b"one "
    if _gates[name].wait(SECONDS):
        yield b"two"


def go(name: str) -> None:
    """Let the steps of this name go on."""
    _gates[name].set()


def endless(name: str) -> Iterator[bytes]:
    """Pieces for as long as somebody takes them."""
    try:
        while True:
            yield b"x" * 16_384
    finally:
        note(name, "ended")


def breaks() -> Iterator[bytes]:
    """A piece, and an error."""
    yield b"one"
    raise ValueError("after the head")


_looking_up = threading.Lock()


def meet(size: int) -> None:
    """Wait until so many threads are here. The next as many make the next party."""
    with _looking_up:
        party = _parties.setdefault(size, threading.Barrier(size))
    party.wait(SECONDS)


def enter(name: str) -> str | None:
    """Keep a name in what belongs to this thread. Returns what another request has left there."""
    before: str | None = getattr(_local, "name", None)
    _local.name = name
    return before


def here() -> str | None:
    """The name that this thread keeps."""
    return getattr(_local, "name", None)


def leave() -> None:
    """Have this thread keep none: for the end of a request."""
    _local.__dict__.clear()
